//! Restores a data directory out of an archive.
//!
//! It refuses a directory that holds anything, and gives the restored one its name only when every file was compared.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{BackupError, Entry, Manifest, What, archive};
use crate::api::verify_store;
use crate::audit::Anchor;

/// Restores an archive into a directory that is empty or not there.
///
/// # Errors
/// When the directory holds something, or the archive is damaged: then nothing stands under that name.
pub async fn restore(archive: impl Read, data: &Path) -> Result<Manifest, BackupError> {
    if !is_free(data)? {
        return Err(BackupError::NotEmpty {
            path: data.to_owned(),
        });
    }
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    let unfinished = data.with_file_name(name);
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(writing(&unfinished)(error));
        }
        _ => {}
    }
    let restored = unpack(archive, &unfinished);
    let checked = match restored {
        Ok(manifest) => check(&unfinished, &manifest).await.map(|()| manifest),
        Err(error) => Err(error),
    };
    let finished = checked.and_then(|manifest| {
        // A rename replaces an empty directory, and nothing else.
        fs::rename(&unfinished, data).map_err(writing(data))?;
        sync(
            data.parent()
                .filter(|up| !up.as_os_str().is_empty())
                .unwrap_or(Path::new(".")),
        )?;
        Ok(manifest)
    });
    if finished.is_err() {
        // Whoever tries again removes what is left.
        fs::remove_dir_all(&unfinished).ok();
    }
    finished
}

fn is_free(data: &Path) -> Result<bool, BackupError> {
    match fs::read_dir(data) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(BackupError::Read {
            path: data.to_owned(),
            source,
        }),
    }
}

fn unpack(archive: impl Read, to: &Path) -> Result<Manifest, BackupError> {
    make_directory(to)?;
    let mut directories = vec![to.to_owned()];
    let manifest = archive::read(archive, |entry, bytes| {
        let path = to.join(&entry.path);
        let up = path.parent().unwrap_or(to);
        if !up.is_dir() {
            make_directory(up)?;
        }
        if !directories.iter().any(|known| known == up) {
            directories.push(up.to_owned());
        }
        match bytes {
            Some(bytes) => write(&path, entry, bytes),
            None => link(&path, entry),
        }
    })?;
    for directory in directories {
        sync(&directory)?;
    }
    Ok(manifest)
}

fn write(path: &Path, entry: &Entry, bytes: &mut dyn Read) -> Result<(), BackupError> {
    let mode = match entry.what {
        What::File { mode, .. } => mode & 0o644,
        What::Link { .. } => 0o600,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(writing(path))?;
    io::copy(bytes, &mut file).map_err(writing(path))?;
    file.sync_all().map_err(writing(path))
}

fn link(path: &Path, entry: &Entry) -> Result<(), BackupError> {
    match &entry.what {
        What::Link { target } => std::os::unix::fs::symlink(target, path).map_err(writing(path)),
        What::File { .. } => Ok(()),
    }
}

fn make_directory(path: &Path) -> Result<(), BackupError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(writing(path))
}

/// Compares the restored audit log with the end that the manifest names.
async fn check(data: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let anchor: Anchor = manifest.audit.parse().map_err(BackupError::Audit)?;
    let expected = anchor.seq;
    let verified = verify_store(data, Some(anchor)).await?;
    match verified.broken {
        Some(broken) => Err(BackupError::Audit(broken)),
        None if verified.records != expected => Err(BackupError::Audit(format!(
            "it has {} records instead of {expected}",
            verified.records
        ))),
        None => Ok(()),
    }
}

fn sync(directory: &Path) -> Result<(), BackupError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(writing(directory))
}

fn writing(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path: PathBuf = path.to_owned();
    move |source| BackupError::Write { path, source }
}
