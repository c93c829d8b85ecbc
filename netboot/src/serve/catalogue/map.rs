//! Files as memory: one mapping, however many hosts read it.
//!
//! It refuses files that may change: only those of the store, which are named by digest, come here.
#![expect(
    unsafe_code,
    reason = "mapping a file is unsafe: someone else could truncate it"
)]

use std::fs::File;
use std::io;

use bytes::Bytes;
use memmap2::{Advice, Mmap};

/// Maps a file and asks the kernel to read it ahead, so that a cold file does not stop a reactor thread at each page.
pub(super) fn map(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new()); // an empty mapping is an error
    }
    // SAFETY: the store writes a file under a temporary name, renames it once and never writes to it again, so the
    // mapped bytes do not change and the file is never shorter than the mapping. Removing the file leaves the
    // mapping valid.
    let map = unsafe { Mmap::map(file) }?;
    if let Err(error) = map.advise(Advice::WillNeed) {
        tracing::debug!(error = %error, "file is not read ahead");
    }
    Ok(Bytes::from_owner(map))
}
