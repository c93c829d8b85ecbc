//! The disk that is uploaded: runs of data that does not compress, with holes between them, the same each time.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use cloud::aws::{Publisher, Target};
use cloud::http::Http;
use cloud::{Disk, Options, Progress, Provider as _, Stage, Step, Subject};
use image_manifest::block_map::{Kind, Run};
use image_manifest::{BlockMap, Digest, FormKind};

/// Size of a block of a snapshot.
pub(super) const BLOCK: u64 = BlockMap::BLOCK;
/// Blocks of data in a row, as an image has them: neither all in one piece nor each alone.
const ROW: u64 = 32;

/// Where data is.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    map: BlockMap,
}

impl Layout {
    /// Spreads so many MiB of data over a disk of so many; `None` when they do not leave gaps as large.
    pub(super) fn new(size: u64, data: u64) -> Option<Self> {
        let [all, mut left] = [size, data].map(|mib| (mib << 20) / BLOCK);
        if left * 2 > all {
            return None;
        }
        let rows = left.div_ceil(ROW);
        let stride = all / rows;
        let mut runs = Vec::new();
        for row in 0..rows {
            let (first, count) = (row * stride, left.min(ROW));
            let end = if row + 1 == rows { all } else { first + stride };
            left -= count;
            let run = |kind, first, count| Run { kind, first, count };
            runs.push(run(Kind::Data, first, count));
            runs.push(run(Kind::NeverWritten, first + count, end - first - count));
        }
        let (schema, block_size, size) = (BlockMap::SCHEMA, BLOCK, size << 20);
        Some(Self {
            map: BlockMap {
                schema,
                block_size,
                size,
                runs,
            },
        })
    }

    /// Writes the disk as a sparse file.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(self.map.size)?;
        for (index, _) in self.map.written() {
            file.write_all_at(&block(index), index * BLOCK)?;
        }
        file.sync_all()
    }

    /// The first byte that is not as it should be, on a disk that can be read.
    pub(super) fn is_on(
        &self,
        read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<Option<u64>> {
        let mut data = self.map.written().map(|(index, _)| index).peekable();
        let size = usize::try_from(BLOCK).unwrap_or_default();
        let (mut found, zeros) = (vec![0; size], vec![0; size]);
        for index in 0..self.map.size / BLOCK {
            read(index * BLOCK, &mut found)?;
            let expected = match data.next_if_eq(&index) {
                Some(_) => &block(index),
                None => &zeros,
            };
            if found != *expected {
                return Ok(Some(index * BLOCK));
            }
        }
        Ok(None)
    }
}

/// The bytes of a block of data: a xorshift of its number.
fn block(index: u64) -> Vec<u8> {
    let mut word = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let words = (0..BLOCK / 8).flat_map(|_| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_le_bytes()
    });
    words.collect()
}

/// The disk as publishing reads it.
#[derive(Debug)]
pub(super) struct Raw {
    file: File,
    map: BlockMap,
}

impl Raw {
    pub(super) fn open(path: &Path, layout: &Layout) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            map: layout.map.clone(),
        })
    }
}

impl Disk for Raw {
    fn blocks(&self) -> &BlockMap {
        &self.map
    }

    fn form(&self, _: FormKind) -> Option<(Digest, u64)> {
        None
    }

    fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    fn vhd_footer(&self) -> [u8; 512] {
        [0; 512]
    }

    fn open(&self, _: FormKind, _: u64) -> io::Result<Box<dyn Read + Send>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

struct Silent;

impl Progress for Silent {
    fn begins(&self, _: &Step) {}
    fn bytes(&self, _: &str, _: u64, _: u64) {}
    fn waits(&self, _: &str, _: &str) {}
}

/// Looks, uploads, completes, waits, reads some of it back, and registers an image.
pub(super) async fn publish(
    disk: Raw,
    region: &str,
    endpoint: &str,
    journal: &Path,
) -> Result<(), cloud::Error> {
    let text = format!("name = 'bench'\nregions = ['{region}']\nendpoint = '{endpoint}'\n");
    let target: Target = toml::from_str(&text).map_err(|error| cloud::Error::Unfit {
        image: "bench".to_owned(),
        to: "bench".to_owned(),
        reason: error.to_string(),
    })?;
    let subject = Subject {
        name: "bench".to_owned(),
        architecture: "amd64".to_owned(),
        distribution: "debian/trixie".to_owned(),
        version: "1".to_owned(),
        manifest: Digest::of(b"manifest"),
        tree: Digest::of(b"tree"),
        source_date: 0,
        disk: Some(Arc::new(disk)),
    };
    let options = Options {
        journal: journal.to_owned(),
        http: Http::new(),
    };
    let mut publisher = Publisher::new(&target, &subject, &options)?;
    publisher.observe().await?;
    publisher.advance(Stage::Private, &Silent).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_layout_covers_the_disk_and_has_the_data_that_was_asked_for(size in 2u64..9000, data in 1u64..9000) {
            let Some(layout) = Layout::new(size, data) else {
                prop_assert!(data * 2 > size);
                return Ok(());
            };
            prop_assert!(layout.map.is_whole());
            prop_assert_eq!(layout.map.size, size << 20);
            prop_assert_eq!(layout.map.written().count() as u64 * BLOCK, data << 20);
        }
    }

    #[test]
    fn a_byte_that_differs_is_found_in_data_and_in_a_hole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let layout = Layout::new(100, 17).unwrap();
        layout.write(&path).unwrap();
        let raw = Raw::open(&path, &layout).unwrap();
        assert_eq!(layout.is_on(|at, to| raw.read_at(at, to)).unwrap(), None);
        for flipped in [0_u64, 16 << 20, (100 << 20) - 1] {
            let seen = Cell::new(false);
            let read = |at: u64, to: &mut [u8]| {
                raw.read_at(at, to)?;
                if let Some(byte) = flipped
                    .checked_sub(at)
                    .and_then(|place| to.get_mut(usize::try_from(place).unwrap()))
                {
                    *byte ^= 1;
                    seen.set(true);
                }
                Ok(())
            };
            assert_eq!(layout.is_on(read).unwrap(), Some(flipped / BLOCK * BLOCK));
            assert!(seen.get());
        }
    }
}
