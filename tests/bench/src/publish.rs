//! A disk uploaded to Amazon's EBS direct interfaces: ours, and `coldsnap`, to the same fake on this computer.
//!
//! It refuses to count an upload that arrived as something else: every snapshot is compared with the disk.

mod disk;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cloud::fake::Server;
use cloud::fake::aws::{Aws, KEY, Rules, SECRET};
use serde::Serialize;

use crate::timed::{self, Run};
use crate::usage::{Cost, Who};
use disk::Layout;

/// What the design asks for: times as fast as the peer, and KiB.
const GOAL: (f64, u64) = (3.0, 64 << 10);
const REGION: &str = "eu-west-1";
const OURS: &str = "firstboot";

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Size of the disk, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 8192, value_parser = clap::value_parser!(u64).range(2..=65536))]
    size: u64,
    /// How much of it is data, in MiB, spread over all of it.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=32768))]
    data: u64,
    /// How much later every answer comes, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 5)]
    latency: u64,
    /// How often each is measured; the best run counts, all are printed.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The peer (`cargo install coldsnap`).
    #[arg(long, value_name = "PROGRAM", default_value = "coldsnap")]
    coldsnap: PathBuf,
    /// Directory for the disk and for what arrives; it needs the data once, and the whole disk once more.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// One upload of ours, in a process of its own so that its memory can be measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Upload {
    #[arg(long)]
    disk: PathBuf,
    #[arg(long)]
    size: u64,
    #[arg(long)]
    data: u64,
    #[arg(long)]
    endpoint: String,
    #[arg(long)]
    journal: PathBuf,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file could not be read or written.
    #[error("failed to prepare `{}`", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The fake could not be started.
    #[error("failed to start the fake")]
    Fake(#[source] io::Error),
    /// More data than disk.
    #[error(
        "{data} MiB of data do not fit on a disk of {size} MiB with gaps between them: say at most half"
    )]
    Full { size: u64, data: u64 },
    /// The peer is not installed, or one side failed.
    #[error(transparent)]
    Timed(#[from] timed::Error),
    /// Our side failed.
    #[error("failed to upload")]
    Upload(#[source] cloud::Error),
    /// What arrived is not the disk.
    #[error("{who} made {found}, where one snapshot like the disk was to be made")]
    Wrong { who: String, found: String },
}

impl Error {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// One upload.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Sent {
    #[serde(flatten)]
    run: Run,
    /// Blocks that were put, and what they hold together in bytes.
    blocks: u64,
    bytes: u64,
    /// All calls.
    calls: u64,
    /// Seconds of the processor that the fake took.
    fake_cpu_s: f64,
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Line {
    what: String,
    uploads: Vec<Sent>,
}

impl Line {
    fn best(&self) -> f64 {
        let walls = self.uploads.iter().map(|sent| sent.run.wall_s);
        walls.min_by(f64::total_cmp).unwrap_or(f64::NAN)
    }

    fn largest(&self) -> u64 {
        let peaks = self.uploads.iter().map(|sent| sent.run.peak_kib);
        peaks.max().unwrap_or_default()
    }
}

/// Measures, and prints the table.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let layout = Layout::new(options.size, options.data).ok_or(Error::Full {
        size: options.size,
        data: options.data,
    })?;
    let base = options.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = tempfile::Builder::new()
        .prefix("bench-publish-")
        .tempdir_in(&base)
        .map_err(Error::at(&base))?;
    let disk = scratch.path().join("disk.raw");
    layout.write(&disk).map_err(Error::at(&disk))?;
    let runtime = tokio::runtime::Runtime::new().map_err(Error::Fake)?;
    let bench = Bench {
        options,
        layout,
        disk,
        scratch: scratch.path(),
        runtime,
    };
    let omitting = &["--omit-zero-blocks"][..];
    let mut lines = Vec::new();
    for (what, more) in [
        (OURS, None),
        ("coldsnap", Some(&[][..])),
        ("coldsnap --omit-zero-blocks", Some(omitting)),
    ] {
        let mut uploads = Vec::new();
        for number in 0..options.runs.max(1) {
            eprintln!("{what}, run {}", number + 1);
            uploads.push(bench.upload(what, more)?);
        }
        let what = what.to_owned();
        lines.push(Line { what, uploads });
    }
    if options.json {
        println!("{}", serde_json::to_string(&lines).unwrap_or_default());
    } else {
        print(options, &lines);
    }
    Ok(())
}

struct Bench<'a> {
    options: &'a Options,
    layout: Layout,
    disk: PathBuf,
    scratch: &'a Path,
    runtime: tokio::runtime::Runtime,
}

impl Bench<'_> {
    /// One upload to a cloud without anything in it.
    fn upload(&self, what: &str, peer: Option<&[&str]>) -> Result<Sent, Error> {
        let aws = Aws::new(Rules::default());
        let server = self
            .runtime
            .block_on(Server::start(Arc::clone(&aws) as Arc<_>))
            .map_err(Error::Fake)?;
        server.faults().latency = Duration::from_millis(self.options.latency);
        let command = match peer {
            Some(more) => self.theirs(&server.url(), more),
            None => self.ours(&server.url())?,
        };
        let (run, Cost { cpu, .. }) = Who::Us.measure(|| timed::run(&command, self.scratch));
        let run = run?;
        let calls = server.calls();
        let of = |label: &str| {
            let calls = calls.iter().filter(|(called, _)| called.label == label);
            calls.map(|(_, count)| count).sum::<u64>()
        };
        self.check(what, &aws)?;
        let blocks = of("ebs:PutSnapshotBlock");
        Ok(Sent {
            run,
            blocks,
            bytes: blocks * disk::BLOCK,
            calls: calls.values().sum(),
            fake_cpu_s: cpu.as_secs_f64(),
        })
    }

    fn ours(&self, endpoint: &str) -> Result<Command, Error> {
        let journal = self.scratch.join("journal");
        match fs::remove_dir_all(&journal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::at(&journal)(error));
            }
            _ => {}
        }
        let own = std::env::current_exe().map_err(Error::at(Path::new("bench")))?;
        let mut command = Command::new(own);
        command.args(["upload", "--endpoint", endpoint]);
        command.arg("--disk").arg(&self.disk);
        command.arg("--journal").arg(journal);
        command.args(["--size", &self.options.size.to_string()]);
        command.args(["--data", &self.options.data.to_string()]);
        Ok(Self::keys(command))
    }

    fn theirs(&self, endpoint: &str, more: &[&str]) -> Command {
        let mut command = Command::new(&self.options.coldsnap);
        command.args(["--region", REGION, "--endpoint", endpoint, "upload"]);
        command.arg("--no-progress").args(more).arg(&self.disk);
        Self::keys(command)
    }

    /// Only the fake takes these.
    fn keys(mut command: Command) -> Command {
        command.env("AWS_ACCESS_KEY_ID", KEY);
        command.env("AWS_SECRET_ACCESS_KEY", SECRET);
        command
    }

    /// One snapshot, completed, like the disk.
    fn check(&self, what: &str, aws: &Aws) -> Result<(), Error> {
        let wrong = |found: String| Error::Wrong {
            who: what.to_owned(),
            found,
        };
        let snapshots = aws.snapshots(REGION);
        let [snapshot] = snapshots.as_slice() else {
            return Err(wrong(format!("{} snapshots", snapshots.len())));
        };
        let disk = aws
            .disk(&snapshot.id)
            .ok_or_else(|| wrong(format!("a snapshot that is {}", snapshot.state)))?;
        let same = self.layout.is_on(|at, buffer| disk.read_at(at, buffer));
        match same {
            Ok(None) => Ok(()),
            Ok(Some(at)) => Err(wrong(format!("a snapshot that differs at byte {at}"))),
            Err(error) => Err(wrong(format!("a snapshot that cannot be read: {error}"))),
        }
    }
}

/// Uploads and registers the disk, as `imagebuild publish` does.
pub(crate) fn upload(options: &Upload) -> Result<(), Error> {
    let runtime = tokio::runtime::Runtime::new().map_err(Error::Fake)?;
    let layout = Layout::new(options.size, options.data).ok_or(Error::Full {
        size: options.size,
        data: options.data,
    })?;
    let raw = disk::Raw::open(&options.disk, &layout).map_err(Error::at(&options.disk))?;
    runtime
        .block_on(disk::publish(
            raw,
            REGION,
            &options.endpoint,
            &options.journal,
        ))
        .map_err(Error::Upload)
}

#[expect(clippy::cast_precision_loss, reason = "sizes without a fraction")]
fn print(options: &Options, lines: &[Line]) {
    println!(
        "a disk of {} MiB with {} MiB of data, to a fake that answers after {} ms; all snapshots like the disk",
        options.size, options.data, options.latency
    );
    println!(
        "{:<28} {:>9} {:>9} {:>9} {:>10} {:>7} {:>10}",
        "", "wall", "cpu", "largest", "sent", "calls", "fake's cpu"
    );
    for line in lines {
        for sent in &line.uploads {
            println!(
                "{:<28} {:>7.2} s {:>7.2} s {:>5.0} MiB {:>6} MiB {:>7} {:>8.2} s",
                line.what,
                sent.run.wall_s,
                sent.run.cpu_s,
                sent.run.peak_kib as f64 / 1024.0,
                sent.bytes >> 20,
                sent.calls,
                sent.fake_cpu_s,
            );
        }
    }
    let Some((ours, peers)) = lines.split_first() else {
        return;
    };
    let judged = |met: bool| if met { "met" } else { "missed" };
    for peer in peers {
        let times = peer.best() / ours.best();
        println!(
            "{} / {}, wall, best of each: {times:.1}; goal {}: {}",
            peer.what,
            ours.what,
            GOAL.0,
            judged(times >= GOAL.0)
        );
    }
    println!(
        "largest of ours: {} MiB, goal under {} MiB: {}",
        ours.largest().div_ceil(1024),
        GOAL.1 >> 10,
        judged(ours.largest() < GOAL.1)
    );
}
