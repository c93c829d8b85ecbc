//! The kernel's device mapper: a device whose blocks are checked when they are read.
//!
//! Its unsafe code is one `ioctl`: the kernel reads and writes a buffer that says how long it is. What stands in the
//! buffer is put together, and taken apart, as bytes (`linux/dm-ioctl.h`).
#![expect(unsafe_code, reason = "the device mapper is reached by ioctl only")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use nix::errno::Errno;

const CONTROL: &str = "/dev/mapper/control";
/// Bytes of `struct dm_ioctl`, and of `struct dm_target_spec` behind it.
const HEAD: usize = 312;
const TARGET: usize = 40;
/// Where the kernel writes the number of the device.
const DEVICE: usize = 40;
const NAME: usize = 48;
const UUID: usize = 176;
const READ_ONLY: u32 = 1;
/// The kernel's own limit is far above; a table of ours has some 300 bytes.
const LONGEST_TABLE: usize = 4096;

/// What the device mapper is asked for.
#[derive(Clone, Copy)]
enum Request {
    Create = 3,
    /// Without a flag that says otherwise: the table that was loaded is taken.
    Resume = 6,
    Load = 9,
}

/// A device of the device mapper.
#[derive(Debug)]
pub(crate) struct Mapped {
    control: File,
    name: &'static str,
    /// Where its blocks are read.
    pub(crate) path: PathBuf,
}

impl Mapped {
    /// Makes a device without content.
    pub(crate) fn create(name: &'static str, uuid: &str) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open(CONTROL)?;
        let mut buffer = head(name, HEAD);
        // A place for a last NUL is left.
        if uuid.len() < 128 {
            buffer[UUID..UUID + uuid.len()].copy_from_slice(uuid.as_bytes());
        }
        call(&control, Request::Create, &mut buffer)?;
        let path = PathBuf::from(format!("/dev/dm-{}", minor(&buffer)));
        Ok(Self {
            control,
            name,
            path,
        })
    }

    /// Gives it one target over all of its sectors, read-only, in place of what it had.
    pub(crate) fn map(&self, sectors: u64, target: &str, table: &str) -> io::Result<()> {
        let mut buffer = load(self.name, sectors, target, table);
        call(&self.control, Request::Load, &mut buffer)?;
        call(&self.control, Request::Resume, &mut head(self.name, HEAD))
    }
}

/// Asks the kernel.
fn call(control: &File, request: Request, buffer: &mut [u8]) -> io::Result<()> {
    // `_IOWR(DM_IOCTL, request, struct dm_ioctl)`.
    let number = 0xC000_FD00 | (HEAD as libc::Ioctl) << 16 | request as libc::Ioctl;
    // SAFETY: the kernel reads and writes as many bytes as the buffer says it has (`head` wrote its length
    // there), and the buffer outlives the call.
    Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), number, buffer.as_mut_ptr()) })?;
    Ok(())
}

/// Writes what every request begins with, into a buffer of that many bytes.
fn head(name: &str, length: usize) -> Vec<u8> {
    let mut buffer = vec![0; length];
    // Version 4.0.0 is what every kernel since 2.6 understands.
    buffer[0] = 4;
    let size = u32::try_from(length).unwrap_or_default();
    buffer[12..16].copy_from_slice(&size.to_le_bytes());
    let data = u32::try_from(HEAD).unwrap_or_default();
    buffer[16..20].copy_from_slice(&data.to_le_bytes());
    buffer[NAME..NAME + name.len()].copy_from_slice(name.as_bytes());
    buffer
}

/// Writes a request that loads one target.
fn load(name: &str, sectors: u64, target: &str, table: &str) -> Vec<u8> {
    let table = &table.as_bytes()[..table.len().min(LONGEST_TABLE)];
    // The line ends in a NUL, and what is behind it begins at a multiple of eight.
    let length = (TARGET + table.len() + 1).next_multiple_of(8);
    let mut buffer = head(name, HEAD + length);
    buffer[20..24].copy_from_slice(&1u32.to_le_bytes());
    buffer[28..32].copy_from_slice(&READ_ONLY.to_le_bytes());
    let entry = &mut buffer[HEAD..];
    entry[8..16].copy_from_slice(&sectors.to_le_bytes());
    entry[20..24].copy_from_slice(&u32::try_from(length).unwrap_or_default().to_le_bytes());
    entry[24..24 + target.len()].copy_from_slice(target.as_bytes());
    entry[TARGET..TARGET + table.len()].copy_from_slice(table);
    buffer
}

/// Reads the device's own part of its number, which the kernel cuts in two (`new_encode_dev`).
fn minor(buffer: &[u8]) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&buffer[DEVICE..DEVICE + 4]);
    let number = u32::from_le_bytes(number);
    number & 0xff | (number >> 12) & 0xf_ff00
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_kernels_layout() {
        let buffer = load("root", 0x0102, "verity", "1 a b");
        assert_eq!(buffer.len(), HEAD + 48);
        let expected: [(usize, &[u8]); 10] = [
            (0, &[4, 0, 0, 0, 0]),
            (12, &[0x68, 1, 0, 0]),
            (16, &[0x38, 1, 0, 0]),
            (20, &[1, 0, 0, 0]),
            (28, &[1, 0, 0, 0]),
            (NAME, b"root\0"),
            (HEAD, &[0; 8]),
            (HEAD + 8, &[2, 1, 0, 0, 0, 0, 0, 0]),
            (HEAD + 20, &[48, 0, 0, 0, b'v', b'e']),
            (HEAD + TARGET, b"1 a b\0\0\0"),
        ];
        for (at, bytes) in expected {
            assert_eq!(buffer[at..at + bytes.len()], *bytes, "at {at}");
        }
    }

    #[test]
    fn a_device_number_is_put_together_again() {
        let cases = [(0x0000_fe00, 0), (0x0000_fe07, 7), (0x0010_fe07, 0x107)];
        for (number, expected) in cases {
            let mut buffer = vec![0; HEAD];
            buffer[DEVICE..DEVICE + 4].copy_from_slice(&u32::to_le_bytes(number));
            assert_eq!(minor(&buffer), expected, "{number:x}");
        }
    }
}
