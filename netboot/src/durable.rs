//! Small files that must be whole or absent, whatever happens while they are written.
//!
//! It refuses to leave a half: bytes go to another name first, reach the disk, and are renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readable {
    /// Its owner only.
    Owner,
    /// Everyone.
    All,
}

impl Readable {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::All => 0o644,
        }
    }
}

/// Returns the mode of a file that others than its owner can read or write; asked of the open file, so that it cannot
/// be exchanged in between.
pub(crate) fn open_to_others(file: &File) -> io::Result<Option<u32>> {
    let mode = file.metadata()?.permissions().mode() & 0o7777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

/// Makes a file where there is none, and closes it and others beside it to all but their owner.
///
/// An older version had them open to everybody.
pub(crate) fn keep_private(file: &Path, beside: &[PathBuf]) -> io::Result<()> {
    let mode = Readable::Owner.mode();
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(mode)
        .open(file)?;
    for path in beside {
        match fs::metadata(path) {
            Ok(about) if about.permissions().mode() & 0o077 != 0 => {
                fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Writes a file of a directory; when this returns it is on disk, whole.
pub(crate) fn write(
    directory: &Path,
    name: &str,
    bytes: &[u8],
    readable: Readable,
) -> io::Result<()> {
    let unfinished = directory.join(format!("{name}.new"));
    // What a crash left has the mode that it was made with: it is not reused.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(readable.mode())
        .open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, directory.join(name))?;
    File::open(directory)?.sync_all()
}
