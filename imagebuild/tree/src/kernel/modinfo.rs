//! What a module says about itself: the section `.modinfo` of its ELF file.
//!
//! It refuses anything that is not a 64-bit little endian ELF, and files that unpack to more than
//! [`MODULE_LIMIT`] bytes.

use std::io::{self, Read};

use super::module_name;

/// Largest module once unpacked; the largest of Debian's generic kernel has 30 MiB.
const MODULE_LIMIT: u64 = 256 << 20;
/// Memory that unpacking a module may take; `xz -9` asks for 65 MiB.
const MEMORY_LIMIT: u64 = 128 << 20;
/// Largest window of zstd, as a power of two: 128 MiB.
const WINDOW_LOG: u32 = 27;

/// Why a module could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The file is not named like a module.
    #[error("`{path}` is not named like a kernel module")]
    Name {
        /// The file.
        path: String,
    },
    /// The file could not be unpacked.
    #[error("failed to unpack the kernel module `{path}`")]
    Unpack {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The file is not a module that is understood here.
    #[error("`{path}` is not a kernel module: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// Why.
        reason: &'static str,
    },
}

/// What a module says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modinfo {
    /// Names of the modules whose symbols it uses.
    pub depends: Vec<String>,
    /// Modules that should be loaded before it, by name or alias, if they are there.
    pub softdeps: Vec<String>,
    /// Patterns over modaliases that it serves.
    pub aliases: Vec<String>,
    /// Firmware files that it may ask for, as patterns below `lib/firmware`.
    pub firmware: Vec<String>,
}

/// Unpacks the file of a module as its name says: `.ko`, `.ko.gz`, `.ko.xz` or `.ko.zst`.
///
/// # Errors
/// When the name is another, or the bytes are damaged or too many.
pub fn unpack_module(path: &str, bytes: &[u8]) -> Result<Vec<u8>, ModuleError> {
    if module_name(path).is_none() {
        let path = path.to_owned();
        return Err(ModuleError::Name { path });
    }
    let unpacked = match path.rsplit('.').next() {
        Some("gz") => bounded(flate2::read::MultiGzDecoder::new(bytes)),
        Some("xz") => liblzma::stream::Stream::new_stream_decoder(MEMORY_LIMIT, 0)
            .map_err(io::Error::from)
            .and_then(|stream| bounded(liblzma::read::XzDecoder::new_stream(bytes, stream))),
        Some("zst") => zstd::stream::read::Decoder::new(bytes).and_then(|mut decoder| {
            decoder.window_log_max(WINDOW_LOG)?;
            bounded(decoder)
        }),
        _ => Ok(bytes.to_vec()),
    };
    unpacked.map_err(|source| ModuleError::Unpack {
        path: path.to_owned(),
        source,
    })
}

fn bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MODULE_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MODULE_LIMIT {
        return Err(io::Error::other("it unpacks to more than 256 MiB"));
    }
    Ok(bytes)
}

impl Modinfo {
    /// Reads what an unpacked module says about itself.
    ///
    /// # Errors
    /// When the bytes are no 64-bit little endian ELF with a section `.modinfo`.
    pub fn parse(path: &str, elf: &[u8]) -> Result<Self, ModuleError> {
        let section = section(elf, b".modinfo").map_err(|reason| ModuleError::Malformed {
            path: path.to_owned(),
            reason,
        })?;
        let mut info = Self::default();
        for line in section.split(|byte| *byte == 0) {
            let line = String::from_utf8_lossy(line);
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            match key {
                "depends" => info.depends.extend(words(value, ',').map(kernel_name)),
                "softdep" => info.softdeps.extend(before(value)),
                "alias" => info.aliases.push(value.to_owned()),
                "firmware" => info.firmware.push(value.to_owned()),
                _ => {}
            }
        }
        Ok(info)
    }
}

fn words(text: &str, separator: char) -> impl Iterator<Item = &str> {
    text.split(separator)
        .map(str::trim)
        .filter(|word| !word.is_empty())
}

fn kernel_name(name: &str) -> String {
    name.replace('-', "_")
}

/// The modules of a softdep that come before: `pre: a b post: c`.
fn before(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut wanted = false;
    for word in text.split_ascii_whitespace() {
        match word {
            "pre:" => wanted = true,
            "post:" => wanted = false,
            name if wanted => names.push(name.to_owned()),
            _ => {}
        }
    }
    names
}

/// Finds a section of a 64-bit little endian ELF file by name.
fn section<'a>(elf: &'a [u8], wanted: &[u8]) -> Result<&'a [u8], &'static str> {
    // 2: 64 bit; 1: little endian.
    if elf.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("it is no 64-bit little endian ELF file");
    }
    let short = "it is cut off";
    let table = long(elf, 0x28).ok_or(short)?;
    let size = half(elf, 0x3a).ok_or(short)?;
    let count = half(elf, 0x3c).ok_or(short)?;
    let names = half(elf, 0x3e).ok_or(short)?;
    let header = |number: usize| {
        let at = table.checked_add(number.checked_mul(size)?)?;
        elf.get(at..at.checked_add(64)?)
    };
    let content = |header: &[u8]| {
        let (at, size) = (long(header, 0x18)?, long(header, 0x20)?);
        elf.get(at..at.checked_add(size)?)
    };
    let names = header(names).and_then(content).ok_or(short)?;
    for number in 0..count {
        let header = header(number).ok_or(short)?;
        let name = usize::try_from(word(header, 0).ok_or(short)?).map_err(|_| short)?;
        let name = names
            .get(name..)
            .and_then(|name| name.split(|byte| *byte == 0).next());
        if name == Some(wanted) {
            return content(header).ok_or(short);
        }
    }
    Err("it has no section `.modinfo`")
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
    Some(usize::from(u16::from_le_bytes(bytes)))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes))
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(8)?)?.try_into().ok()?;
    usize::try_from(u64::from_le_bytes(bytes)).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// Makes the smallest ELF file with a `.modinfo`.
    pub(in super::super) fn module(info: &str) -> Vec<u8> {
        let names = b"\0.shstrtab\0.modinfo\0";
        let info: Vec<u8> = info.replace('\n', "\0").into_bytes();
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let (names_at, info_at) = (64, 64 + names.len());
        let table = info_at + info.len();
        elf[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        elf[0x3a] = 64;
        elf[0x3c] = 2;
        elf.extend_from_slice(names);
        elf.extend_from_slice(&info);
        for (name, at, size) in [(1u32, names_at, names.len()), (11, info_at, info.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(at as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            elf.extend_from_slice(&header);
        }
        elf
    }

    const INFO: &str = "alias=virtio:d00000001v*\ndepends=virtio-ring,net_failover\n\
        softdep=pre: crc32c post: late\nfirmware=bnx2/a.fw\nlicense=GPL\nnonsense";

    #[test]
    fn a_module_tells_about_itself_however_it_is_packed() {
        let elf = module(INFO);
        let strings = |strings: &[&str]| strings.iter().map(|s| (*s).to_owned()).collect();
        let expected = Modinfo {
            depends: strings(&["virtio_ring", "net_failover"]),
            softdeps: strings(&["crc32c"]),
            aliases: strings(&["virtio:d00000001v*"]),
            firmware: strings(&["bnx2/a.fw"]),
        };
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&elf).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&elf).unwrap();
        let cases = [
            ("virtio-net.ko", elf.clone()),
            ("virtio-net.ko.gz", gz.finish().unwrap()),
            ("virtio-net.ko.xz", xz.finish().unwrap()),
            ("virtio-net.ko.zst", zstd::bulk::compress(&elf, 1).unwrap()),
        ];
        for (path, bytes) in cases {
            let unpacked = unpack_module(path, &bytes).unwrap();
            assert_eq!(Modinfo::parse(path, &unpacked).unwrap(), expected, "{path}");
            assert_eq!(module_name(path).as_deref(), Some("virtio_net"));
        }
        for path in ["virtio.o", ".ko", "virtio.ko.bz2"] {
            assert!(unpack_module(path, &elf).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn damaged_modules_are_errors_not_panics(at in 0usize..300, byte: u8, end in 0usize..400) {
            let mut elf = module(INFO);
            let at = at % elf.len();
            elf[at] = byte;
            elf.truncate(end);
            drop(Modinfo::parse("x.ko", &elf));
        }
    }
}
