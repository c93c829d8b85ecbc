//! Notes of what was done, on disk, so that a publish that was killed goes on where it was.
//!
//! A note is there before anything relies on it. The last one may be torn by a power cut, and is then left out; the notes of
//! another version are left out altogether: they only ever save work.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// More notes than this are none that we wrote.
const LONGEST: u64 = 64 << 20;

/// The notes about one image and one target; nobody else writes them meanwhile.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the notes, made when there are none, and reads them.
    ///
    /// `subject` and `target` name what they are about; the file's name is made of a digest of both.
    ///
    /// # Errors
    /// When somebody else has them open, or the directory cannot be used.
    pub fn open<T: DeserializeOwned>(
        directory: &Path,
        subject: &str,
        target: &str,
    ) -> Result<(Self, Vec<T>), Error> {
        let name = image_manifest::Digest::of(format!("{subject}\n{target}").as_bytes());
        let path = directory.join(format!("{}.notes", name.hex()));
        let failed = |source| Error::Journal {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(directory).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        // Some notes let whoever reads them go on with an upload.
        options.mode(0o600);
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Busy(target.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let (notes, whole) = read(&mut file).map_err(failed)?;
        file.set_len(whole).map_err(failed)?;
        file.seek(SeekFrom::Start(whole)).map_err(failed)?;
        Ok((Self { path, file }, notes))
    }

    /// Adds notes; they are on disk when this returns.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn add<T: Serialize>(&mut self, notes: &[T]) -> Result<(), Error> {
        let mut text = Vec::new();
        for note in notes {
            let written = serde_json::to_writer(&mut text, note);
            written.map_err(|error| self.failed(error.into()))?;
            text.push(b'\n');
        }
        let written = self.file.write_all(&text);
        let written = written.and_then(|()| self.file.sync_data());
        written.map_err(|source| self.failed(source))
    }

    /// Forgets everything: what the notes were about is finished, or gone.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn clear(&mut self) -> Result<(), Error> {
        let cleared = self.file.set_len(0);
        let cleared = cleared.and_then(|()| self.file.seek(SeekFrom::Start(0)));
        let cleared = cleared.and_then(|_| self.file.sync_all());
        cleared.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Journal {
            path: self.path.clone(),
            source,
        }
    }
}

/// Reads whole lines; returns the notes and where the last good one ends.
fn read<T: DeserializeOwned>(file: &mut File) -> io::Result<(Vec<T>, u64)> {
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    let (mut notes, mut whole) = (Vec::new(), 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let note = line.strip_suffix(b"\n");
        let note = note.and_then(|line| serde_json::from_slice(line).ok());
        let Some(note) = note else { break };
        notes.push(note);
        whole += line.len() as u64;
    }
    Ok((notes, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_found_again_and_a_torn_one_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Journal::open::<u32>(directory.path(), "image", "aws");
        let (mut journal, notes) = open().unwrap();
        assert!(notes.is_empty());
        journal.add(&[1, 2]).unwrap();
        assert!(matches!(open(), Err(Error::Busy(target)) if target == "aws"));
        let path = journal.path.clone();
        drop(journal);
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"12");
        fs::write(&path, text).unwrap();
        let (mut journal, notes) = open().unwrap();
        assert_eq!(notes, [1, 2]);
        journal.add(&[3]).unwrap();
        drop(journal);
        let (mut journal, notes) = open().unwrap();
        assert_eq!(notes, [1, 2, 3]);
        journal.clear().unwrap();
        journal.add(&[4]).unwrap();
        drop(journal);
        assert_eq!(open().unwrap().1, [4]);
        let (_, others) = Journal::open::<u32>(directory.path(), "image", "gce").unwrap();
        assert!(others.is_empty());
    }
}
