//! Inodes as they are found in an image.
//!
//! It refuses to follow what they point at.

use std::io::{Read, Seek};

use super::super::{NONE, kind};
use super::source::{Cursor, Image};
use super::{ReadError, malformed};
use crate::Device;

/// Longest target of a symbolic link, as Linux has it.
const TARGET_LIMIT: u32 = 4096;

pub(super) struct Inode {
    pub(super) basic_type: u16,
    pub(super) mode: u16,
    pub(super) uid: u16,
    pub(super) gid: u16,
    pub(super) number: u32,
    pub(super) links: u32,
    pub(super) xattrs: u32,
    pub(super) found: Found,
}

pub(super) enum Found {
    Directory(DirectoryBody),
    File(FileBody),
    Symlink(Vec<u8>),
    Block(Device),
    Character(Device),
    Fifo,
    Socket,
}

#[derive(Clone, Copy)]
pub(super) struct DirectoryBody {
    /// Where the listing stands in the directory table.
    pub(super) listing: u64,
    pub(super) size: u32,
}

#[derive(Clone)]
pub(super) struct FileBody {
    pub(super) start: u64,
    pub(super) size: u64,
    pub(super) blocks: Vec<u32>,
    pub(super) fragment: Option<(u32, u32)>,
}

/// Reads the inode at a block and an offset in one number.
pub(super) fn read<R: Read + Seek>(
    image: &mut Image<R>,
    reference: u64,
) -> Result<Inode, ReadError> {
    let mut cursor = Cursor::new(image.superblock.inode_table, reference)?;
    let number = cursor.half(image)?;
    let extended = number > kind::EXTENDED;
    let mut inode = Inode {
        basic_type: if extended {
            number - kind::EXTENDED
        } else {
            number
        },
        mode: cursor.half(image)?,
        uid: cursor.half(image)?,
        gid: cursor.half(image)?,
        number: {
            cursor.word(image)?;
            cursor.word(image)?
        },
        links: 1,
        xattrs: NONE,
        found: Found::Fifo,
    };
    let mut reader = Reader {
        image,
        cursor: &mut cursor,
        extended,
    };
    inode.found = match inode.basic_type {
        kind::DIRECTORY => reader.directory(&mut inode)?,
        kind::FILE => reader.file(&mut inode)?,
        kind::SYMLINK => reader.symlink(&mut inode)?,
        kind::BLOCK => Found::Block(reader.device(&mut inode)?),
        kind::CHARACTER => Found::Character(reader.device(&mut inode)?),
        kind::FIFO => reader.pipe(&mut inode, Found::Fifo)?,
        kind::SOCKET => reader.pipe(&mut inode, Found::Socket)?,
        _ => return Err(malformed("an inode is of an unknown type")),
    };
    Ok(inode)
}

struct Reader<'a, R> {
    image: &'a mut Image<R>,
    cursor: &'a mut Cursor,
    extended: bool,
}

impl<R: Read + Seek> Reader<'_, R> {
    fn half(&mut self) -> Result<u16, ReadError> {
        self.cursor.half(self.image)
    }

    fn word(&mut self) -> Result<u32, ReadError> {
        self.cursor.word(self.image)
    }

    fn long(&mut self) -> Result<u64, ReadError> {
        self.cursor.long(self.image)
    }

    fn directory(&mut self, inode: &mut Inode) -> Result<Found, ReadError> {
        let (block, size, offset);
        if self.extended {
            inode.links = self.word()?;
            size = self.word()?;
            block = self.word()?;
            self.word()?;
            self.half()?;
            offset = self.half()?;
            inode.xattrs = self.word()?;
        } else {
            block = self.word()?;
            inode.links = self.word()?;
            size = u32::from(self.half()?);
            offset = self.half()?;
        }
        Ok(Found::Directory(DirectoryBody {
            listing: u64::from(block) << 16 | u64::from(offset),
            size,
        }))
    }

    fn file(&mut self, inode: &mut Inode) -> Result<Found, ReadError> {
        let (start, size, fragment, offset);
        if self.extended {
            start = self.long()?;
            size = self.long()?;
            self.long()?;
            inode.links = self.word()?;
            fragment = self.word()?;
            offset = self.word()?;
            inode.xattrs = self.word()?;
        } else {
            start = u64::from(self.word()?);
            fragment = self.word()?;
            offset = self.word()?;
            size = u64::from(self.word()?);
        }
        let block_size = u64::from(self.image.superblock.block_size);
        let count = match fragment {
            NONE => size.div_ceil(block_size),
            _ => size / block_size,
        };
        // Many inodes may share one list in the image, so what they take together is counted.
        let left = self.image.blocks_left.checked_sub(count);
        self.image.blocks_left = left.ok_or(ReadError::Limit("blocks of files"))?;
        let mut blocks = Vec::new();
        for _ in 0..count {
            blocks.push(self.word()?);
        }
        Ok(Found::File(FileBody {
            start,
            size,
            blocks,
            fragment: (fragment != NONE).then_some((fragment, offset)),
        }))
    }

    fn symlink(&mut self, inode: &mut Inode) -> Result<Found, ReadError> {
        inode.links = self.word()?;
        let length = self.word()?;
        if length > TARGET_LIMIT {
            return Err(malformed("the target of a link is too long"));
        }
        let target = self.cursor.bytes(self.image, length as usize)?;
        self.attributes(inode)?;
        Ok(Found::Symlink(target))
    }

    fn device(&mut self, inode: &mut Inode) -> Result<Device, ReadError> {
        inode.links = self.word()?;
        // As the kernel's `new_decode_dev`.
        let number = self.word()?;
        self.attributes(inode)?;
        Ok(Device {
            major: (number & 0xfff00) >> 8,
            minor: number & 0xff | (number >> 12) & 0xfff00,
        })
    }

    fn pipe(&mut self, inode: &mut Inode, found: Found) -> Result<Found, ReadError> {
        inode.links = self.word()?;
        self.attributes(inode)?;
        Ok(found)
    }

    fn attributes(&mut self, inode: &mut Inode) -> Result<(), ReadError> {
        if self.extended {
            inode.xattrs = self.word()?;
        }
        Ok(())
    }
}
