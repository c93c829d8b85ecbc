//! A gzip stream of one member for what is half compressed already and half zero.
//!
//! It refuses to compress data: the pieces of a disk are compressed files, and trying costs seconds
//! for nothing. They become stored blocks. A run of zeros becomes one block of its own, a thousandth
//! of its length, whose bits follow from the length alone: no compressor, of whatever version or
//! processor, has a say in them.

use std::io;
use std::sync::Arc;

use flate2::Crc;

use crate::Sink;

/// Zeros whose checksum is computed once.
const RUN: u64 = 4 << 20;
/// Zeros of one block, whose 64 KiB are made in memory.
const BLOCK: u64 = 64 << 20;
/// Longest stored block (RFC 1951 §3.2.4).
const STORED: usize = 0xffff;
/// Longest match (RFC 1951 §3.2.5).
const MATCH: u64 = 258;
/// No name, no time, unknown system: nothing of the computer that writes it (RFC 1952 §2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty stored block that is the last one.
const LAST: [u8; 5] = [1, 0, 0, 0xff, 0xff];

/// Writes a gzip stream.
pub(crate) struct GzipSink<'a> {
    out: &'a mut dyn Sink,
    crc: Crc,
    run: Crc,
}

impl<'a> GzipSink<'a> {
    pub(crate) fn new(out: &'a mut dyn Sink) -> io::Result<Self> {
        out.data(&HEADER)?;
        Ok(Self {
            out,
            crc: Crc::new(),
            run: checksum_of_zeros(RUN),
        })
    }

    pub(crate) fn finish(self) -> io::Result<()> {
        self.out.data(&LAST)?;
        self.out.data(&self.crc.sum().to_le_bytes())?;
        self.out.data(&self.crc.amount().to_le_bytes())
    }
}

impl Sink for GzipSink<'_> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        for block in bytes.chunks(STORED) {
            let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
            let [low, high] = length.to_le_bytes();
            self.out.data(&[0, low, high, !low, !high])?;
            self.out.data(block)?;
        }
        Ok(())
    }

    fn zeros(&mut self, count: u64) -> io::Result<()> {
        for _ in 0..count / RUN {
            self.crc.combine(&self.run);
        }
        self.crc.combine(&checksum_of_zeros(count % RUN));
        for _ in 0..count / BLOCK {
            zero_block(BLOCK, self.out)?;
        }
        zero_block(count % BLOCK, self.out)
    }

    fn enter(&mut self, region: &Arc<str>) {
        self.out.enter(region);
    }
}

fn checksum_of_zeros(mut count: u64) -> Crc {
    let mut crc = Crc::new();
    let zeros = [0; 4096];
    while count > 0 {
        let length = crate::extent::chunk(count, zeros.len());
        crc.update(&zeros[..length]);
        count -= length as u64;
    }
    crc
}

/// Writes a block with codes of its own (RFC 1951 §3.2.7) that holds zeros, and ends it on a byte.
///
/// Three symbols have a code: the longest match (`0`), the byte zero (`10`) and the end (`11`); the
/// one distance, 1, is `0`. So 258 zeros are two bits, both of them zero.
fn zero_block(count: u64, out: &mut dyn Sink) -> io::Result<()> {
    if count == 0 {
        return Ok(());
    }
    let mut bits = Bits::default();
    // Not the last block; of type 2; 286 codes of lengths and bytes, 1 of distances, 18 of lengths of codes.
    for (value, width) in [(0, 1), (2, 2), (29, 5), (0, 5), (14, 4)] {
        bits.push(value, width);
    }
    // Lengths of the codes for lengths of codes, in the order of the standard: 18 has one bit, 1 and 2 have two.
    for symbol in [
        16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1u8,
    ] {
        let length = match symbol {
            18 => 1,
            1 | 2 => 2,
            _ => 0,
        };
        bits.push(length, 3);
    }
    // Codes are written from their highest bit on: `0` is a run of so many zeros, `10` is 1, `11` is 2.
    let (one, two) = ((0b01, 2), (0b11, 2));
    let run = |zeros: u32| [(0, 1), (zeros - 11, 7)];
    let lengths = [two]
        .into_iter()
        .chain(run(138))
        .chain(run(117))
        .chain([two])
        .chain(run(28))
        .chain([one, one]);
    lengths.for_each(|(value, width)| bits.push(value, width));

    let matches = (count - 1) / MATCH;
    for _ in 0..count - matches * MATCH {
        bits.push(0b01, 2);
    }
    bits.skip(usize::try_from(2 * matches).map_err(io::Error::other)?);
    bits.push(0b11, 2);
    // An empty stored block, whose length starts on a byte.
    bits.push(0, 3);
    out.data(&bits.bytes)?;
    out.data(&[0, 0, 0xff, 0xff])
}

/// Bits in the order of RFC 1951 §3.1.1: from the lowest of each byte on.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    fn push(&mut self, value: u32, width: usize) {
        for bit in 0..width {
            let at = self.count;
            self.skip(1);
            if value >> bit & 1 == 1 {
                self.bytes[at / 8] |= 1 << (at % 8);
            }
        }
    }

    /// Appends zero bits.
    fn skip(&mut self, width: usize) {
        self.count += width;
        self.bytes.resize(self.count.div_ceil(8), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;
    use crate::WriteSink;

    #[test]
    fn one_member_holds_data_and_zeros() {
        let mut out = WriteSink::new(Vec::new());
        let mut gzip = GzipSink::new(&mut out).unwrap();
        let data: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let mut expected = Vec::new();
        let runs = [0, RUN, 2 * RUN + 7, BLOCK + 1];
        for zeros in (1..600).chain(runs) {
            let count = usize::try_from(zeros).unwrap();
            gzip.data(&data[..count % 70_000]).unwrap();
            gzip.zeros(zeros).unwrap();
            expected.extend(&data[..count % 70_000]);
            expected.resize(expected.len() + count, 0);
        }
        gzip.finish().unwrap();
        let bytes = out.into_inner();
        let mut decoder = GzDecoder::new(&bytes[..]);
        let mut found = Vec::new();
        decoder.read_to_end(&mut found).unwrap();
        assert!(found == expected);
        assert!(decoder.into_inner().is_empty(), "nothing after the member");
    }
}
