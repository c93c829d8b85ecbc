//! Reads an image back into a tree, with the digest of every file.
//!
//! It refuses to trust a single number in the image: every position is looked up within the image,
//! every block unpacks into a buffer of fixed size, no directory is entered twice, and [`Limits`]
//! end what would never end. Contents are hashed and dropped, one block at a time.

mod inode;
mod source;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read, Seek};

use image_manifest::{Digest, Hasher};

use super::superblock::{Superblock, ZSTD};
use super::xattr::{NAMESPACES, OUT_OF_LINE};
use super::{METADATA_SIZE, NO_TABLE, NONE, STORED, kind};
use crate::{Content, Entry, Kind, Source, Tree, tree};
use inode::{FileBody, Found, Inode};
use source::{Cursor, Image};

/// How much an image may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Paths at most.
    pub entries: u64,
    /// Bytes of inodes, directories and tables at most, once unpacked.
    pub metadata: u64,
    /// Bytes of files at most; a file under several names counts once.
    pub content: u64,
}

impl Default for Limits {
    /// Far above any image, and no more than a minute of work: 2 million paths, 256 MiB, 64 GiB.
    fn default() -> Self {
        Self {
            entries: 2_000_000,
            metadata: 256 << 20,
            content: 64 << 30,
        }
    }
}

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("failed to read the image")]
    Read {
        /// Why.
        source: io::Error,
    },
    /// The image is malformed.
    #[error("the image is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
    },
    /// A block of the image cannot be unpacked.
    #[error("the image is malformed: a block cannot be unpacked")]
    Unpack {
        /// Why.
        source: io::Error,
    },
    /// The content of a file cannot be read.
    #[error("the content of `/{path}` cannot be read")]
    File {
        /// One of its paths.
        path: String,
        /// Why.
        source: Box<Self>,
    },
    /// The image is compressed by something that is not known here.
    #[error("the image is compressed by number {0}, and only zstd is known here")]
    Compressor(u16),
    /// The image holds more than [`Limits`] allow.
    #[error("the image holds more {0} than allowed")]
    Limit(&'static str),
}

fn malformed(reason: &'static str) -> ReadError {
    ReadError::Malformed { reason }
}

/// Reads an image into a tree whose contents are known by size and digest only.
///
/// # Errors
/// When the image cannot be read, is malformed, or holds more than the limits allow.
pub fn read<R: Read + Seek>(source: R, limits: Limits) -> Result<Tree, ReadError> {
    let mut image = Image::open(source, limits)?;
    if image.superblock.compressor != ZSTD {
        return Err(ReadError::Compressor(image.superblock.compressor));
    }
    let mut walk = Walk {
        ids: read_ids(&mut image)?,
        image,
        tree: Tree::new(),
        entered: HashSet::new(),
        files: HashMap::new(),
        left: limits.entries,
        text_left: limits.metadata,
    };
    walk.run()?;
    let digests = digest_files(&mut walk.image, &walk.files, limits.content)?;
    let mut tree = walk.tree;
    for (reference, found) in walk.files {
        let content = Content {
            size: found.body.size,
            digest: digests[&reference],
            source: Source::Elsewhere,
        };
        for path in found.names {
            if let Some(entry) = tree.entry_mut(&path) {
                entry.kind = Kind::File(content.clone());
            }
        }
    }
    Ok(tree)
}

/// A file that was found and whose digest is computed when all are.
struct FoundFile {
    body: FileBody,
    names: Vec<Vec<u8>>,
}

struct Walk<R> {
    image: Image<R>,
    ids: Vec<u32>,
    tree: Tree,
    entered: HashSet<u64>,
    files: HashMap<u64, FoundFile>,
    left: u64,
    /// Bytes of paths, targets and attributes that may still come: many may share one place in
    /// the image, so the limit on what is read from there does not bound them.
    text_left: u64,
}

impl<R: Read + Seek> Walk<R> {
    fn run(&mut self) -> Result<(), ReadError> {
        let mut open = vec![(Vec::new(), self.image.superblock.root)];
        while let Some((path, reference)) = open.pop() {
            let inode = inode::read(&mut self.image, reference)?;
            let Found::Directory(body) = &inode.found else {
                return Err(malformed("a directory is none"));
            };
            if !self.entered.insert(reference) {
                return Err(malformed("a directory is in itself or in two places"));
            }
            let names = read_names(&mut self.image, *body, &mut self.left)?;
            self.insert(&path, &inode, reference)?;
            for name in names {
                let mut below = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend_from_slice(&name.name);
                self.charge(below.len())?;
                if name.basic_type == kind::DIRECTORY {
                    open.push((below, name.inode));
                    continue;
                }
                let inode = inode::read(&mut self.image, name.inode)?;
                if inode.basic_type != name.basic_type {
                    return Err(malformed("a directory and an inode disagree on a type"));
                }
                self.insert(&below, &inode, name.inode)?;
            }
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), ReadError> {
        let left = self.text_left.checked_sub(bytes as u64);
        self.text_left = left.ok_or(ReadError::Limit("bytes in paths and attributes"))?;
        Ok(())
    }

    fn insert(&mut self, path: &[u8], inode: &Inode, reference: u64) -> Result<(), ReadError> {
        let kind = match &inode.found {
            Found::Directory(_) => Kind::Directory,
            Found::File(_) => Kind::File(Content::of(&b""[..])),
            Found::Symlink(target) => Kind::Symlink(target.clone()),
            Found::Block(device) => Kind::Block(*device),
            Found::Character(device) => Kind::Character(*device),
            Found::Fifo => Kind::Fifo,
            Found::Socket => Kind::Socket,
        };
        let id = |at: u16| {
            let id = self.ids.get(usize::from(at)).copied();
            id.ok_or(malformed("an owner is not in the table of ids"))
        };
        let mut entry = Entry::new(kind, u32::from(inode.mode));
        (entry.uid, entry.gid) = (id(inode.uid)?, id(inode.gid)?);
        entry.xattrs = read_xattrs(&mut self.image, inode.xattrs)?;
        let text = entry
            .xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len());
        self.charge(text.sum())?;
        if let Kind::Symlink(target) = &entry.kind {
            self.charge(target.len())?;
        }
        let several = inode.links > 1 && entry.kind != Kind::Directory;
        entry.link = several.then_some(u64::from(inode.number));
        if !path.is_empty() && self.tree.get(path).is_some() {
            return Err(malformed("a name is twice in a directory"));
        }
        let inserted = self.tree.insert(path, entry);
        inserted.map_err(|_| malformed("a path is too long"))?;
        if let Found::File(body) = &inode.found {
            let file = self.files.entry(reference).or_insert_with(|| FoundFile {
                body: body.clone(),
                names: Vec::new(),
            });
            file.names.push(path.to_vec());
        }
        Ok(())
    }
}

fn read_ids<R: Read + Seek>(image: &mut Image<R>) -> Result<Vec<u32>, ReadError> {
    let Superblock { id_table, ids, .. } = image.superblock;
    let bytes = image.table(id_table, 0, 4 * usize::from(ids))?;
    Ok(bytes
        .as_chunks()
        .0
        .iter()
        .map(|id| u32::from_le_bytes(*id))
        .collect())
}

/// One child of a directory.
struct Child {
    name: Vec<u8>,
    basic_type: u16,
    /// Where its inode stands.
    inode: u64,
}

fn read_names<R: Read + Seek>(
    image: &mut Image<R>,
    body: inode::DirectoryBody,
    entries_left: &mut u64,
) -> Result<Vec<Child>, ReadError> {
    let table = image.superblock.directory_table;
    let mut cursor = Cursor::new(table, body.listing)?;
    // The size counts `.` and `..` as three bytes that are nowhere written.
    let mut left = body.size.saturating_sub(3);
    let short = || malformed("a directory ends early");
    let mut names = Vec::new();
    while left > 0 {
        left = left.checked_sub(12).ok_or_else(short)?;
        let count = cursor.word(image)?;
        let block = cursor.word(image)?;
        cursor.word(image)?;
        if count >= 256 {
            return Err(malformed("a run of names is too long"));
        }
        for _ in 0..=count {
            let offset = cursor.half(image)?;
            cursor.half(image)?;
            let basic_type = cursor.half(image)?;
            let length = u32::from(cursor.half(image)?) + 1;
            left = left.checked_sub(8 + length).ok_or_else(short)?;
            let name = cursor.bytes(image, length as usize)?;
            if !tree::is_name(&name) {
                return Err(malformed("a name is none"));
            }
            *entries_left = entries_left
                .checked_sub(1)
                .ok_or(ReadError::Limit("paths"))?;
            names.push(Child {
                name,
                basic_type,
                inode: u64::from(block) << 16 | u64::from(offset),
            });
        }
    }
    Ok(names)
}

/// Attributes of one inode at most, and bytes of one value, as Linux has them.
const XATTRS: (u32, u32) = (1024, 64 << 10);

fn read_xattrs<R: Read + Seek>(
    image: &mut Image<R>,
    number: u32,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ReadError> {
    let mut set = BTreeMap::new();
    if number == NONE {
        return Ok(set);
    }
    let table = image.superblock.xattr_table;
    if table == NO_TABLE {
        return Err(malformed("there is no table of attributes"));
    }
    let values = u64::from_le_bytes(image.array(table)?);
    let count = u32::from_le_bytes(image.array(table.saturating_add(8))?);
    if number >= count {
        return Err(malformed("an attribute set is not in the table"));
    }
    let row = image.table(table.saturating_add(16), 16 * u64::from(number), 16)?;
    let reference = u64::from_le_bytes(row[..8].try_into().unwrap_or_default());
    let count = u32::from_le_bytes(row[8..12].try_into().unwrap_or_default());
    if count > XATTRS.0 {
        return Err(ReadError::Limit("attributes"));
    }
    let mut cursor = Cursor::new(values, reference)?;
    for _ in 0..count {
        let kind = cursor.half(image)?;
        let length = cursor.half(image)?;
        let prefix = NAMESPACES.get(usize::from(kind & !OUT_OF_LINE));
        let prefix = prefix.ok_or(malformed("an attribute is of an unknown namespace"))?;
        let mut name = prefix.to_vec();
        name.extend(cursor.bytes(image, usize::from(length))?);
        let size = cursor.word(image)?;
        let value = if kind & OUT_OF_LINE == 0 {
            cursor.value(image, size)?
        } else {
            let mut elsewhere = Cursor::new(values, cursor.long(image)?)?;
            let size = elsewhere.word(image)?;
            elsewhere.value(image, size)?
        };
        set.insert(name, value);
    }
    Ok(set)
}

impl Cursor {
    fn value<R: Read + Seek>(
        &mut self,
        image: &mut Image<R>,
        size: u32,
    ) -> Result<Vec<u8>, ReadError> {
        if size > XATTRS.1 {
            return Err(ReadError::Limit("bytes in an attribute"));
        }
        self.bytes(image, size as usize)
    }
}

/// Computes the digests of all files, in the order in which their data stands in the image.
fn digest_files<R: Read + Seek>(
    image: &mut Image<R>,
    files: &HashMap<u64, FoundFile>,
    mut left: u64,
) -> Result<HashMap<u64, Digest>, ReadError> {
    let mut order: Vec<_> = files.iter().collect();
    order.sort_by_key(|(reference, file)| {
        let end = file.body.fragment.map_or(NONE, |(number, _)| number);
        (end, file.body.start, **reference)
    });
    let mut contents = Contents {
        image,
        block: Vec::new(),
        fragment: (NONE, Vec::new()),
    };
    let mut digests = HashMap::new();
    for (reference, file) in order {
        let size = file.body.size;
        left = left.checked_sub(size).ok_or(ReadError::Limit("bytes"))?;
        let digest = contents.digest(&file.body);
        let digest = digest.map_err(|source| ReadError::File {
            path: file.names.first().map_or_else(String::new, |name| {
                String::from_utf8_lossy(name).into_owned()
            }),
            source: Box::new(source),
        })?;
        digests.insert(*reference, digest);
    }
    Ok(digests)
}

struct Contents<'a, R> {
    image: &'a mut Image<R>,
    block: Vec<u8>,
    fragment: (u32, Vec<u8>),
}

impl<R: Read + Seek> Contents<'_, R> {
    fn digest(&mut self, body: &FileBody) -> Result<Digest, ReadError> {
        let block_size = u64::from(self.image.superblock.block_size);
        let zeros = vec![0; self.image.superblock.block_size as usize];
        let mut hasher = Hasher::new();
        let mut position = body.start;
        for size in &body.blocks {
            let length = block_size.min(body.size - hasher.bytes());
            let length = usize::try_from(length).unwrap_or(0);
            if *size == 0 {
                hasher.update(&zeros[..length]);
                continue;
            }
            position = self.image.block(position, *size, &mut self.block)?;
            if self.block.len() != length {
                return Err(malformed("a block of a file has another size"));
            }
            hasher.update(&self.block);
        }
        if let Some((number, offset)) = body.fragment {
            let length = usize::try_from(body.size - hasher.bytes()).unwrap_or(usize::MAX);
            let offset = offset as usize;
            let end = offset.checked_add(length);
            let fragment = self.fragment(number)?;
            let bytes = end.and_then(|end| fragment.get(offset..end));
            hasher.update(bytes.ok_or(malformed("a fragment is too short"))?);
        }
        if hasher.bytes() == body.size {
            Ok(hasher.finish())
        } else {
            Err(malformed("a file has too few blocks"))
        }
    }

    fn fragment(&mut self, number: u32) -> Result<&[u8], ReadError> {
        if self.fragment.0 != number {
            let Superblock {
                fragments,
                fragment_table,
                ..
            } = self.image.superblock;
            if number >= fragments {
                return Err(malformed("a fragment is not in the table"));
            }
            let row = self
                .image
                .table(fragment_table, 16 * u64::from(number), 16)?;
            let position = u64::from_le_bytes(row[..8].try_into().unwrap_or_default());
            let size = u32::from_le_bytes(row[8..12].try_into().unwrap_or_default());
            self.image.block(position, size, &mut self.fragment.1)?;
            self.fragment.0 = number;
        }
        Ok(&self.fragment.1)
    }
}

const _: () = assert!(
    METADATA_SIZE < STORED as usize,
    "block sizes leave room for flags"
);
