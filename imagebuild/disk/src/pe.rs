//! Programs for UEFI: sections are appended to a stub, and found again.
//!
//! It refuses programs of 32 bits, stubs that are signed, and to change what the stub has: its
//! `.sbat` stays. Signing is for who has the key: the program is aligned as Authenticode wants it.

use std::io::{self, Write};

use crate::extent::chunk;
use crate::{ReadAt, Window};

/// Largest stub that is taken; systemd's have some 100 KiB.
const STUB_LIMIT: u64 = 16 << 20;
/// Size of a section's header.
const HEADER: usize = 40;
/// Most sections that are read.
const SECTIONS: usize = 96;
/// What a section with data is: initialised, and to be read.
const DATA: u32 = 0x4000_0040;
/// What a section with a kernel is: code, and to be read.
const CODE: u32 = 0x4000_0020;

/// A program that could not be read or composed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something could not be read or written.
    #[error("failed to read or write a program for UEFI")]
    Io(#[from] io::Error),
    /// It is none, or damaged.
    #[error("the program for UEFI is malformed: {0}")]
    Malformed(&'static str),
    /// A section does not fit.
    #[error("section `{0}` does not fit")]
    TooLarge(String),
}

/// A section to append.
#[derive(Clone, Copy)]
pub struct Section<'a> {
    /// Its name, of at most eight bytes.
    pub name: &'a str,
    /// What it holds.
    pub content: &'a dyn ReadAt,
}

impl std::fmt::Debug for Section<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Section({}, {})", self.name, self.content.size())
    }
}

/// A section that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Where its bytes start in the file.
    pub at: u64,
    /// How many bytes of the file are its.
    pub size: u64,
}

/// The headers of a program.
struct Headers {
    bytes: Vec<u8>,
    /// Where the optional header starts.
    optional: usize,
    /// Where the headers of sections start.
    table: usize,
    count: usize,
}

impl Headers {
    fn read(file: &dyn ReadAt) -> Result<Self, Error> {
        let mut start = [0; 64];
        file.read_exact_at(0, &mut start)?;
        if &start[..2] != b"MZ" {
            return Err(Error::Malformed("it has no signature"));
        }
        let at = number(&start, 60, 4)?;
        let length = chunk(file.size(), 64 << 10);
        let mut bytes = vec![0; length];
        file.read_exact_at(0, &mut bytes)?;
        let pe = usize::try_from(at).unwrap_or(usize::MAX).min(length);
        if bytes.get(pe..pe + 4) != Some(b"PE\0\0") {
            return Err(Error::Malformed("it has no signature"));
        }
        let count = small(number(&bytes, pe + 6, 2)?);
        let optional = pe + 24;
        let table = optional + small(number(&bytes, pe + 20, 2)?);
        if number(&bytes, optional, 2)? != 0x20b {
            return Err(Error::Malformed("it is not of 64 bits"));
        }
        if count > SECTIONS || table + count * HEADER > length || table < optional + 112 {
            return Err(Error::Malformed("its headers do not fit"));
        }
        Ok(Self {
            bytes,
            optional,
            table,
            count,
        })
    }

    fn sections(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes[self.table..]
            .chunks_exact(HEADER)
            .take(self.count)
    }

    fn optional(&self, at: usize) -> Result<u64, Error> {
        number(&self.bytes, self.optional + at, 4)
    }
}

fn number(bytes: &[u8], at: usize, width: usize) -> Result<u64, Error> {
    let bytes = bytes.get(at..at + width);
    let bytes = bytes.ok_or(Error::Malformed("its headers do not fit"))?;
    let digits = bytes.iter().rev();
    Ok(digits.fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Numbers of two bytes are sizes.
fn small(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Lists the sections of a program.
///
/// # Errors
/// When it is none, or a section is outside of it.
pub fn sections(file: &dyn ReadAt) -> Result<Vec<Found>, Error> {
    let headers = Headers::read(file)?;
    let found = headers.sections().map(|header| {
        let name: Vec<u8> = header[..8]
            .iter()
            .copied()
            .take_while(|b| *b != 0)
            .collect();
        let (size, at) = (number(header, 16, 4)?, number(header, 20, 4)?);
        if at + size > file.size() {
            return Err(Error::Malformed("a section is outside of the file"));
        }
        let name = String::from_utf8_lossy(&name).into_owned();
        Ok(Found { name, at, size })
    });
    found.collect()
}

/// Finds one section of a program.
///
/// # Errors
/// When it is none, or has no such section.
pub fn section<'a>(file: &'a dyn ReadAt, name: &str) -> Result<Window<'a>, Error> {
    let found = sections(file)?.into_iter().find(|found| found.name == name);
    let found = found.ok_or(Error::Malformed("a section is missing"))?;
    Ok(Window::new(file, found.at, found.size))
}

/// How much memory a kernel takes when it is started as a program, which may be more than its file.
fn memory_size(kernel: &dyn ReadAt) -> Option<u64> {
    Headers::read(kernel).ok()?.optional(56).ok()
}

/// Writes a program: the stub with more sections.
///
/// A section named `.linux` should be the last: it is as large in memory as the kernel asks for.
///
/// # Errors
/// When the stub is not one, or something does not fit or cannot be read or written.
pub fn compose(stub: &dyn ReadAt, added: &[Section<'_>], out: &mut dyn Write) -> Result<(), Error> {
    let (head, sizes) = compose_head(stub, added)?;
    out.write_all(&head)?;
    let mut buffer = vec![0; 256 << 10];
    for (section, padded) in added.iter().zip(sizes) {
        let mut done = 0;
        while done < section.content.size() {
            let length = chunk(section.content.size() - done, buffer.len());
            section.content.read_exact_at(done, &mut buffer[..length])?;
            out.write_all(&buffer[..length])?;
            done += length as u64;
        }
        let padding = vec![0; small(padded - done)];
        out.write_all(&padding)?;
    }
    Ok(())
}

/// Makes the stub with room for more sections, and their sizes in the file.
fn compose_head(stub: &dyn ReadAt, added: &[Section<'_>]) -> Result<(Vec<u8>, Vec<u64>), Error> {
    if stub.size() > STUB_LIMIT {
        return Err(Error::Malformed("it is larger than a stub"));
    }
    let headers = Headers::read(stub)?;
    // What the stub promises of itself would be promised of the program.
    sections(stub)?;
    if number(&headers.bytes, headers.optional + 112 + 32, 4)? != 0 {
        return Err(Error::Malformed("it is signed already"));
    }
    let (section, file) = (headers.optional(32)?, headers.optional(36)?);
    if !section.is_power_of_two() || !file.is_power_of_two() || section > MIB || file > MIB {
        return Err(Error::Malformed("its alignments are not powers of two"));
    }
    let mut head = vec![0; small(stub.size())];
    stub.read_exact_at(0, &mut head)?;
    let shift = make_room(&mut head, &headers, added.len(), file)?;
    let mut table = headers.table + headers.count * HEADER;
    let mut memory = 0;
    for header in headers.sections() {
        memory = memory.max(number(header, 12, 4)? + number(header, 8, 4)?);
    }
    let mut at = head.len() as u64;
    let padded = at.next_multiple_of(file);
    head.resize(small(padded), 0);
    at = padded;
    let (mut sizes, mut initialised) = (Vec::new(), headers.optional(8)?);
    for one in added {
        let too_large = || Error::TooLarge(one.name.to_owned());
        let (virtual_size, flags) = match one.name {
            ".linux" => (memory_size(one.content), CODE),
            _ => (None, DATA),
        };
        let virtual_size = virtual_size.unwrap_or(0).max(one.content.size());
        let raw = one.content.size().next_multiple_of(file);
        let start = memory.next_multiple_of(section);
        memory = start + virtual_size;
        let mut header = Vec::with_capacity(HEADER);
        header.extend(one.name.as_bytes());
        header.resize(8, 0);
        for value in [virtual_size, start, raw, at] {
            let value = u32::try_from(value).map_err(|_| too_large())?;
            header.extend(value.to_le_bytes());
        }
        header.extend([0; 12]);
        header.extend(flags.to_le_bytes());
        if header.len() != HEADER {
            return Err(too_large());
        }
        head[table..table + HEADER].copy_from_slice(&header);
        (table, at, initialised) = (table + HEADER, at + raw, initialised + virtual_size);
        sizes.push(raw);
    }
    let count = headers.count + added.len();
    put(&mut head, headers.optional - 18, count as u64, 2);
    // Pointer to symbols and their number: debuggers do not look for them here.
    put(&mut head, headers.optional - 12, 0, 8);
    put(&mut head, headers.optional + 8, initialised, 4);
    put(
        &mut head,
        headers.optional + 56,
        memory.next_multiple_of(section),
        4,
    );
    put(
        &mut head,
        headers.optional + 60,
        headers_end(&headers, file)? + shift,
        4,
    );
    put(&mut head, headers.optional + 64, 0, 4);
    Ok((head, sizes))
}

const MIB: u64 = 1 << 20;

fn headers_end(headers: &Headers, file: u64) -> Result<u64, Error> {
    Ok(headers.optional(60)?.next_multiple_of(file))
}

/// Moves the content of the stub's sections so that more headers fit before it; returns by how much.
fn make_room(head: &mut Vec<u8>, headers: &Headers, more: usize, file: u64) -> Result<u64, Error> {
    let wanted = (headers.table + (headers.count + more) * HEADER) as u64;
    let end = headers_end(headers, file)?;
    if end < (headers.table + headers.count * HEADER) as u64 {
        return Err(Error::Malformed("its headers are longer than it says"));
    }
    let (mut first, mut lowest) = (u64::MAX, u64::MAX);
    for header in headers.sections() {
        lowest = lowest.min(number(header, 12, 4)?);
        if number(header, 16, 4)? > 0 {
            first = first.min(number(header, 20, 4)?);
        }
    }
    if first < end || first > head.len() as u64 {
        return Err(Error::Malformed("its sections overlap its headers"));
    }
    let shift = wanted.saturating_sub(end).next_multiple_of(file);
    if lowest < end + shift {
        return Err(Error::Malformed("it has no room for more headers"));
    }
    let from = small(first);
    let room = vec![0; small(shift)];
    head.splice(from..from, room);
    for index in 0..headers.count {
        let at = headers.table + index * HEADER + 20;
        let pointer = number(head, at, 4)?;
        if pointer > 0 {
            put(head, at, pointer + shift, 4);
        }
    }
    // What stood between the headers and the content is given to the headers.
    let table = headers.table + headers.count * HEADER;
    head[table..small(wanted)].fill(0);
    Ok(shift)
}

fn put(bytes: &mut [u8], at: usize, value: u64, width: usize) {
    bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
}
