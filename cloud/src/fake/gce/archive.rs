//! Whether an archive is a disk that Compute Engine takes.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use flate2::read::MultiGzDecoder;
use image_manifest::Digest;

const BLOCK: usize = 512;
const GIB: u64 = 1 << 30;

/// Size of the disk in GiB, or what is wrong with the archive.
///
/// One archive is judged once: it takes a second, and tests make images of the same one often.
pub(super) fn judge(archive: &[u8]) -> Result<u64, &'static str> {
    static JUDGED: Mutex<BTreeMap<[u8; 32], Result<u64, &'static str>>> =
        Mutex::new(BTreeMap::new());
    let digest = *Digest::of(archive).as_bytes();
    let mut judged = JUDGED.lock().unwrap_or_else(PoisonError::into_inner);
    *judged.entry(digest).or_insert_with(|| look(archive))
}

fn look(archive: &[u8]) -> Result<u64, &'static str> {
    let mut decoder = MultiGzDecoder::new(archive);
    let mut header = [0; BLOCK];
    let read = decoder.read_exact(&mut header);
    read.map_err(|_| "The tar archive is not compressed by gzip.")?;
    if &header[257..265] != b"ustar  \0" {
        return Err("The tar archive is not a valid image: it is not of the old GNU format.");
    }
    if !header.starts_with(b"disk.raw\0") {
        return Err("The tar archive is not a valid image: there is no disk.raw.");
    }
    let size = size(&header[124..136]).ok_or("The tar archive is not a valid image.")?;
    if size == 0 || size % GIB != 0 {
        return Err("The size of disk.raw is not a whole number of GB.");
    }
    let (mut read, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => read += length as u64,
            Err(_) => return Err("The tar archive is damaged."),
        }
    }
    // Two blocks of zeros end an archive.
    if read < size + 2 * BLOCK as u64 {
        return Err("The tar archive ends early.");
    }
    Ok(size / GIB)
}

fn size(field: &[u8]) -> Option<u64> {
    if field[0] == 0x80 {
        let bytes = field[4..12].try_into().ok()?;
        return Some(u64::from_be_bytes(bytes));
    }
    let digits = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(digits, 8).ok()
}
