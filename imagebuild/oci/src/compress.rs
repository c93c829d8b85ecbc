//! The two encodings of a layer, by encoders whose settings never follow the machine.
//!
//! It refuses to compress a layer as one stream: each segment is a gzip member or a zstd frame of its own, as both formats
//! allow, so that segments are compressed side by side and one that was compressed before is taken over.

use std::io::{self, BufRead, Read};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Level of gzip: past it, a layer takes half as long again and is one percent smaller.
const GZIP_LEVEL: u32 = 6;
/// Level of zstd, as root file systems have it.
const ZSTD_LEVEL: i32 = 3;
/// No time, no name, no hint, no system (RFC 1952 §2.3).
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// Largest window of a zstd frame that is read: 8 MiB, as RFC 8878 §3.1.1.1.2 asks of every decoder.
const WINDOW_LOG: u32 = 23;

/// How the bytes of a layer are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// Not at all.
    Plain,
    /// gzip: every runtime reads it.
    Gzip,
    /// zstd: smaller, and several times faster to unpack.
    Zstd,
}

/// Names the encoders and their settings: whoever keeps what they made keeps it under this name.
#[must_use]
pub fn settings() -> String {
    format!("gzip-{GZIP_LEVEL} zstd-{ZSTD_LEVEL}")
}

/// Compresses a segment into one gzip member.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut member = Vec::with_capacity(bytes.len() / 2 + 1024);
    member.extend_from_slice(&GZIP_HEAD);
    let mut encoder = Compress::new(Compression::new(GZIP_LEVEL), false);
    loop {
        let taken = usize::try_from(encoder.total_in()).unwrap_or(bytes.len());
        let status = encoder.compress_vec(&bytes[taken..], &mut member, FlushCompress::Finish);
        match status {
            Ok(Status::StreamEnd) => break,
            // Only room can be missing: the input is whole.
            Ok(Status::Ok | Status::BufError) | Err(_) => {
                member.reserve(member.capacity().max(1024));
            }
        }
    }
    let mut sum = Crc::new();
    sum.update(bytes);
    member.extend_from_slice(&sum.sum().to_le_bytes());
    member.extend_from_slice(&sum.amount().to_le_bytes());
    member
}

/// Compresses a segment into one zstd frame.
///
/// # Errors
/// When memory is short.
pub fn zstd(bytes: &[u8]) -> io::Result<Vec<u8>> {
    // A context that was used before may remember what it did, and bytes must not depend on that.
    let mut encoder = ::zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.include_contentsize(true)?;
    encoder.compress(bytes)
}

/// Finds out how bytes are compressed, by how they begin.
#[must_use]
pub fn detect(start: &[u8]) -> Encoding {
    match start {
        [0x1f, 0x8b, ..] => Encoding::Gzip,
        // The second is a frame that only holds what readers skip, as some writers put first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Encoding::Zstd,
        _ => Encoding::Plain,
    }
}

/// Unpacks what is compressed; memory is bounded by the window of the encoding.
///
/// # Errors
/// When memory is short.
pub fn decode<'a, R: BufRead + 'a>(encoding: Encoding, bytes: R) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match encoding {
        Encoding::Plain => Box::new(bytes),
        Encoding::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(bytes)),
        Encoding::Zstd => {
            let mut decoder = ::zstd::stream::read::Decoder::with_buffer(bytes)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_read_back_as_one_stream() {
        let noise: Vec<u8> = (0_u32..300_000)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
            .collect();
        let even = vec![7; 2 << 20];
        let segments: [&[u8]; 4] = [b"", b"hello", &noise, &even];
        let whole = segments.concat();
        let encoded = [
            (Encoding::Gzip, segments.map(gzip).concat()),
            (
                Encoding::Zstd,
                segments.map(|one| zstd(one).unwrap()).concat(),
            ),
            (Encoding::Plain, whole.clone()),
        ];
        for (encoding, bytes) in encoded {
            assert_eq!(detect(&bytes), encoding);
            let mut read = Vec::new();
            decode(encoding, &bytes[..])
                .unwrap()
                .read_to_end(&mut read)
                .unwrap();
            assert!(read == whole, "{encoding:?}");
        }
    }

    /// Layers are shared by their digests, so an encoder that changes must be seen.
    #[test]
    fn the_encoders_are_pinned() {
        let text: Vec<u8> = (0..20_000_u32)
            .flat_map(|n| (n * n).to_string().into_bytes())
            .collect();
        let digest = |bytes: &[u8]| image_manifest::Digest::of(bytes).short();
        assert_eq!(digest(&gzip(&text)), "b66fb6189b0c");
        assert_eq!(digest(&zstd(&text).unwrap()), "b5b9ddf78a3f");
    }
}
