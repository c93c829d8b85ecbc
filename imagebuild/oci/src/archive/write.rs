//! Headers of archives: plain POSIX ones, with extended records only for what those cannot hold.
//!
//! It refuses names of users and groups, times other than the one of the image, and sockets.

use std::collections::BTreeMap;

use image_tree::{Device, Entry, Kind};

use super::{BLOCK, USTAR, XATTR, field, sum};
use crate::difference::WHITEOUT;

/// Why something cannot be in an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Archives have no sockets.
    #[error("`/{}` is a socket, which no layer can hold", String::from_utf8_lossy(.0))]
    Socket(Vec<u8>),
    /// A number of the entry is larger than an archive can say.
    #[error("`/{}` has a device number that no layer can hold", String::from_utf8_lossy(.0))]
    Device(Vec<u8>),
}

/// Writes the header of an entry; `link` is a path that the archive has already, of the same inode.
///
/// # Errors
/// When archives cannot hold it.
pub fn header(
    path: &[u8],
    entry: &Entry,
    link: Option<&[u8]>,
    time: u64,
) -> Result<Vec<u8>, Error> {
    let mut name = if path.is_empty() {
        b".".to_vec()
    } else {
        path.to_vec()
    };
    if entry.kind == Kind::Directory {
        name.push(b'/');
    }
    let mut fields = Fields {
        name,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        size: 0,
        time,
        kind: b'0',
        link: Vec::new(),
        device: None,
        xattrs: Some(&entry.xattrs),
    };
    match (&entry.kind, link) {
        (_, Some(link)) => {
            (fields.kind, fields.link) = (b'1', link.to_vec());
            // They belong to the inode, which is in the archive under its first name.
            fields.xattrs = None;
        }
        (Kind::File(content), None) => fields.size = content.size,
        (Kind::Symlink(target), None) => {
            (fields.kind, fields.link, fields.mode) = (b'2', target.clone(), 0o777);
        }
        (Kind::Character(device), None) => (fields.kind, fields.device) = (b'3', Some(*device)),
        (Kind::Block(device), None) => (fields.kind, fields.device) = (b'4', Some(*device)),
        (Kind::Directory, None) => fields.kind = b'5',
        (Kind::Fifo, None) => fields.kind = b'6',
        (Kind::Socket, None) => return Err(Error::Socket(path.to_vec())),
    }
    let octal_limit = 1 << 21;
    if fields
        .device
        .is_some_and(|device| device.major >= octal_limit || device.minor >= octal_limit)
    {
        return Err(Error::Device(path.to_vec()));
    }
    Ok(fields.encode())
}

/// Writes what says that a path is gone.
#[must_use]
pub fn whiteout(path: &[u8], time: u64) -> Vec<u8> {
    let start = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |at| at + 1);
    let name = [&path[..start], WHITEOUT, &path[start..]].concat();
    let fields = Fields {
        name,
        mode: 0,
        uid: 0,
        gid: 0,
        size: 0,
        time,
        kind: b'0',
        link: Vec::new(),
        device: None,
        xattrs: None,
    };
    fields.encode()
}

/// What ends an archive.
#[must_use]
pub fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

struct Fields<'a> {
    name: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    time: u64,
    kind: u8,
    link: Vec<u8>,
    device: Option<Device>,
    xattrs: Option<&'a BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Fields<'_> {
    /// Writes the header, after one with extended records where it needs them.
    fn encode(self) -> Vec<u8> {
        let mut records = Records::default();
        let split = split(&self.name);
        if split.is_none() {
            records.add(b"path", &self.name);
        }
        if self.link.len() > field::LINK.len() {
            records.add(b"linkpath", &self.link);
        }
        for (key, number) in [(&b"uid"[..], self.uid.into()), (b"gid", self.gid.into())] {
            if number >= 1 << 21 {
                records.number(key, number);
            }
        }
        if self.size >= 1 << 33 {
            records.number(b"size", self.size);
        }
        for (name, value) in self.xattrs.into_iter().flatten() {
            records.add(&[XATTR, name].concat(), value);
        }
        let mut bytes = Vec::new();
        if !records.0.is_empty() {
            let mut header = [0; BLOCK];
            header[..9].copy_from_slice(b"PaxHeader");
            self.common(&mut header, b'x', records.0.len() as u64);
            seal(&mut header);
            bytes.extend_from_slice(&header);
            bytes.extend_from_slice(&records.0);
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        let mut header = [0; BLOCK];
        match split {
            Some((prefix, name)) => {
                put(&mut header[field::NAME], name);
                put(&mut header[field::PREFIX], prefix);
            }
            None => put(&mut header[field::NAME], &self.name),
        }
        put(&mut header[field::LINK], &self.link);
        self.common(&mut header, self.kind, self.size);
        if let Some(device) = self.device {
            octal(&mut header[field::MAJOR], device.major.into());
            octal(&mut header[field::MINOR], device.minor.into());
        }
        seal(&mut header);
        bytes.extend_from_slice(&header);
        bytes
    }

    fn common(&self, header: &mut [u8; BLOCK], kind: u8, size: u64) {
        octal(&mut header[field::MODE], self.mode.into());
        octal(&mut header[field::UID], self.uid.into());
        octal(&mut header[field::GID], self.gid.into());
        octal(&mut header[field::SIZE], size);
        octal(&mut header[field::MTIME], self.time);
        header[field::TYPE] = kind;
        header[field::MAGIC].copy_from_slice(USTAR);
        octal(&mut header[field::MAJOR], 0);
        octal(&mut header[field::MINOR], 0);
    }
}

/// Extended records: `LENGTH KEY=VALUE\n`, where the length counts itself.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + digits(length) > length {
            length += 1;
        }
        self.0.extend_from_slice(format!("{length} ").as_bytes());
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    fn number(&mut self, key: &[u8], number: u64) {
        self.add(key, number.to_string().as_bytes());
    }
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// Parts a name into prefix and name, if the fields can hold it.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= field::NAME.len() {
        return Some((b"", name));
    }
    // As late as the prefix allows, and the name must not be empty: the slash at its end is no place to part it.
    let end = name.len().min(field::PREFIX.len() + 1);
    let mut slashes = (1..end)
        .rev()
        .filter(|at| name[*at] == b'/' && *at + 1 < name.len());
    let at = slashes.next()?;
    let rest = &name[at + 1..];
    (rest.len() <= field::NAME.len()).then_some((&name[..at], rest))
}

fn put(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// Writes a number in octal digits and a NUL; one that is too large is in a record, and zero here.
fn octal(field: &mut [u8], number: u64) {
    let width = field.len() - 1;
    let text = format!("{number:0width$o}");
    let text = if text.len() > width {
        format!("{:0width$}", 0)
    } else {
        text
    };
    put(field, text.as_bytes());
}

fn seal(header: &mut [u8; BLOCK]) {
    let sum = format!("{:06o}\0 ", sum(header));
    put(&mut header[field::SUM], sum.as_bytes());
}
