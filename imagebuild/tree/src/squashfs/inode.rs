//! Inodes and directories as bytes.
//!
//! It refuses to choose numbers: the writer did before it comes here.

use super::data::Place;
use super::metadata::Position;
use super::{NONE, kind};
use crate::{Device, Kind};

/// What all inodes have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) mode: u32,
    pub(super) uid: u16,
    pub(super) gid: u16,
    pub(super) time: u32,
    pub(super) number: u32,
    pub(super) links: u32,
    pub(super) xattrs: u32,
}

/// What a directory's inode says beside that.
#[derive(Clone, Copy, Debug)]
pub(super) struct DirectoryBody {
    pub(super) listing: Position,
    pub(super) size: u32,
    pub(super) parent: u32,
}

/// Returns the basic type of an entry.
pub(super) fn basic_type(entry: &Kind) -> u16 {
    match entry {
        Kind::Directory => kind::DIRECTORY,
        Kind::File(_) => kind::FILE,
        Kind::Symlink(_) => kind::SYMLINK,
        Kind::Block(_) => kind::BLOCK,
        Kind::Character(_) => kind::CHARACTER,
        Kind::Fifo => kind::FIFO,
        Kind::Socket => kind::SOCKET,
    }
}

/// Bytes under construction, little endian.
struct Record(Vec<u8>);

impl Record {
    fn start(head: &Head, basic: u16, extended: bool) -> Self {
        let number = if extended {
            basic + kind::EXTENDED
        } else {
            basic
        };
        let mode = u16::try_from(head.mode & 0o7777).unwrap_or(0);
        let mut record = Self(Vec::new());
        record.halves(&[number, mode, head.uid, head.gid]);
        record.words(&[head.time, head.number]);
        record
    }

    fn halves(&mut self, halves: &[u16]) {
        self.0
            .extend(halves.iter().flat_map(|half| half.to_le_bytes()));
    }

    fn words(&mut self, words: &[u32]) {
        self.0
            .extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    fn longs(&mut self, longs: &[u64]) {
        self.0
            .extend(longs.iter().flat_map(|long| long.to_le_bytes()));
    }
}

pub(super) fn directory(head: &Head, body: &DirectoryBody) -> Vec<u8> {
    // The size counts `.` and `..` as three bytes that are nowhere written.
    let size = body.size + 3;
    let Position { block, offset } = body.listing;
    let short = u16::try_from(size).ok().filter(|_| head.xattrs == NONE);
    let mut record = Record::start(head, kind::DIRECTORY, short.is_none());
    if let Some(short) = short {
        record.words(&[block, head.links]);
        record.halves(&[short, offset]);
        record.words(&[body.parent]);
    } else {
        record.words(&[head.links, size, block, body.parent]);
        // No index: a lookup walks the listing, which is what directories below 64 KiB do anyway.
        record.halves(&[0, offset]);
        record.words(&[head.xattrs]);
    }
    record.0
}

pub(super) fn file(head: &Head, size: u64, place: &Place) -> Vec<u8> {
    let (fragment, offset) = place.fragment.unwrap_or((NONE, 0));
    let short = u32::try_from(place.start)
        .ok()
        .zip(u32::try_from(size).ok());
    let plain = head.links == 1 && head.xattrs == NONE && place.sparse == 0;
    let short = short.filter(|_| plain);
    let mut record = Record::start(head, kind::FILE, short.is_none());
    if let Some((start, size)) = short {
        record.words(&[start, fragment, offset, size]);
    } else {
        record.longs(&[place.start, size, place.sparse]);
        record.words(&[head.links, fragment, offset, head.xattrs]);
    }
    record.words(&place.blocks);
    record.0
}

pub(super) fn symlink(head: &Head, target: &[u8]) -> Vec<u8> {
    let extended = head.xattrs != NONE;
    let mut record = Record::start(head, kind::SYMLINK, extended);
    record.words(&[head.links, u32::try_from(target.len()).unwrap_or(0)]);
    record.0.extend_from_slice(target);
    if extended {
        record.words(&[head.xattrs]);
    }
    record.0
}

pub(super) fn device(head: &Head, basic: u16, device: Device) -> Vec<u8> {
    // As the kernel's `new_encode_dev`.
    let number = device.minor & 0xff | device.major << 8 | (device.minor & !0xff) << 12;
    special(head, basic, &[number])
}

pub(super) fn pipe(head: &Head, basic: u16) -> Vec<u8> {
    special(head, basic, &[])
}

fn special(head: &Head, basic: u16, words: &[u32]) -> Vec<u8> {
    let extended = head.xattrs != NONE;
    let mut record = Record::start(head, basic, extended);
    record.words(&[head.links]);
    record.words(words);
    if extended {
        record.words(&[head.xattrs]);
    }
    record.0
}

/// One child of a directory.
#[derive(Clone, Debug)]
pub(super) struct Child<'a> {
    pub(super) name: &'a [u8],
    pub(super) basic_type: u16,
    pub(super) number: u32,
    pub(super) inode: Position,
}

/// Entries under one header at most, as the format has it.
const RUN_LIMIT: usize = 256;

/// Writes the listing of a directory whose names are sorted.
pub(super) fn listing(names: &[Child<'_>]) -> Vec<u8> {
    let mut record = Record(Vec::new());
    let mut rest = names;
    while let Some(first) = rest.first() {
        let fits = |name: &&Child<'_>| {
            let away = i64::from(name.number) - i64::from(first.number);
            name.inode.block == first.inode.block && i16::try_from(away).is_ok()
        };
        let length = rest.iter().take(RUN_LIMIT).take_while(fits).count();
        let (run, after) = rest.split_at(length);
        let count = u32::try_from(length).unwrap_or(1) - 1;
        record.words(&[count, first.inode.block, first.number]);
        for name in run {
            let away = i64::from(name.number) - i64::from(first.number);
            let away = i16::try_from(away).unwrap_or(0);
            let size = u16::try_from(name.name.len()).unwrap_or(1) - 1;
            record.halves(&[
                name.inode.offset,
                away.cast_unsigned(),
                name.basic_type,
                size,
            ]);
            record.0.extend_from_slice(name.name);
        }
        rest = after;
    }
    record.0
}
