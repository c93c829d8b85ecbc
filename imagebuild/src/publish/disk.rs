//! The disk of a stored image, as the clouds read it: any part of the raw disk, or a form as a stream.
//!
//! It refuses to hold more of it than a few megabytes.

use std::io::{self, Read, Write};
use std::sync::{Arc, mpsc};
use std::thread;

use image_disk::{Extents, ReadAt as _, WriteSink, block_map, vhd};
use image_manifest::{BlockMap, Digest, Form, FormKind, Manifest};

use crate::forms::Disk;

/// Pieces of a stream that are made and not read yet.
const QUEUE: usize = 16;
/// Size of such a piece.
const PIECE: usize = 64 << 10;

/// A disk that is composed while it is read.
#[derive(Debug)]
pub struct Composed {
    disk: Arc<Disk>,
    blocks: BlockMap,
    forms: Vec<Form>,
    footer: [u8; 512],
}

impl Composed {
    /// Takes the disk of an image.
    #[must_use]
    pub fn new(disk: Disk, manifest: &Manifest) -> Self {
        let plan = disk.plan();
        let footer = vhd::footer(plan.extents.size(), plan.guid, manifest.source_date);
        Self {
            blocks: block_map(&plan.extents),
            forms: manifest.forms.clone(),
            // A footer has 512 bytes, whatever is in it.
            footer: footer.try_into().unwrap_or([0; 512]),
            disk: Arc::new(disk),
        }
    }
}

impl cloud::Disk for Composed {
    fn blocks(&self) -> &BlockMap {
        &self.blocks
    }

    fn form(&self, kind: FormKind) -> Option<(Digest, u64)> {
        let mut forms = self.forms.iter();
        let form = forms.find(|form| form.kind == kind)?;
        Some((form.digest, form.size))
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let image = self.disk.image(&self.disk.plan().extents);
        image.read_exact_at(at, buffer)
    }

    fn vhd_footer(&self) -> [u8; 512] {
        self.footer
    }

    fn open(&self, kind: FormKind, from: u64) -> io::Result<Box<dyn Read + Send>> {
        let disk = Arc::clone(&self.disk);
        match disk.extents(kind) {
            Some(extents) => Ok(Box::new(Flat {
                disk,
                extents,
                at: from,
            })),
            None => Ok(Box::new(Made::begin(disk, kind, from)?)),
        }
    }
}

/// A form whose every byte has its place.
struct Flat {
    disk: Arc<Disk>,
    extents: Extents,
    at: u64,
}

impl Read for Flat {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.extents.size().saturating_sub(self.at);
        let length = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let image = self.disk.image(&self.extents);
        image.read_exact_at(self.at, &mut buffer[..length])?;
        self.at += length as u64;
        Ok(length)
    }
}

/// A form that is made from its start on; what is asked for later is made and left out.
struct Made {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    read: usize,
}

impl Made {
    fn begin(disk: Arc<Disk>, kind: FormKind, from: u64) -> io::Result<Self> {
        let (sender, pieces) = mpsc::sync_channel(QUEUE);
        let maker = thread::Builder::new().name("form".to_owned());
        maker.spawn(move || {
            let mut out = Outlet {
                sender,
                skip: from,
                piece: Vec::with_capacity(PIECE),
            };
            let made = disk.write(kind, &mut WriteSink::new(&mut out));
            let made = made.map_err(io::Error::other).and_then(|()| out.flush());
            if let Err(error) = made {
                // Nobody listens any more when the reader is gone.
                out.sender.send(Err(error)).unwrap_or_default();
            }
        })?;
        Ok(Self {
            pieces,
            piece: Vec::new(),
            read: 0,
        })
    }
}

impl Read for Made {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.piece.len() {
            self.piece = match self.pieces.recv() {
                Ok(piece) => piece?,
                // The maker is done.
                Err(mpsc::RecvError) => return Ok(0),
            };
            self.read = 0;
        }
        let rest = &self.piece[self.read..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.read += length;
        Ok(length)
    }
}

/// Hands on what is made, in pieces.
struct Outlet {
    sender: mpsc::SyncSender<io::Result<Vec<u8>>>,
    skip: u64,
    piece: Vec<u8>,
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = usize::try_from(self.skip)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        self.skip -= skipped as u64;
        let rest = &bytes[skipped..];
        let room = PIECE - self.piece.len();
        let taken = rest.len().min(room);
        self.piece.extend_from_slice(&rest[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(skipped + taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let sent = self.sender.send(Ok(piece));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_begins_where_it_is_asked_to() {
        let (sender, pieces) = mpsc::sync_channel(QUEUE);
        let mut out = Outlet {
            sender,
            skip: 3,
            piece: Vec::new(),
        };
        let bytes: Vec<u8> = (0..=255).cycle().take(PIECE + 10).collect();
        out.write_all(&bytes[..2]).unwrap();
        out.write_all(&bytes[2..]).unwrap();
        out.flush().unwrap();
        drop(out);
        let mut made = Made {
            pieces,
            piece: Vec::new(),
            read: 0,
        };
        let mut read = Vec::new();
        made.read_to_end(&mut read).unwrap();
        assert!(read == bytes[3..]);
    }

    #[test]
    fn whoever_makes_for_nobody_stops() {
        let (sender, pieces) = mpsc::sync_channel(QUEUE);
        drop(pieces);
        let mut out = Outlet {
            sender,
            skip: 0,
            piece: Vec::new(),
        };
        assert!(out.write_all(&vec![0; PIECE]).is_err());
    }
}
