//! A file as a block device, through the kernel's loop driver.
//!
//! It is the only unsafe code of stage1: one `ioctl` takes a number, the other a structure whose
//! layout the kernel fixed (`linux/loop.h`). Devices are read-only and vanish with their last user.
#![expect(unsafe_code, reason = "the loop driver is reached by ioctl only")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use nix::errno::Errno;

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    file: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
struct LoopInfo {
    numbers: [u64; 5],
    more_numbers: [u32; 3],
    flags: u32,
    names: [u8; 160],
    init: [u64; 2],
}

const _: () = assert!(size_of::<LoopConfig>() == 304);

/// Attaches a file to a free device and returns the device with its open file, which has to stay
/// open until the device is mounted.
pub(crate) fn attach(file: &File) -> io::Result<(PathBuf, File)> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")?;
    // SAFETY: this request takes no argument and touches no memory of ours.
    let number = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
    let path = PathBuf::from(format!("/dev/loop{number}"));
    let device = File::open(&path)?;
    let config = LoopConfig {
        file: file.as_raw_fd().unsigned_abs(),
        block_size: 0,
        info: LoopInfo {
            numbers: [0; 5],
            more_numbers: [0; 3],
            flags: READ_ONLY | AUTOCLEAR,
            names: [0; 160],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: the structure has the size and layout that the kernel reads for this request (asserted
    // above), it outlives the call, and the kernel does not write to it.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) })?;
    Ok((path, device))
}
