//! Decompression of package members, with a bound on what comes out.
//!
//! It refuses bzip2 and the old lzma form, which Debian no longer writes.

use std::io::{self, Read};

use super::Error;

/// Memory that an xz stream may ask for: `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;
/// `zstd --ultra -22` writes windows of 2^27 bytes.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Chooses the decoder by the end of the member's name.
pub(super) fn decoder<'r>(
    member: impl Read + Send + 'r,
    name: &str,
    stem: &'static str,
) -> Result<Box<dyn Read + Send + 'r>, Error> {
    let failed = |source| Error::Read { part: stem, source };
    Ok(match name.strip_prefix(stem) {
        Some("") => Box::new(member),
        Some(".gz") => Box::new(flate2::read::MultiGzDecoder::new(member)),
        Some(".xz") => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY,
                liblzma::stream::CONCATENATED,
            )
            .map_err(|error| failed(error.into()))?;
            Box::new(liblzma::read::XzDecoder::new_stream(member, stream))
        }
        Some(".zst") => {
            let mut decoder = zstd::Decoder::new(member).map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(failed)?;
            Box::new(decoder)
        }
        _ => {
            return Err(Error::UnknownCompression {
                name: name.to_owned(),
            });
        }
    })
}

/// A reader that fails, rather than ends, after too many bytes.
#[derive(Debug)]
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R> Bounded<R> {
    pub(super) fn new(inner: R, limit: u64) -> Self {
        Self { inner, left: limit }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other("it unpacks to more than a package of its size holds")
        })?;
        Ok(read)
    }
}
