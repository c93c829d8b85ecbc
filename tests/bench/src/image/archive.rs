//! The packages of a lock as an archive on this computer, so that every builder reads the same files and no network.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Error;

/// A package of the lock that is installed.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    version: String,
    architecture: String,
    #[serde(rename = "use")]
    usage: String,
    size: u64,
    sha256: String,
}

#[derive(serde::Deserialize)]
struct Lock {
    package: Vec<Package>,
}

/// Reads which packages a lock installs.
pub(super) fn installed(lock: &Path) -> Result<Vec<Package>, Error> {
    let text = fs::read_to_string(lock).map_err(Error::at(lock))?;
    let lock: Lock = toml::from_str(&text).map_err(|error| Error::Lock(Box::new(error)))?;
    let packages = lock.package.into_iter();
    Ok(packages.filter(|one| one.usage == "install").collect())
}

/// Lays packages out as `dists/` and `pool/`, by links to the files of a cache.
pub(super) fn make(
    packages: &[Package],
    cache: &Path,
    release: &str,
    into: &Path,
) -> Result<(), Error> {
    let pool = into.join("pool");
    fs::create_dir_all(&pool).map_err(Error::at(&pool))?;
    let mut index = String::new();
    for package in packages {
        let digest = package.sha256.trim_start_matches("sha256:");
        let file = cache.join("packages/sha256").join(digest);
        let version = package.version.replace(':', "%3a");
        let name = format!("{}_{version}_{}.deb", package.name, package.architecture);
        let place = pool.join(&name);
        link(&file, &place).map_err(Error::at(&file))?;
        let control = output(Command::new("dpkg-deb").arg("--field").arg(&file))?;
        let size = package.size;
        let control = control.trim_end();
        let place = format!("Filename: pool/{name}\nSize: {size}\nSHA256: {digest}");
        index.extend([control, "\n", &place, "\n\n"]);
    }
    let mut names = vec!["all".to_owned()];
    names.extend(packages.iter().map(|one| one.architecture.clone()));
    names.sort();
    names.dedup();
    let architecture = names.iter().find(|name| *name != "all");
    let architecture = architecture.map_or("amd64", String::as_str);
    let part = format!("main/binary-{architecture}");
    let suite = into.join("dists").join(release);
    let directory = suite.join(&part);
    fs::create_dir_all(&directory).map_err(Error::at(&directory))?;
    let list = directory.join("Packages");
    fs::write(&list, &index).map_err(Error::at(&list))?;
    let sum = output(Command::new("sha256sum").arg(&list))?;
    let sum = sum.split(' ').next().unwrap_or_default();
    let text = format!(
        "Origin: bench\nSuite: {release}\nCodename: {release}\nArchitectures: {architecture}\n\
         Components: main\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n {sum} {} {part}/Packages\n",
        index.len()
    );
    let file = suite.join("Release");
    fs::write(&file, text).map_err(Error::at(&file))
}

/// A second name where that can be, since a sandboxed apt may not follow a link.
fn link(from: &PathBuf, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to).or_else(|_| symlink(from, to))
}

fn output(command: &mut Command) -> Result<String, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.output().map_err(|source| Error::Program {
        program: program.clone(),
        source,
    })?;
    if !done.status.success() {
        let source = io::Error::other(String::from_utf8_lossy(&done.stderr).into_owned());
        return Err(Error::Program { program, source });
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
