//! Writes a tree as an image.
//!
//! It refuses to keep contents in memory: they go from their source to the image block by block.
//! Inodes and directories, about a hundred bytes a path, are kept until the data is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Seek, SeekFrom, Write};
use std::thread;

use super::data::{Data, Fragment, Place, Queue};
use super::inode::{self, Child, DirectoryBody, Head};
use super::metadata::{Position, Table, stored_block};
use super::superblock::{self, Superblock};
use super::xattr::Sets;
use crate::{Entry, Kind, Tree, tree};

/// What the padding is a multiple of, so that a loop device takes all of the image.
const ALIGNMENT: u64 = 4 << 10;

/// How an image is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The level of zstd, 1 to 22.
    pub level: i32,
    /// The time of the image and of all that is in it, in seconds since 1970.
    pub time: u32,
    /// How many threads compress; it does not show in the image.
    pub threads: usize,
}

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file of the tree could not be read.
    #[error("failed to read `{path}` of the tree")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file of the tree is longer or shorter than the tree says.
    #[error("`{path}` changed while the image was written")]
    Changed {
        /// Which.
        path: String,
    },
    /// An extended attribute cannot be written in this format.
    #[error("`{path}` has an extended attribute that squashfs has no place for")]
    Attribute {
        /// Which.
        path: String,
    },
    /// The format has no more numbers.
    #[error("the tree has too many {what} for squashfs")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
    /// A block could not be compressed.
    #[error("failed to compress a block")]
    Compress {
        /// Why.
        source: io::Error,
    },
    /// The image could not be written.
    #[error("failed to write the image")]
    Write {
        /// Why.
        source: io::Error,
    },
}

/// Writes a tree as an image and returns its size.
///
/// # Errors
/// When a file of the tree cannot be read, when the format has no place for something in the tree,
/// and when the image cannot be written.
pub fn write<W: Write + Seek>(
    tree: &Tree,
    options: Options,
    out: &mut W,
) -> Result<u64, WriteError> {
    let plan = Plan::of(tree)?;
    let start = stored_block(&options.level.to_le_bytes());
    let write = |source| WriteError::Write { source };
    out.write_all(&[0; superblock::SIZE]).map_err(write)?;
    out.write_all(&start).map_err(write)?;
    let position = (superblock::SIZE + start.len()) as u64;
    let data = write_data(&plan, options, out, position)?;
    let (head, tables) = Tables::of(&plan, &data, options)?;
    let mut superblock = Superblock {
        ids: head.ids,
        root: head.root.reference(),
        inodes: plan.inodes,
        fragments: head.fragments,
        ..Superblock::new(options.time)
    };
    let end = tables
        .write(data.end, &mut superblock, out)
        .map_err(write)?;
    superblock.bytes_used = end;
    let size = end.next_multiple_of(ALIGNMENT);
    let padding = vec![0; usize::try_from(size - end).unwrap_or(0)];
    out.write_all(&padding).map_err(write)?;
    out.seek(SeekFrom::Start(0)).map_err(write)?;
    out.write_all(&superblock.encode()).map_err(write)?;
    out.flush().map_err(write)?;
    Ok(size)
}

/// The tree in the order in which it is written, with all numbers chosen.
struct Plan<'a> {
    nodes: Vec<Node<'a>>,
    /// Directories, each after all that are below it; the root is the last.
    directories: Vec<usize>,
    /// Groups and users, sorted.
    ids: Vec<u32>,
    inodes: u32,
}

struct Node<'a> {
    path: &'a [u8],
    entry: &'a Entry,
    parent: usize,
    children: Vec<usize>,
    /// The node whose inode it has: itself, or the first name of that inode.
    inode: usize,
    links: u32,
    number: u32,
}

impl<'a> Plan<'a> {
    fn of(tree: &'a Tree) -> Result<Self, WriteError> {
        let mut nodes: Vec<Node<'a>> = Vec::with_capacity(tree.len());
        let mut directories = HashMap::new();
        let mut links = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for (path, entry) in tree.iter() {
            let at = nodes.len();
            let parent = tree::parent(path).and_then(|parent| directories.get(parent));
            let parent = parent.copied().unwrap_or(0);
            let mut inode = at;
            if entry.kind == Kind::Directory {
                directories.insert(path, at);
            } else if let Some(link) = entry.link {
                inode = *links.entry(link).or_insert(at);
            }
            if at > 0 {
                nodes[parent].children.push(at);
            }
            ids.extend([entry.uid, entry.gid]);
            nodes.push(Node {
                path,
                entry,
                parent,
                children: Vec::new(),
                inode,
                links: 0,
                number: 0,
            });
            nodes[inode].links += 1;
        }
        let mut plan = Self {
            nodes,
            directories: directories.into_values().collect(),
            ids: ids.into_iter().collect(),
            inodes: 0,
        };
        // Paths are sorted, so what is below a directory has a larger index.
        plan.directories.sort_unstable_by(|a, b| b.cmp(a));
        plan.number()?;
        Ok(plan)
    }

    /// Numbers inodes in the order in which they are written.
    fn number(&mut self) -> Result<(), WriteError> {
        let mut next = 0u32;
        for directory in self.directories.clone() {
            let children = std::mem::take(&mut self.nodes[directory].children);
            let below = |child: &&usize| self.nodes[**child].entry.kind == Kind::Directory;
            let below = u32::try_from(children.iter().filter(below).count());
            let inodes = children.iter().copied().filter(|child| {
                let child = &self.nodes[*child];
                child.entry.kind != Kind::Directory
            });
            for inode in inodes.collect::<Vec<_>>() {
                let inode = self.nodes[inode].inode;
                if self.nodes[inode].number == 0 {
                    next = next.checked_add(1).ok_or(too_many("inodes"))?;
                    self.nodes[inode].number = next;
                }
            }
            next = next.checked_add(1).ok_or(too_many("inodes"))?;
            self.nodes[directory].number = next;
            self.nodes[directory].links = 2 + below.map_err(|_| too_many("directories"))?;
            self.nodes[directory].children = children;
        }
        self.inodes = next;
        Ok(())
    }

    fn id(&self, id: u32) -> Result<u16, WriteError> {
        let at = self.ids.binary_search(&id).unwrap_or(0);
        u16::try_from(at).map_err(|_| too_many("users and groups"))
    }

    fn head(&self, at: usize, time: u32, sets: &mut Sets) -> Result<Head, WriteError> {
        let node = &self.nodes[at];
        Ok(Head {
            mode: match node.entry.kind {
                Kind::Symlink(_) => 0o777,
                _ => node.entry.mode,
            },
            uid: self.id(node.entry.uid)?,
            gid: self.id(node.entry.gid)?,
            time,
            number: node.number,
            links: node.links,
            xattrs: sets.number(node.path, &node.entry.xattrs)?,
        })
    }
}

fn too_many(what: &'static str) -> WriteError {
    WriteError::TooMany { what }
}

/// Where all contents stand.
struct Written {
    /// Number of the place of each node that is a file.
    of_node: HashMap<usize, usize>,
    places: Vec<Place>,
    fragments: Vec<Fragment>,
    end: u64,
}

fn write_data<W: Write>(
    plan: &Plan<'_>,
    options: Options,
    out: &mut W,
    position: u64,
) -> Result<Written, WriteError> {
    let queue = Queue::new();
    thread::scope(|scope| {
        let how = (options.level, options.threads);
        let mut data = Data::start(scope, &queue, out, position, how);
        let mut of_node = HashMap::new();
        for (at, node) in plan.nodes.iter().enumerate() {
            if let Kind::File(content) = &node.entry.kind
                && node.inode == at
            {
                of_node.insert(at, data.append(node.path, content)?);
            }
        }
        let (places, fragments, end) = data.finish()?;
        Ok(Written {
            of_node,
            places,
            fragments,
            end,
        })
    })
}

/// What the superblock says about the tables.
struct TablesHead {
    root: Position,
    ids: u16,
    fragments: u32,
}

/// The tables that follow the data.
struct Tables {
    inodes: Vec<u8>,
    directories: Vec<u8>,
    fragments: (Vec<u8>, Vec<u64>),
    exports: (Vec<u8>, Vec<u64>),
    ids: (Vec<u8>, Vec<u64>),
    sets: Sets,
}

impl Tables {
    fn of(
        plan: &Plan<'_>,
        data: &Written,
        options: Options,
    ) -> Result<(TablesHead, Self), WriteError> {
        let compress = |source| WriteError::Compress { source };
        let mut writer = InodeWriter {
            plan,
            data,
            time: options.time,
            inodes: Table::new(options.level),
            directories: Table::new(options.level),
            sets: Sets::new(options.level),
            positions: vec![None; plan.nodes.len()],
        };
        let root = writer.run()?;
        let table = |bytes: &[u8]| {
            let mut table = Table::new(options.level);
            table.append(bytes)?;
            table.finish()
        };
        let mut exports = vec![0; 8 * plan.inodes as usize];
        for (node, position) in plan.nodes.iter().zip(&writer.positions) {
            if let (Some(position), 1..) = (position, node.number) {
                let at = 8 * (node.number as usize - 1);
                exports[at..at + 8].copy_from_slice(&position.reference().to_le_bytes());
            }
        }
        let fragments: Vec<u8> = data
            .fragments
            .iter()
            .flat_map(|(start, size)| [start.to_le_bytes(), u64::from(*size).to_le_bytes()])
            .flatten()
            .collect();
        let ids: Vec<u8> = plan.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let head = TablesHead {
            root,
            ids: u16::try_from(plan.ids.len()).map_err(|_| too_many("users and groups"))?,
            fragments: u32::try_from(data.fragments.len()).map_err(|_| too_many("fragments"))?,
        };
        let tables = Self {
            inodes: writer.inodes.finish().map_err(compress)?.0,
            directories: writer.directories.finish().map_err(compress)?.0,
            fragments: table(&fragments).map_err(compress)?,
            exports: table(&exports).map_err(compress)?,
            ids: table(&ids).map_err(compress)?,
            sets: writer.sets,
        };
        Ok((head, tables))
    }

    /// Writes all tables and notes in the superblock where they stand; returns the end.
    fn write<W: Write>(self, at: u64, superblock: &mut Superblock, out: &mut W) -> io::Result<u64> {
        superblock.inode_table = at;
        out.write_all(&self.inodes)?;
        let mut at = at + self.inodes.len() as u64;
        superblock.directory_table = at;
        out.write_all(&self.directories)?;
        at += self.directories.len() as u64;
        for ((packed, starts), table) in [
            (self.fragments, &mut superblock.fragment_table),
            (self.exports, &mut superblock.export_table),
            (self.ids, &mut superblock.id_table),
        ] {
            if starts.is_empty() {
                continue;
            }
            out.write_all(&packed)?;
            *table = at + packed.len() as u64;
            for start in &starts {
                out.write_all(&(at + start).to_le_bytes())?;
            }
            at = *table + 8 * starts.len() as u64;
        }
        let (sets, table) = self.sets.finish(at)?;
        superblock.xattr_table = table;
        out.write_all(&sets)?;
        Ok(at + sets.len() as u64)
    }
}

struct InodeWriter<'a> {
    plan: &'a Plan<'a>,
    data: &'a Written,
    time: u32,
    inodes: Table,
    directories: Table,
    sets: Sets,
    /// Where the inode of each node stands, once it is written.
    positions: Vec<Option<Position>>,
}

impl InodeWriter<'_> {
    /// Writes all inodes and directories; returns where the root's inode stands.
    fn run(&mut self) -> Result<Position, WriteError> {
        let mut root = Position {
            block: 0,
            offset: 0,
        };
        for directory in &self.plan.directories {
            for child in &self.plan.nodes[*directory].children {
                let inode = self.plan.nodes[*child].inode;
                if self.positions[inode].is_none() {
                    self.inode(inode)?;
                }
            }
            root = self.directory(*directory)?;
        }
        Ok(root)
    }

    fn inode(&mut self, at: usize) -> Result<(), WriteError> {
        let node = &self.plan.nodes[at];
        let head = self.plan.head(at, self.time, &mut self.sets)?;
        let basic = inode::basic_type(&node.entry.kind);
        let bytes = match &node.entry.kind {
            Kind::File(content) => {
                let place = self.data.of_node.get(&at).copied().unwrap_or(0);
                inode::file(&head, content.size, &self.data.places[place])
            }
            Kind::Symlink(target) => inode::symlink(&head, target),
            Kind::Character(device) | Kind::Block(device) => inode::device(&head, basic, *device),
            Kind::Fifo | Kind::Socket | Kind::Directory => inode::pipe(&head, basic),
        };
        self.place(at, &bytes)?;
        Ok(())
    }

    fn directory(&mut self, at: usize) -> Result<Position, WriteError> {
        let compress = |source| WriteError::Compress { source };
        let node = &self.plan.nodes[at];
        let names = node.children.iter().filter_map(|child| {
            let child = &self.plan.nodes[*child];
            Some(Child {
                name: tree::name(child.path),
                basic_type: inode::basic_type(&self.plan.nodes[child.inode].entry.kind),
                number: self.plan.nodes[child.inode].number,
                inode: self.positions[child.inode]?,
            })
        });
        let listing = inode::listing(&names.collect::<Vec<_>>());
        let parent = match at {
            0 => self.plan.inodes + 1,
            _ => self.plan.nodes[node.parent].number,
        };
        let body = DirectoryBody {
            listing: self.directories.position().map_err(compress)?,
            size: u32::try_from(listing.len()).map_err(|_| too_many("names in a directory"))?,
            parent,
        };
        self.directories.append(&listing).map_err(compress)?;
        let head = self.plan.head(at, self.time, &mut self.sets)?;
        self.place(at, &inode::directory(&head, &body))
    }

    fn place(&mut self, at: usize, bytes: &[u8]) -> Result<Position, WriteError> {
        let compress = |source| WriteError::Compress { source };
        let position = self.inodes.position().map_err(compress)?;
        self.positions[at] = Some(position);
        self.inodes.append(bytes).map_err(compress)?;
        Ok(position)
    }
}
