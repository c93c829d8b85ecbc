//! What of a program Authenticode covers, and where the program says that it is signed.
//!
//! Firmware hashes the headers but for two fields, and then the sections; it takes for granted that they lie side by
//! side. A program where they do not is refused, as is one that is signed already.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

/// Headers are some hundred bytes to a few kilobytes.
const LONGEST_HEAD: u64 = 64 * 1024;
/// Bytes of one section's header.
const SECTION: usize = 40;
/// `PE32+`, as all programs for 64 bits are.
const MAGIC: u16 = 0x020b;
/// Where the optional header of `PE32+` has its checksum, how many directories it has, and the fifth of them.
const CHECKSUM: usize = 64;
const DIRECTORIES: usize = 108;
const CERTIFICATES: usize = 144;

/// Where things stand in a program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) checksum_at: u64,
    /// The entry that says where the table of certificates is.
    pub(super) directory_at: u64,
    /// What is hashed, in order.
    pub(super) hashed: Vec<Range<u64>>,
}

/// Why a program cannot be signed.
#[derive(Debug)]
pub(super) enum Problem {
    Read(io::Error),
    Unfit(&'static str),
}

impl Program {
    /// Reads the headers of a program of that length.
    pub(super) fn read(file: &mut File, length: u64) -> Result<Self, Problem> {
        let mut head = Vec::new();
        file.seek(SeekFrom::Start(0)).map_err(Problem::Read)?;
        file.take(LONGEST_HEAD)
            .read_to_end(&mut head)
            .map_err(Problem::Read)?;
        Self::decode(&head, length).map_err(Problem::Unfit)
    }

    /// Reads the headers, which `head` begins with.
    pub(super) fn decode(head: &[u8], length: u64) -> Result<Self, &'static str> {
        const SHORT: &str = "it is no program for UEFI";
        if head.get(..2) != Some(b"MZ") {
            return Err(SHORT);
        }
        let coff = number(head, 60, 4).and_then(offset).ok_or(SHORT)?;
        if head.get(coff..).and_then(|rest| rest.get(..4)) != Some(b"PE\0\0") {
            return Err(SHORT);
        }
        let field = |at: usize, size| number(head, coff.checked_add(at)?, size);
        let sections = field(6, 2).and_then(offset).ok_or(SHORT)?;
        let optional = coff + 24;
        let sections_at = optional + field(20, 2).and_then(offset).ok_or(SHORT)?;
        if field(24, 2) != Some(MAGIC.into()) {
            return Err("it is no program for 64 bits");
        }
        if field(24 + DIRECTORIES, 4).is_none_or(|count| count < 5) {
            return Err("it has no place for a signature");
        }
        if field(24 + CERTIFICATES, 8) != Some(0) {
            return Err("it is signed already");
        }
        let head_size = field(24 + 60, 4).ok_or(SHORT)?;
        let checksum_at = (optional + CHECKSUM) as u64;
        let directory_at = (optional + CERTIFICATES) as u64;
        let mut parts = Vec::new();
        for at in 0..sections {
            let at = sections_at + at * SECTION;
            let size = number(head, at + 16, 4).ok_or(SHORT)?;
            let start = number(head, at + 20, 4).ok_or(SHORT)?;
            if size > 0 {
                parts.push(start..start + size);
            }
        }
        parts.sort_by_key(|part| part.start);
        let mut end = head_size;
        for part in &parts {
            if part.start != end {
                return Err("its sections do not lie side by side");
            }
            end = part.end;
        }
        if head_size < directory_at + 8 || end > length {
            return Err("its sections do not fit into it");
        }
        Ok(Self {
            checksum_at,
            directory_at,
            // What stands behind the sections is covered, too.
            hashed: vec![
                0..checksum_at,
                checksum_at + 4..directory_at,
                directory_at + 8..length,
            ],
        })
    }
}

fn offset(number: u64) -> Option<usize> {
    usize::try_from(number).ok()
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    )
}

/// Adds a program up as its checksum is defined: words of 16 bits with their carries, without the field itself, and
/// the length.
pub(super) fn checksum(file: &mut File, field: u64) -> io::Result<u32> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut at, mut sum): (u64, u64) = (0, 0);
    let mut word = [0; 2];
    loop {
        let mut filled = 0;
        while filled < 2 {
            match reader.read(&mut word[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            break;
        }
        word[filled..].fill(0);
        // Both fields that matter here begin at even places.
        if !(field..field + 4).contains(&at) {
            sum += u64::from(u16::from_le_bytes(word));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        at += filled as u64;
    }
    Ok(u32::try_from(sum + at).unwrap_or(u32::MAX))
}
