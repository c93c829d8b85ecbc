//! Contents of files as blocks and fragments, compressed on several threads.
//!
//! It refuses to let the number of threads show: blocks are written in the order in which they
//! were read. At most [`WINDOW`] blocks are in memory, whatever the size of the tree.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use image_manifest::Digest;

use super::write::WriteError;
use super::{BLOCK_SIZE, STORED};
use crate::Content;

/// Blocks in flight: enough to keep 16 threads busy, 8 MiB.
const WINDOW: u64 = 64;

/// Where the content of one file stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// Position of its first block.
    pub(super) start: u64,
    /// Sizes of its blocks, as inodes hold them.
    pub(super) blocks: Vec<u32>,
    /// Number of the fragment block that holds its end, and the offset in it.
    pub(super) fragment: Option<(u32, u32)>,
    /// Bytes of blocks that are all zero and take no space.
    pub(super) sparse: u64,
}

/// Where one fragment block stands, and its size as the fragment table holds it.
pub(super) type Fragment = (u64, u32);

/// What a block is part of.
#[derive(Clone, Copy, Debug)]
enum Part {
    File { place: usize, block: usize },
    Fragment(usize),
}

struct Job {
    number: u64,
    part: Part,
    bytes: Vec<u8>,
}

struct Packed {
    part: Part,
    size: u32,
    bytes: Vec<u8>,
}

/// The data part of an image that is being written.
pub(super) struct Data<'scope, W> {
    out: &'scope mut W,
    position: u64,
    jobs: Sender<Job>,
    packed: Receiver<(u64, io::Result<Packed>)>,
    waiting: BTreeMap<u64, Packed>,
    submitted: u64,
    written: u64,
    places: Vec<Place>,
    known: HashMap<(Digest, u64), usize>,
    fragments: Vec<Fragment>,
    open: Vec<u8>,
}

impl<'scope, W: Write> Data<'scope, W> {
    /// Starts the threads; they end when the data does.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        queue: &'scope Queue,
        out: &'scope mut W,
        position: u64,
        (level, threads): (i32, usize),
    ) -> Self {
        let (results, packed) = channel();
        for _ in 0..threads.max(1) {
            let results = results.clone();
            scope.spawn(move || {
                while let Some(job) = queue.next() {
                    let number = job.number;
                    if results.send((number, pack(job, level))).is_err() {
                        break;
                    }
                }
            });
        }
        Self {
            out,
            position,
            jobs: queue.sender(),
            packed,
            waiting: BTreeMap::new(),
            submitted: 0,
            written: 0,
            places: Vec::new(),
            known: HashMap::new(),
            fragments: Vec::new(),
            open: Vec::with_capacity(BLOCK_SIZE),
        }
    }

    /// Takes the content of a file and returns the number of its place.
    pub(super) fn append(&mut self, path: &[u8], content: &Content) -> Result<usize, WriteError> {
        let key = (content.digest, content.size);
        if let Some(place) = self.known.get(&key) {
            return Ok(*place);
        }
        let place = self.places.len();
        self.places.push(Place::default());
        self.known.insert(key, place);
        let read = |source| WriteError::Read {
            path: String::from_utf8_lossy(path).into_owned(),
            source,
        };
        let mut source = content.open().map_err(read)?;
        let mut left = content.size;
        while left >= BLOCK_SIZE as u64 {
            let mut block = vec![0; BLOCK_SIZE];
            source.read_exact(&mut block).map_err(read)?;
            self.append_block(place, block)?;
            left -= BLOCK_SIZE as u64;
        }
        let mut end = Vec::new();
        source.take(left + 1).read_to_end(&mut end).map_err(read)?;
        if end.len() as u64 != left {
            let path = String::from_utf8_lossy(path).into_owned();
            return Err(WriteError::Changed { path });
        }
        if !end.is_empty() {
            self.append_end(place, &end)?;
        }
        Ok(place)
    }

    /// Writes what is still open; returns all places, all fragments and the end of the data.
    pub(super) fn finish(mut self) -> Result<(Vec<Place>, Vec<Fragment>, u64), WriteError> {
        self.close_fragment()?;
        while self.written < self.submitted {
            self.collect()?;
        }
        Ok((self.places, self.fragments, self.position))
    }

    fn append_block(&mut self, place: usize, block: Vec<u8>) -> Result<(), WriteError> {
        let number = self.places[place].blocks.len();
        self.places[place].blocks.push(0);
        if block.iter().all(|byte| *byte == 0) {
            self.places[place].sparse += BLOCK_SIZE as u64;
            return Ok(());
        }
        let part = Part::File {
            place,
            block: number,
        };
        self.submit(part, block)
    }

    fn append_end(&mut self, place: usize, end: &[u8]) -> Result<(), WriteError> {
        if self.open.len() + end.len() > BLOCK_SIZE {
            self.close_fragment()?;
        }
        let too_many = |_| WriteError::TooMany { what: "fragments" };
        let number = u32::try_from(self.fragments.len()).map_err(too_many)?;
        let offset = u32::try_from(self.open.len()).map_err(too_many)?;
        self.places[place].fragment = Some((number, offset));
        self.open.extend_from_slice(end);
        Ok(())
    }

    fn close_fragment(&mut self) -> Result<(), WriteError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::replace(&mut self.open, Vec::with_capacity(BLOCK_SIZE));
        let part = Part::Fragment(self.fragments.len());
        self.fragments.push((0, 0));
        self.submit(part, bytes)
    }

    fn submit(&mut self, part: Part, bytes: Vec<u8>) -> Result<(), WriteError> {
        while self.submitted - self.written >= WINDOW {
            self.collect()?;
        }
        let number = self.submitted;
        let job = Job {
            number,
            part,
            bytes,
        };
        self.jobs.send(job).map_err(|_| gone())?;
        self.submitted += 1;
        Ok(())
    }

    /// Waits for one block and writes all that are next in order.
    fn collect(&mut self) -> Result<(), WriteError> {
        let (number, packed) = self.packed.recv().map_err(|_| gone())?;
        let packed = packed.map_err(|source| WriteError::Compress { source })?;
        self.waiting.insert(number, packed);
        while let Some(packed) = self.waiting.remove(&self.written) {
            self.place(&packed)?;
            self.written += 1;
        }
        Ok(())
    }

    fn place(&mut self, packed: &Packed) -> Result<(), WriteError> {
        let written = self.out.write_all(&packed.bytes);
        written.map_err(|source| WriteError::Write { source })?;
        match packed.part {
            Part::Fragment(number) => self.fragments[number] = (self.position, packed.size),
            Part::File { place, block } => {
                let place = &mut self.places[place];
                if place.start == 0 {
                    place.start = self.position;
                }
                place.blocks[block] = packed.size;
            }
        }
        self.position += packed.bytes.len() as u64;
        Ok(())
    }
}

/// The queue between the one that reads and those that compress.
pub(super) struct Queue {
    jobs: Mutex<Receiver<Job>>,
    sender: Mutex<Option<Sender<Job>>>,
}

impl Queue {
    pub(super) fn new() -> Self {
        let (sender, jobs) = channel();
        Self {
            jobs: Mutex::new(jobs),
            sender: Mutex::new(Some(sender)),
        }
    }

    /// Hands out the only sender: when it is dropped, the queue ends.
    fn sender(&self) -> Sender<Job> {
        let taken = self.sender.lock().ok().and_then(|mut sender| sender.take());
        taken.unwrap_or_else(|| channel().0)
    }

    fn next(&self) -> Option<Job> {
        self.jobs.lock().ok()?.recv().ok()
    }
}

fn gone() -> WriteError {
    WriteError::Compress {
        source: io::Error::other("a compressing thread is gone"),
    }
}

/// Compresses one block.
///
/// The context is a new one each time: a used one may remember what it did before, and then the
/// bytes would depend on which thread got which block.
fn pack(job: Job, level: i32) -> io::Result<Packed> {
    let too_large = || io::Error::other("the block is larger than the format knows");
    let small = zstd::bulk::compress(&job.bytes, level)?;
    let stored = small.len() >= job.bytes.len();
    let bytes = if stored { job.bytes } else { small };
    let size = u32::try_from(bytes.len()).map_err(|_| too_large())?;
    Ok(Packed {
        part: job.part,
        size: if stored { size | STORED } else { size },
        bytes,
    })
}
