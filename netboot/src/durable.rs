//! Small files that must be whole or absent, whatever happens while they are written.
//!
//! It refuses to leave a half: bytes go to another name first, reach the disk, and are renamed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

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

/// Writes a file of a directory; when this returns it is on disk, whole.
pub(crate) fn write(
    directory: &Path,
    name: &str,
    bytes: &[u8],
    readable: Readable,
) -> io::Result<()> {
    let unfinished = directory.join(format!("{name}.new"));
    // What a crash left has the mode that it was made with: it is not reused.
    match std::fs::remove_file(&unfinished) {
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
    std::fs::rename(&unfinished, directory.join(name))?;
    File::open(directory)?.sync_all()
}
