//! Configured trees on disk: one file each, named by its key.
//!
//! ```text
//! "firstboot-configured 1\n" · length of the index (8) · its digest (32) · index (JSON) · contents, one after the other
//! ```
//!
//! It refuses bytes that are not those that were kept: every digest is computed again before anything is used, and a file
//! that was cut, changed or made by another version is as good as none. Old ones go when all are above [`MOST`].

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use image_manifest::{Digest, Hasher};
use image_tree::{Content, Device, Entry, Kind, Source, Tree};
use serde::{Deserialize, Serialize};

use super::super::kernel::{Firmware, InstalledKernel};
use super::Configured;
use crate::{cache, gc};

const MAGIC: &[u8] = b"firstboot-configured 1\n";
/// Bytes of all that is kept: about ten trees of hosts.
const MOST: u64 = 2 << 30;
/// Largest index that is read: a million paths.
const INDEX_LIMIT: u64 = 256 << 20;

/// What a file holds.
#[derive(Serialize, Deserialize)]
struct Index {
    entries: Vec<Record>,
    /// Size and digest of each content, in the order in which they stand.
    contents: Vec<(u64, Digest)>,
    kernel: Option<KernelRecord>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    path: Bytes,
    kind: KindRecord,
    mode: u32,
    uid: u32,
    gid: u32,
    xattrs: Vec<(Bytes, Bytes)>,
    link: Option<u64>,
}

#[derive(Serialize, Deserialize)]
enum KindRecord {
    Directory,
    /// The number of its content.
    File(usize),
    Symlink(Bytes),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
}

#[derive(Serialize, Deserialize)]
struct KernelRecord {
    release: String,
    /// The number of the kernel's content.
    image: usize,
    index: String,
    modules: Vec<(String, String)>,
    firmware: Vec<(String, Firmware)>,
}

/// Bytes as a text of as many characters.
#[derive(Serialize, Deserialize)]
struct Bytes(String);

impl Bytes {
    fn of(bytes: &[u8]) -> Self {
        Self(bytes.iter().map(|byte| char::from(*byte)).collect())
    }

    fn take(self) -> io::Result<Vec<u8>> {
        let bytes = self.0.chars().map(u8::try_from);
        bytes.collect::<Result<_, _>>().map_err(damaged)
    }
}

fn damaged(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The directory of all configured trees.
pub(super) struct Shelf<'a> {
    directory: &'a Path,
}

impl<'a> Shelf<'a> {
    pub(super) fn new(directory: &'a Path) -> Self {
        Self { directory }
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.directory.join(key.hex())
    }

    /// Finds a tree. One that is damaged is as good as absent; the next that is kept takes its place.
    pub(super) fn find(&self, key: &Digest, threads: usize, work: &Path) -> Option<Configured> {
        let path = self.path(key);
        let opened = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            opened => opened,
        };
        let image = work.join("vmlinuz");
        let found = opened.and_then(|file| {
            let found = read(&file, threads, &image)?;
            // What is used is young: it goes last. A shared cache may not be ours.
            drop(file.set_modified(SystemTime::now()));
            Ok(found)
        });
        let told = |error: &io::Error| {
            tracing::warn!(path = %path.display(), %error, "a kept tree is damaged and made again");
        };
        found.inspect_err(told).ok()
    }

    /// Keeps a tree, and lets go of old ones. Readers see all of it or nothing.
    pub(super) fn keep(&self, key: &Digest, configured: &Configured) -> io::Result<()> {
        fs::create_dir_all(self.directory)?;
        cache::sweep(self.directory);
        let file = cache::incoming(self.directory)?;
        let mut out = BufWriter::with_capacity(1 << 20, file.as_file());
        write(configured, &mut out)?;
        out.flush()?;
        drop(out);
        // Like packages, it is read by others than its owner when the cache is shared.
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))?;
        file.persist(self.path(key)).map_err(|error| error.error)?;
        let bound = gc::bound(self.directory, MOST, SystemTime::now());
        bound.map(drop).map_err(io::Error::other)
    }
}

/// Contents in the order in which they are written, each once.
#[derive(Default)]
struct Contents {
    all: Vec<Content>,
    numbers: HashMap<(Digest, u64), usize>,
}

impl Contents {
    fn number(&mut self, content: &Content) -> usize {
        let next = self.all.len();
        let key = (content.digest, content.size);
        let number = *self.numbers.entry(key).or_insert(next);
        if number == next {
            self.all.push(content.clone());
        }
        number
    }
}

fn write(configured: &Configured, out: &mut impl Write) -> io::Result<()> {
    let mut contents = Contents::default();
    let tree = configured.tree.iter();
    let entries = tree.map(|(path, entry)| record(path, entry, &mut contents));
    let entries = entries.collect();
    let kernel = configured.kernel.as_ref();
    let kernel = kernel.map(|kernel| record_kernel(kernel, &mut contents));
    let index = Index {
        entries,
        contents: contents
            .all
            .iter()
            .map(|content| (content.size, content.digest))
            .collect(),
        kernel: kernel.transpose()?,
    };
    let index = serde_json::to_vec(&index)?;
    out.write_all(MAGIC)?;
    out.write_all(&(index.len() as u64).to_le_bytes())?;
    out.write_all(Digest::of(&index).as_bytes())?;
    out.write_all(&index)?;
    for content in &contents.all {
        let copied = io::copy(&mut content.open()?, out)?;
        if copied != content.size {
            return Err(damaged("a file of the tree changed"));
        }
    }
    Ok(())
}

fn record(path: &[u8], entry: &Entry, contents: &mut Contents) -> Record {
    let kind = match &entry.kind {
        Kind::Directory => KindRecord::Directory,
        Kind::File(content) => KindRecord::File(contents.number(content)),
        Kind::Symlink(target) => KindRecord::Symlink(Bytes::of(target)),
        Kind::Character(device) => KindRecord::Character(device.major, device.minor),
        Kind::Block(device) => KindRecord::Block(device.major, device.minor),
        Kind::Fifo => KindRecord::Fifo,
        Kind::Socket => KindRecord::Socket,
    };
    let xattrs = entry.xattrs.iter();
    Record {
        path: Bytes::of(path),
        kind,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        xattrs: xattrs
            .map(|(name, value)| (Bytes::of(name), Bytes::of(value)))
            .collect(),
        link: entry.link,
    }
}

fn record_kernel(kernel: &InstalledKernel, contents: &mut Contents) -> io::Result<KernelRecord> {
    let mut image = File::open(&kernel.image)?;
    let mut hasher = Hasher::new();
    io::copy(&mut image, &mut hasher)?;
    let image = Content {
        size: hasher.bytes(),
        digest: hasher.finish(),
        source: Source::Path(kernel.image.clone()),
    };
    Ok(KernelRecord {
        release: kernel.release.clone(),
        image: contents.number(&image),
        index: kernel.index.clone(),
        modules: kernel.modules.clone(),
        firmware: kernel.firmware.clone(),
    })
}

/// Reads a tree whose contents stay in the file; the kernel is written to a place of its own.
fn read(file: &File, threads: usize, image: &Path) -> io::Result<Configured> {
    let (index, start) = read_index(file)?;
    let contents = locate(file, &index.contents, start)?;
    check(&contents, threads)?;
    let content = |number: usize| {
        let content = contents.get(number);
        content.cloned().ok_or_else(|| damaged("no such content"))
    };
    let mut tree = Tree::new();
    for record in index.entries {
        let kind = match record.kind {
            KindRecord::Directory => Kind::Directory,
            KindRecord::File(number) => Kind::File(content(number)?),
            KindRecord::Symlink(target) => Kind::Symlink(target.take()?),
            KindRecord::Character(major, minor) => Kind::Character(Device { major, minor }),
            KindRecord::Block(major, minor) => Kind::Block(Device { major, minor }),
            KindRecord::Fifo => Kind::Fifo,
            KindRecord::Socket => Kind::Socket,
        };
        let xattrs = record.xattrs.into_iter();
        let xattrs = xattrs.map(|(name, value)| Ok((name.take()?, value.take()?)));
        let entry = Entry {
            uid: record.uid,
            gid: record.gid,
            xattrs: xattrs.collect::<io::Result<BTreeMap<_, _>>>()?,
            link: record.link,
            ..Entry::new(kind, record.mode)
        };
        tree.insert(&record.path.take()?, entry).map_err(damaged)?;
    }
    let kernel = index.kernel.map(|kernel| {
        let mut out = File::create(image)?;
        io::copy(&mut content(kernel.image)?.open()?, &mut out)?;
        Ok::<_, io::Error>(InstalledKernel {
            release: kernel.release,
            image: image.to_owned(),
            index: kernel.index,
            modules: kernel.modules,
            firmware: kernel.firmware,
        })
    });
    Ok(Configured {
        tree,
        kernel: kernel.transpose()?,
    })
}

/// Reads the index; returns where the contents start, too.
fn read_index(mut file: &File) -> io::Result<(Index, u64)> {
    file.seek(SeekFrom::Start(0))?;
    let (mut magic, mut length, mut digest) = ([0; MAGIC.len()], [0; 8], [0; 32]);
    file.read_exact(&mut magic)?;
    file.read_exact(&mut length)?;
    file.read_exact(&mut digest)?;
    let length = u64::from_le_bytes(length);
    if magic != MAGIC || length > INDEX_LIMIT {
        return Err(damaged("another format"));
    }
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    if Digest::of(&bytes) != Digest::from_bytes(digest) {
        return Err(damaged("its index has another digest"));
    }
    let head = MAGIC.len() + 8 + 32;
    Ok((serde_json::from_slice(&bytes)?, head as u64 + length))
}

/// Says where each content stands.
fn locate(file: &File, contents: &[(u64, Digest)], start: u64) -> io::Result<Vec<Content>> {
    let file = Arc::new(file.try_clone()?);
    let mut at = start;
    let located = contents.iter().map(|(size, digest)| {
        let source = Source::Part(Arc::clone(&file), at);
        at = at.checked_add(*size).ok_or_else(|| damaged("too large"))?;
        Ok(Content {
            size: *size,
            digest: *digest,
            source,
        })
    });
    let located = located.collect::<io::Result<Vec<_>>>()?;
    if file.metadata()?.len() != at {
        return Err(damaged("it has another size"));
    }
    Ok(located)
}

/// Computes all digests again.
fn check(contents: &[Content], threads: usize) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<()> {
        let mut buffer = vec![0; 128 << 10];
        while let Some(content) = contents.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut bytes = content.open()?;
            let mut hasher = Hasher::new();
            loop {
                match bytes.read(&mut buffer)? {
                    0 => break,
                    count => hasher.update(&buffer[..count]),
                }
            }
            if hasher.finish() != content.digest {
                return Err(damaged("a content has another digest"));
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| match worker.join() {
                Ok(checked) => checked,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(work: &Path) -> Configured {
        let mut tree = Tree::new();
        let link = |link| Entry {
            link: Some(link),
            ..Entry::file(&b"twice"[..], 0o755)
        };
        let mut ping = Entry::file(&b"ping"[..], 0o4755);
        let capability = (b"security.capability".to_vec(), vec![1, 0, 0xff]);
        ping.xattrs = [capability].into();
        (ping.uid, ping.gid) = (7, 8);
        let null = Kind::Character(Device { major: 1, minor: 3 });
        let entries: [(&[u8], Entry); 7] = [
            (b"a", link(3)),
            (b"b", link(3)),
            (b"empty", Entry::file(&b""[..], 0o600)),
            (b"null", Entry::new(null, 0o666)),
            (
                b"\xff\x80link",
                Entry::new(Kind::Symlink(b"\xfe".to_vec()), 0o777),
            ),
            (b"pipe", Entry::new(Kind::Fifo, 0o644)),
            (b"ping", ping),
        ];
        for (path, entry) in entries {
            tree.insert(path, entry).unwrap();
        }
        let image = work.join("image");
        fs::write(&image, "kernel").unwrap();
        let kernel = InstalledKernel {
            release: "6.12".to_owned(),
            image,
            index: "index".to_owned(),
            modules: vec![("a.ko".to_owned(), "usr/a.ko".to_owned())],
            firmware: vec![("fw".to_owned(), Firmware::Link("other".to_owned()))],
        };
        Configured {
            tree,
            kernel: Some(kernel),
        }
    }

    #[test]
    fn a_tree_comes_back_as_it_was_kept_and_outlives_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let made = configured(directory.path());
        let kept = directory.path().join("kept");
        let shelf = Shelf::new(&kept);
        let key = Digest::of(b"key");
        let find = || shelf.find(&key, 2, directory.path());
        assert!(find().is_none());
        shelf.keep(&key, &made).unwrap();
        shelf.keep(&key, &made).unwrap();
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 1);
        let found = find().unwrap();
        fs::remove_file(shelf.path(&key)).unwrap();
        assert_eq!(found.tree, made.tree);
        assert_eq!(found.tree.listing(), made.tree.listing());
        for (path, entry) in made.tree.iter() {
            if let Kind::File(content) = &found.tree.get(path).unwrap().kind {
                let read = io::read_to_string(content.open().unwrap()).unwrap();
                assert_eq!(Digest::of(read.as_bytes()), content.digest);
            }
            assert_eq!(found.tree.get(path), Some(entry));
        }
        let (found, made) = (found.kernel.unwrap(), made.kernel.unwrap());
        assert_eq!(fs::read(&found.image).unwrap(), b"kernel");
        assert_eq!((found.index, found.modules), (made.index, made.modules));
        assert_eq!(found.firmware, made.firmware);
    }

    #[test]
    fn a_file_with_any_byte_changed_or_missing_is_as_good_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let made = configured(directory.path());
        let kept = directory.path().join("kept");
        let shelf = Shelf::new(&kept);
        let key = Digest::of(b"key");
        shelf.keep(&key, &made).unwrap();
        let path = shelf.path(&key);
        let good = fs::read(&path).unwrap();
        let is_found = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            shelf.find(&key, 1, directory.path()).is_some()
        };
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!is_found(&bad), "byte {at}");
        }
        for length in [0, 1, MAGIC.len(), good.len() / 2, good.len() - 1] {
            assert!(!is_found(&good[..length]), "{length} bytes");
        }
        assert!(!is_found(&[&good[..], b"x"].concat()));
        assert!(is_found(&good));
    }
}
