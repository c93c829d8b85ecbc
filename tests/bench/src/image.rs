//! An image from locked packages: `imagebuild` beside `mmdebstrap` and `mkosi`, all from packages on this computer.
//!
//! It refuses to flatter: the peers make one archive or directory of the installed packages, `imagebuild` all that its
//! definition asks for; and what a peer cannot do here is a line that says why.

mod archive;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use crate::timed::{self, Run};

/// What the design asks for: a share of mmdebstrap's time, and seconds for one changed file.
const SHARE: f64 = 0.25;
const FILES_ONLY_S: f64 = 2.0;

/// What is compared with the peers: kernel, initrd, root file system and one disk, as they make one archive.
const BUILD: &str = "imagebuild build, one disk";
/// The same after an update of another package: every package is known from earlier builds, and all are configured anew.
const UPDATED: &str = "imagebuild build, packages known";
const CHANGED: &str = "imagebuild build, one file more";

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Directory of the definition, beside those that it extends.
    #[arg(long, value_name = "DIR", default_value = "images/host")]
    definition: PathBuf,
    /// A cache of `imagebuild` that holds the packages [default: the user's].
    #[arg(long, value_name = "DIR", env = "IMAGEBUILD_CACHE")]
    cache: Option<PathBuf>,
    /// How often each is measured; the best run counts, all are printed.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Directory for all that is written; it needs 5 GB.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file could not be read or written.
    #[error("failed to prepare `{}`", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The lock cannot be read.
    #[error("failed to read the lock")]
    Lock(#[source] Box<toml::de::Error>),
    /// A program of the preparation failed.
    #[error("failed to run `{program}`")]
    Program { program: String, source: io::Error },
    /// Our side failed.
    #[error(transparent)]
    Timed(#[from] timed::Error),
    /// Nobody knows where packages are.
    #[error("no cache: say `--cache`")]
    NoCache,
}

impl Error {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Line {
    what: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<Run>,
    #[serde(skip_serializing_if = "Option::is_none")]
    absent: Option<String>,
}

impl Line {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            runs: Vec::new(),
            absent: None,
        }
    }

    fn best(&self, of: impl Fn(&Run) -> f64) -> Option<f64> {
        self.runs.iter().map(of).min_by(f64::total_cmp)
    }
}

/// Measures, and prints the table.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let cache = options.cache.clone().or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cache/imagebuild"))
    });
    let cache = cache.ok_or(Error::NoCache)?;
    let base = options.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = tempfile::Builder::new()
        .prefix("bench-image-")
        .tempdir_in(&base)
        .map_err(Error::at(&base))?;
    let bench = Bench::prepare(options, &cache, scratch.path())?;
    let mut lines = bench.ours(options.runs.max(1))?;
    for peer in [Peer::Mmdebstrap, Peer::Mkosi] {
        lines.push(bench.peer(peer, options.runs.max(1)));
    }
    if options.json {
        println!("{}", serde_json::to_string(&lines).unwrap_or_default());
    } else {
        print(&lines, bench.packages.len());
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Peer {
    Mmdebstrap,
    Mkosi,
}

struct Bench {
    scratch: PathBuf,
    cache: PathBuf,
    imagebuild: PathBuf,
    name: String,
    packages: Vec<archive::Package>,
}

impl Bench {
    fn prepare(options: &Options, cache: &Path, scratch: &Path) -> Result<Self, Error> {
        let imagebuild = build()?;
        let definition = &options.definition;
        let name = definition.file_name().unwrap_or_default();
        let above = definition.parent().unwrap_or(definition);
        copy(above, &scratch.join("images"))?;
        let packages = archive::installed(&definition.join("image.lock"))?;
        archive::make(&packages, cache, "trixie", &scratch.join("archive"))?;
        Ok(Self {
            scratch: scratch.to_owned(),
            cache: cache.to_owned(),
            imagebuild,
            name: name.to_string_lossy().into_owned(),
            packages,
        })
    }

    fn imagebuild(&self, words: &[&str]) -> Result<Run, Error> {
        let mut command = Command::new(&self.imagebuild);
        command
            .args(words)
            .args(["--store", "store"])
            .env("IMAGEBUILD_CACHE", self.scratch.join("cache"))
            .current_dir(&self.scratch);
        Ok(timed::run(&command, &self.scratch)?)
    }

    /// From packages alone with one disk, again with packages that are known, with all outputs, after one file was changed, and
    /// back into the listing.
    fn ours(&self, runs: usize) -> Result<Vec<Line>, Error> {
        let definition = format!("images/{}", self.name);
        let file = self.scratch.join(&definition).join("image.toml");
        let text = fs::read_to_string(&file).map_err(Error::at(&file))?;
        let define = |text: &str| fs::write(&file, text).map_err(Error::at(&file));
        let build = || self.imagebuild(&["build", &definition, "--offline"]);
        let mut lines = [
            BUILD,
            UPDATED,
            "imagebuild build, all outputs",
            CHANGED,
            "imagebuild verify",
        ]
        .map(Line::new);
        for number in 0..runs {
            // A key of the top comes before all tables.
            define(&format!("outputs = [\"raw\"]\n{text}"))?;
            self.empty()?;
            lines[0].runs.push(build()?);
            self.remove(&["cache/configured", "cache/layers", "store"])?;
            lines[1].runs.push(build()?);
            define(&text)?;
            self.empty()?;
            lines[2].runs.push(build()?);
            define(&format!(
                "{text}\n[[file]]\npath = \"etc/bench-{number}\"\ncontent = \"changed\"\n"
            ))?;
            lines[3].runs.push(build()?);
            lines[4]
                .runs
                .push(self.imagebuild(&["verify", &self.name])?);
        }
        Ok(lines.into())
    }

    /// Leaves packages in the cache and nothing else, and no store.
    fn empty(&self) -> Result<(), Error> {
        self.remove(&["cache", "store"])?;
        let packages = self.cache.join("packages");
        copy(&packages, &self.scratch.join("cache/packages"))
    }

    fn remove(&self, directories: &[&str]) -> Result<(), Error> {
        for directory in directories {
            let path = self.scratch.join(directory);
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::at(&path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn peer(&self, peer: Peer, runs: usize) -> Line {
        let what = match peer {
            Peer::Mmdebstrap => "mmdebstrap",
            Peer::Mkosi => "mkosi",
        };
        let mut line = Line::new(what);
        for number in 0..runs {
            let out = self.scratch.join(format!("{what}-{number}"));
            let command = match peer {
                Peer::Mmdebstrap => self.mmdebstrap(&out),
                Peer::Mkosi => self.mkosi(&out),
            };
            match timed::run(&command, &self.scratch) {
                Ok(run) => line.runs.push(run),
                Err(error) => {
                    line.absent = Some(error.to_string());
                    break;
                }
            }
        }
        line
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.packages.iter().map(|package| package.name.as_str())
    }

    /// The same packages, in the variant that adds none of its own; what `images/base` leaves out is left out here.
    fn mmdebstrap(&self, out: &Path) -> Command {
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=essential", "--format=tar", "--mode=root"]);
        for path in ["bug", "doc", "info", "lintian", "locale", "man"] {
            command.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
        }
        let names: Vec<_> = self.names().collect();
        command
            .arg(format!("--include={}", names.join(",")))
            .arg("trixie")
            .arg(out)
            .arg(format!(
                "deb [trusted=yes] copy:{} trixie main",
                self.scratch.join("archive").display()
            ));
        command
    }

    /// The same packages as a directory, without the bootable part.
    fn mkosi(&self, out: &Path) -> Command {
        let mut command = Command::new("mkosi");
        let work = self.scratch.join("mkosi");
        drop(fs::create_dir_all(&work));
        command
            .current_dir(work)
            .args(["--distribution=debian", "--release=trixie"])
            .args(["--format=directory", "--bootable=no", "--force"])
            .arg("--repository-key-check=no")
            .arg(format!(
                "--mirror=file://{}",
                self.scratch.join("archive").display()
            ))
            .arg(format!("--output={}", out.display()));
        for name in self.names() {
            command.arg(format!("--package={name}"));
        }
        command.arg("build");
        command
    }
}

/// Builds `imagebuild` with the profile that this program was built with.
fn build() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::at(Path::new("bench")))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "imagebuild"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let failed = |source| Error::Program {
        program: "cargo build".to_owned(),
        source,
    };
    let status = command.status().map_err(failed)?;
    if !status.success() {
        return Err(failed(io::Error::other(status.to_string())));
    }
    Ok(own.with_file_name("imagebuild"))
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(Error::at(to))?;
    for entry in fs::read_dir(from).map_err(Error::at(from))? {
        let entry = entry.map_err(Error::at(from))?;
        let (place, target) = (entry.path(), to.join(entry.file_name()));
        if place.is_dir() {
            copy(&place, &target)?;
        } else {
            fs::copy(&place, &target).map_err(Error::at(&place))?;
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "megabytes without a fraction")]
fn print(lines: &[Line], packages: usize) {
    println!("{packages} packages, read from this computer");
    println!("{:<34} {:>9} {:>9} {:>10}", "", "wall", "cpu", "largest");
    for line in lines {
        for run in &line.runs {
            println!(
                "{:<34} {:>7.2} s {:>7.2} s {:>6.0} MiB",
                line.what,
                run.wall_s,
                run.cpu_s,
                run.peak_kib as f64 / 1024.0
            );
        }
        if let Some(why) = &line.absent {
            println!("{:<34} not measured: {why}", line.what);
        }
    }
    let best = |what: &str, of: fn(&Run) -> f64| {
        let line = lines.iter().find(|line| line.what == what)?;
        line.best(of)
    };
    let judged = |met: bool| if met { "met" } else { "missed" };
    let wall: fn(&Run) -> f64 = |run| run.wall_s;
    let cpu: fn(&Run) -> f64 = |run| run.cpu_s;
    for (name, of) in [("wall", wall), ("cpu", cpu)] {
        for (peer, what) in [
            ("mmdebstrap", BUILD),
            ("mmdebstrap", UPDATED),
            ("mkosi", BUILD),
        ] {
            if let (Some(ours), Some(theirs)) = (best(what, of), best(peer, of)) {
                let share = ours / theirs;
                let goal = if peer == "mmdebstrap" {
                    format!(", goal {SHARE}: {}", judged(share <= SHARE))
                } else {
                    String::new()
                };
                println!("{what} / {peer}, {name}, best of each: {share:.2}{goal}");
            }
        }
    }
    if let Some(seconds) = best(CHANGED, |run| run.wall_s) {
        println!(
            "one file more: {seconds:.2} s, goal {FILES_ONLY_S} s: {}",
            judged(seconds <= FILES_ONLY_S)
        );
    }
}
