//! System calls that no safe wrapper covers, each made safe here.
//!
//! It decides nothing; it is the one place of the builder with `unsafe`.
#![expect(
    unsafe_code,
    reason = "seccomp notification, fork and statx have no safe wrapper"
)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::ForkResult;

/// One system call that waits for an answer.
pub(crate) type Notification = libc::seccomp_notif;

/// Forks; only for processes with one thread.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the helper process never starts a thread, so no lock is held by another one and the
    // child may go on as any program does.
    unsafe { nix::unistd::fork() }
}

/// Lets `command` install `filter` on itself before it executes, and send the listener to `socket`.
pub(crate) fn filter_command(
    command: &mut Command,
    filter: Vec<libc::sock_filter>,
    socket: OwnedFd,
) {
    let prepare = move || {
        nix::unistd::setsid()?;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(1024), hard)?;
        nix::sys::prctl::set_no_new_privs()?;
        let listener = install(&filter)?;
        let fds = [listener.as_raw_fd()];
        let iov = [io::IoSlice::new(b"l")];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(socket.as_raw_fd(), &iov, &rights, MsgFlags::empty(), None)?;
        Ok(())
    };
    // SAFETY: the process has one thread (see `fork`), so allocating between fork and exec is
    // sound; nothing called after `install` is a call that waits for the supervisor.
    unsafe { command.pre_exec(prepare) };
}

fn install(filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // Linux 5.19 can leave a waiting call alone when a signal comes; older ones restart it.
    for flags in [
        listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        listener,
    ] {
        // SAFETY: `program` points to `len` instructions that outlive the call, which copies them.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                std::ptr::from_ref(&program),
            )
        };
        if let Ok(fd) = RawFd::try_from(fd)
            && fd >= 0
        {
            return Ok(own(fd));
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            break;
        }
    }
    Err(io::Error::last_os_error())
}

/// Takes a descriptor that the kernel has just handed out.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: callers pass a number that a system call returned to them, and to nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Takes the next notification.
pub(crate) fn next(listener: impl AsFd) -> io::Result<Notification> {
    // SAFETY: the structure is plain integers, for which zero is a value; the kernel demands zeros.
    let mut notification: Notification = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes one `seccomp_notif` to the address, which is one.
    let result = unsafe {
        libc::ioctl(
            listener.as_fd().as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            std::ptr::from_mut(&mut notification),
        )
    };
    nix::errno::Errno::result(result)?;
    Ok(notification)
}

/// Answers a notification; a caller that has died meanwhile is no error.
pub(crate) fn answer(listener: impl AsFd, mut answer: libc::seccomp_notif_resp) -> io::Result<()> {
    // SAFETY: the request reads one `seccomp_notif_resp` from the address, which is one.
    let result = unsafe {
        libc::ioctl(
            listener.as_fd().as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            std::ptr::from_mut(&mut answer),
        )
    };
    match nix::errno::Errno::result(result) {
        Ok(_) | Err(nix::errno::Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Says whether the caller of a notification still waits, so that its pid is still its own.
pub(crate) fn still_waits(listener: impl AsFd, id: u64) -> bool {
    // SAFETY: the request reads one `u64` from the address, which is one.
    let result = unsafe {
        libc::ioctl(
            listener.as_fd().as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
            std::ptr::from_ref(&id),
        )
    };
    result == 0
}

/// Asks the kernel to hand over at once between caller and supervisor (Linux 6.6); else nothing.
pub(crate) fn wake_in_place(listener: impl AsFd) {
    const SYNC_WAKE_UP: libc::c_ulong = 1;
    // SAFETY: this request takes its argument by value.
    unsafe {
        libc::ioctl(
            listener.as_fd().as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
            SYNC_WAKE_UP,
        )
    };
}

/// Asks for the extended status of a file by path.
pub(crate) fn statx(path: &CStr, flags: i32, mask: u32) -> nix::Result<libc::statx> {
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut status: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends in NUL and the kernel writes one `statx` to the address, which is one.
    let result = unsafe {
        libc::statx(
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            mask,
            std::ptr::from_mut(&mut status),
        )
    };
    nix::errno::Errno::result(result)?;
    Ok(status)
}

/// Plain structures of the kernel, which may be copied as bytes.
pub(crate) trait Plain: Copy {}
impl Plain for libc::stat {}
impl Plain for libc::statx {}

/// Copies a plain structure into bytes.
pub(crate) fn bytes_of<T: Plain>(value: &T) -> Vec<u8> {
    // SAFETY: `Plain` types came out of zeroed memory that the kernel filled, so every byte of
    // them, padding included, is initialised; the slice does not outlive the reference.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }
        .to_vec()
}
