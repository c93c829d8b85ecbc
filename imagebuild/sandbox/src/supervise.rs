//! Answers the calls that the filter hands over: owners, attributes, devices, and reading them.
//!
//! It runs inside the sandbox, with the sandbox's rights: a script that lies to it gains nothing
//! that it could not do itself. It never changes an owner on disk.

use std::ffi::{CString, OsStr};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use crate::ownership::{Device, DeviceKind, Inode, Owner, Ownership};
use crate::sys::{self, Notification};
use crate::uname;

const PATH_MAX: usize = 4096;
const XATTR_MAX: usize = 64 << 10;

/// What the caller of a notified call gets.
#[derive(Debug)]
enum Answer {
    /// The kernel goes on with the call.
    Continue,
    /// The call returns this.
    Value(i64),
}

/// A failure of the caller's, as its `errno`.
type Refused = nix::errno::Errno;

/// The supervisor's state: the table, and how much it was asked.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    pub(crate) owners: Ownership,
    pub(crate) answered: u64,
}

impl Supervisor {
    /// Takes one notification from the listener and answers it.
    pub(crate) fn serve(&mut self, listener: &OwnedFd) -> io::Result<()> {
        let asked = match sys::next(listener.as_fd()) {
            Ok(asked) => asked,
            // The caller died before it was heard, or a signal came.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.answered += 1;
        let call = Call {
            asked: &asked,
            listener,
        };
        let (val, error, flags) = match self.decide(&call) {
            Ok(Answer::Continue) => (0, 0, CONTINUE),
            Ok(Answer::Value(value)) => (value, 0, 0),
            Err(refused) => (0, -(refused as i32), 0),
        };
        self.owners.prune();
        sys::answer(
            listener,
            libc::seccomp_notif_resp {
                id: asked.id,
                val,
                error,
                flags,
            },
        )
    }

    fn decide(&mut self, call: &Call<'_>) -> Result<Answer, Refused> {
        match call.number() {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_stat => self.stat(call, &call.at_cwd(0, Last::Follow)?, 1),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_lstat => self.stat(call, &call.at_cwd(0, Last::Keep)?, 1),
            libc::SYS_fstat => self.stat(call, &call.descriptor(0), 1),
            libc::SYS_newfstatat => self.stat(call, &call.at(0, 1, 3)?, 2),
            libc::SYS_statx => self.statx(call),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chown => self.chown(call, &call.at_cwd(0, Last::Follow)?, 1),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_lchown => self.chown(call, &call.at_cwd(0, Last::Keep)?, 1),
            libc::SYS_fchown => self.chown(call, &call.descriptor(0), 1),
            libc::SYS_fchownat => self.chown(call, &call.at(0, 1, 4)?, 2),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mknod => self.mknod(call, libc::AT_FDCWD, 0),
            libc::SYS_mknodat => self.mknod(call, call.int(0), 1),
            libc::SYS_setxattr => self.set_xattr(call, &call.at_cwd(0, Last::Follow)?),
            libc::SYS_lsetxattr => self.set_xattr(call, &call.at_cwd(0, Last::Keep)?),
            libc::SYS_fsetxattr => self.set_xattr(call, &call.descriptor(0)),
            libc::SYS_getxattr => self.xattr(call, &call.at_cwd(0, Last::Follow)?),
            libc::SYS_lgetxattr => self.xattr(call, &call.at_cwd(0, Last::Keep)?),
            libc::SYS_fgetxattr => self.xattr(call, &call.descriptor(0)),
            libc::SYS_listxattr => self.list_xattrs(call, &call.at_cwd(0, Last::Follow)?),
            libc::SYS_llistxattr => self.list_xattrs(call, &call.at_cwd(0, Last::Keep)?),
            libc::SYS_flistxattr => self.list_xattrs(call, &call.descriptor(0)),
            libc::SYS_uname => {
                call.write(0, &uname::answer())?;
                Ok(Answer::Value(0))
            }
            libc::SYS_removexattr => self.remove_xattr(call, &call.at_cwd(0, Last::Follow)?),
            libc::SYS_lremovexattr => self.remove_xattr(call, &call.at_cwd(0, Last::Keep)?),
            libc::SYS_fremovexattr => self.remove_xattr(call, &call.descriptor(0)),
            _ => Ok(Answer::Continue),
        }
    }

    /// Reading a status is nearly always the kernel's: only files in the table are answered here.
    fn stat(&self, call: &Call<'_>, at: &At, buffer: usize) -> Result<Answer, Refused> {
        let Ok(mut status) = at.stat() else {
            return Ok(Answer::Continue);
        };
        let Some(owner) = self.owners.of(status.st_dev, status.st_ino) else {
            return Ok(Answer::Continue);
        };
        (status.st_uid, status.st_gid) = (owner.uid, owner.gid);
        if let Some(device) = owner.device {
            status.st_mode = status.st_mode & !libc::S_IFMT | type_bits(device.kind);
            status.st_rdev = libc::makedev(device.major, device.minor);
        }
        call.write(buffer, &sys::bytes_of(&status))?;
        Ok(Answer::Value(0))
    }

    fn statx(&self, call: &Call<'_>) -> Result<Answer, Refused> {
        let at = call.at(0, 1, 2)?;
        let Ok(found) = at.stat() else {
            return Ok(Answer::Continue);
        };
        let Some(owner) = self.owners.of(found.st_dev, found.st_ino) else {
            return Ok(Answer::Continue);
        };
        let synchronise = call.int(2) & libc::AT_STATX_SYNC_TYPE;
        let path = CString::new(at.path.as_os_str().as_bytes()).map_err(|_| Refused::EINVAL)?;
        let mask = u32::try_from(call.argument(3) & 0xffff_ffff).map_err(|_| Refused::EINVAL)?;
        let mut status = sys::statx(&path, synchronise | at.last.flag(), mask)?;
        (status.stx_uid, status.stx_gid) = (owner.uid, owner.gid);
        if let Some(device) = owner.device {
            let kind = u16::try_from(type_bits(device.kind)).map_err(|_| Refused::EINVAL)?;
            status.stx_mode = status.stx_mode & 0o7777 | kind;
            (status.stx_rdev_major, status.stx_rdev_minor) = (device.major, device.minor);
        }
        call.write(4, &sys::bytes_of(&status))?;
        Ok(Answer::Value(0))
    }

    /// Returns what is known of a file, to be changed and recorded again.
    fn owner(&self, inode: Inode) -> Owner {
        let known = self.owners.of(inode.dev, inode.ino);
        known.cloned().unwrap_or_default()
    }

    fn chown(&mut self, call: &Call<'_>, at: &At, first: usize) -> Result<Answer, Refused> {
        let (file, inode, mode) = at.open()?;
        if !call.still_waits() {
            return Ok(Answer::Continue);
        }
        let mut owner = self.owner(inode);
        if let Some(uid) = call.id(first) {
            owner.uid = uid;
        }
        if let Some(gid) = call.id(first + 1) {
            owner.gid = gid;
        }
        // A new owner inherits no privilege: the kernel drops these for root, too.
        if mode & libc::S_IFMT == libc::S_IFREG {
            owner.xattrs.remove("security.capability");
            let setgid = if mode & 0o010 != 0 { 0o2000 } else { 0 };
            let safe = mode & 0o7777 & !(0o4000 | setgid);
            if safe != mode & 0o7777 {
                fs::set_permissions(magic(&file), Permissions::from_mode(safe)).map_err(errno)?;
            }
        }
        self.owners.record(inode, owner, Some(file));
        Ok(Answer::Value(0))
    }

    fn mknod(&mut self, call: &Call<'_>, dirfd: i32, first: usize) -> Result<Answer, Refused> {
        let mode = u32::try_from(call.argument(first + 1) & 0xffff).map_err(|_| Refused::EINVAL)?;
        let kind = match mode & libc::S_IFMT {
            libc::S_IFCHR => DeviceKind::Character,
            libc::S_IFBLK => DeviceKind::Block,
            _ => return Ok(Answer::Continue),
        };
        let number = call.argument(first + 2);
        let device = Device {
            kind,
            major: libc::major(number),
            minor: libc::minor(number),
        };
        let at = call.resolve(dirfd, first, Last::Keep)?;
        let umask = call.umask();
        if !call.still_waits() {
            return Ok(Answer::Continue);
        }
        // The filter is not ours, so this is a real call; the mode is set past our own umask.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&at.path)
            .map_err(errno)?;
        let permissions = Permissions::from_mode(mode & 0o7777 & !umask);
        file.set_permissions(permissions).map_err(errno)?;
        let found = file.metadata().map_err(errno)?;
        let inode = Inode {
            dev: found.dev(),
            ino: found.ino(),
        };
        let pin = crate::ownership::open_path(&at.path).ok();
        self.owners.record(
            inode,
            Owner {
                device: Some(device),
                ..Owner::default()
            },
            pin,
        );
        Ok(Answer::Value(0))
    }

    fn set_xattr(&mut self, call: &Call<'_>, at: &At) -> Result<Answer, Refused> {
        let name = call.attribute_name()?;
        if !kept(&name) {
            return Err(Refused::EOPNOTSUPP);
        }
        let length = usize::try_from(call.argument(3)).map_err(|_| Refused::E2BIG)?;
        if length > XATTR_MAX {
            return Err(Refused::E2BIG);
        }
        let value = call.read(2, length)?;
        let (file, inode, _) = at.open()?;
        if !call.still_waits() {
            return Ok(Answer::Continue);
        }
        let mut owner = self.owner(inode);
        owner.xattrs.insert(name, value);
        self.owners.record(inode, owner, Some(file));
        Ok(Answer::Value(0))
    }

    fn remove_xattr(&mut self, call: &Call<'_>, at: &At) -> Result<Answer, Refused> {
        let name = call.attribute_name()?;
        if !kept(&name) {
            return Ok(Answer::Continue);
        }
        let (file, inode, _) = at.open()?;
        let mut owner = self.owner(inode);
        owner.xattrs.remove(&name).ok_or(Refused::ENODATA)?;
        self.owners.record(inode, owner, Some(file));
        Ok(Answer::Value(0))
    }

    fn xattr(&self, call: &Call<'_>, at: &At) -> Result<Answer, Refused> {
        let name = call.attribute_name()?;
        if !kept(&name) {
            return Ok(Answer::Continue);
        }
        let found = at.stat()?;
        let owner = self.owners.of(found.st_dev, found.st_ino);
        let value = owner
            .and_then(|owner| owner.xattrs.get(&name))
            .ok_or(Refused::ENODATA)?;
        call.give(2, value)
    }

    fn list_xattrs(&self, call: &Call<'_>, at: &At) -> Result<Answer, Refused> {
        let found = at.stat()?;
        let Some(owner) = self.owners.of(found.st_dev, found.st_ino) else {
            return Ok(Answer::Continue);
        };
        let names: Vec<u8> = owner
            .xattrs
            .keys()
            .flat_map(|name| name.bytes().chain([0]))
            .collect();
        call.give(1, &names)
    }
}

const CONTINUE: u32 = 1; // SECCOMP_USER_NOTIF_FLAG_CONTINUE

/// Attributes that an image can hold; lists of access rights need a map of many users.
fn kept(name: &str) -> bool {
    name == "security.capability" || name.starts_with("user.")
}

fn type_bits(kind: DeviceKind) -> u32 {
    match kind {
        DeviceKind::Character => libc::S_IFCHR,
        DeviceKind::Block => libc::S_IFBLK,
    }
}

fn errno(error: impl Into<io::Error>) -> Refused {
    Refused::from_raw(error.into().raw_os_error().unwrap_or(libc::EIO))
}

fn magic(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Whether the last component of a path is followed when it is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Follow,
    Keep,
}

impl Last {
    fn flag(self) -> i32 {
        match self {
            Self::Follow => 0,
            Self::Keep => libc::AT_SYMLINK_NOFOLLOW,
        }
    }
}

/// A file as the supervisor sees it.
#[derive(Debug)]
struct At {
    path: PathBuf,
    last: Last,
}

impl At {
    fn stat(&self) -> Result<libc::stat, Refused> {
        match self.last {
            Last::Follow => nix::sys::stat::stat(&self.path),
            Last::Keep => nix::sys::stat::lstat(&self.path),
        }
    }

    fn open(&self) -> Result<(File, Inode, u32), Refused> {
        let flags = libc::O_PATH | self.last_open_flag();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&self.path)
            .map_err(errno)?;
        let found = file.metadata().map_err(errno)?;
        Ok((
            file,
            Inode {
                dev: found.dev(),
                ino: found.ino(),
            },
            found.mode(),
        ))
    }

    fn last_open_flag(&self) -> i32 {
        match self.last {
            Last::Follow => 0,
            Last::Keep => libc::O_NOFOLLOW,
        }
    }
}

/// One call of one thread.
struct Call<'a> {
    asked: &'a Notification,
    listener: &'a OwnedFd,
}

impl Call<'_> {
    fn number(&self) -> libc::c_long {
        self.asked.data.nr.into()
    }

    fn thread(&self) -> u32 {
        self.asked.pid
    }

    fn argument(&self, index: usize) -> u64 {
        self.asked.data.args.get(index).copied().unwrap_or_default()
    }

    /// Takes an argument as the C `int` that it is.
    fn int(&self, index: usize) -> i32 {
        let [a, b, c, d, ..] = self.argument(index).to_le_bytes();
        i32::from_le_bytes([a, b, c, d])
    }

    /// Takes an argument as an owner's number; -1 means to leave it.
    fn id(&self, index: usize) -> Option<u32> {
        let [a, b, c, d, ..] = self.argument(index).to_le_bytes();
        Some(u32::from_le_bytes([a, b, c, d])).filter(|id| *id != u32::MAX)
    }

    fn still_waits(&self) -> bool {
        sys::still_waits(self.listener.as_fd(), self.asked.id)
    }

    fn descriptor(&self, index: usize) -> At {
        let path = format!("/proc/{}/fd/{}", self.thread(), self.int(index));
        At {
            path: path.into(),
            last: Last::Follow,
        }
    }

    fn at_cwd(&self, path: usize, last: Last) -> Result<At, Refused> {
        self.resolve(libc::AT_FDCWD, path, last)
    }

    /// A path beside a directory, with `AT_` flags.
    fn at(&self, dirfd: usize, path: usize, flags: usize) -> Result<At, Refused> {
        let flags = self.int(flags);
        let keep = flags & libc::AT_SYMLINK_NOFOLLOW != 0;
        let last = if keep { Last::Keep } else { Last::Follow };
        if flags & libc::AT_EMPTY_PATH != 0 && self.path(path)?.as_os_str().is_empty() {
            let path = match self.int(dirfd) {
                libc::AT_FDCWD => format!("/proc/{}/cwd", self.thread()),
                fd => format!("/proc/{}/fd/{fd}", self.thread()),
            };
            return Ok(At {
                path: path.into(),
                last: Last::Follow,
            });
        }
        self.resolve(self.int(dirfd), path, last)
    }

    /// Turns the caller's path into one that means the same to us: we share its root, and reach
    /// its directories through `/proc`.
    fn resolve(&self, dirfd: i32, path: usize, last: Last) -> Result<At, Refused> {
        let thread = self.thread();
        let path = self.path(path)?;
        if path.as_os_str().is_empty() {
            return Err(Refused::ENOENT);
        }
        if !path.is_absolute() {
            let base = match dirfd {
                libc::AT_FDCWD => format!("/proc/{thread}/cwd"),
                fd => format!("/proc/{thread}/fd/{fd}"),
            };
            return Ok(At {
                path: Path::new(&base).join(path),
                last,
            });
        }
        // These name the caller, so they would name us when we say them.
        for (own, theirs) in [
            ("/proc/self", format!("/proc/{thread}")),
            ("/proc/thread-self", format!("/proc/{thread}")),
            ("/dev/fd", format!("/proc/{thread}/fd")),
            ("/dev/stdin", format!("/proc/{thread}/fd/0")),
            ("/dev/stdout", format!("/proc/{thread}/fd/1")),
            ("/dev/stderr", format!("/proc/{thread}/fd/2")),
        ] {
            if let Ok(rest) = path.strip_prefix(own)
                && (!rest.as_os_str().is_empty() || last == Last::Follow)
            {
                let theirs = PathBuf::from(theirs);
                let empty = rest.as_os_str().is_empty();
                return Ok(At {
                    path: if empty { theirs } else { theirs.join(rest) },
                    last,
                });
            }
        }
        let root = PathBuf::from(format!("/proc/{thread}/root"));
        let same = fs::read_link(&root).is_ok_and(|target| target == Path::new("/"));
        Ok(At {
            path: if same { path } else { below(&root, &path)? },
            last,
        })
    }

    fn path(&self, index: usize) -> Result<PathBuf, Refused> {
        if self.argument(index) == 0 {
            return Ok(PathBuf::new());
        }
        Ok(std::ffi::OsString::from_vec(self.text(index)?).into())
    }

    fn attribute_name(&self) -> Result<String, Refused> {
        String::from_utf8(self.text(1)?).map_err(|_| Refused::EOPNOTSUPP)
    }

    /// Reads text up to its NUL.
    fn text(&self, index: usize) -> Result<Vec<u8>, Refused> {
        let mut bytes = self.read_some(index, PATH_MAX)?;
        let end = bytes
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(Refused::ENAMETOOLONG)?;
        bytes.truncate(end);
        Ok(bytes)
    }

    fn read(&self, index: usize, length: usize) -> Result<Vec<u8>, Refused> {
        let bytes = self.read_some(index, length)?;
        if bytes.len() == length {
            Ok(bytes)
        } else {
            Err(Refused::EFAULT)
        }
    }

    /// Reads up to `length` bytes, fewer where the caller's memory ends.
    fn read_some(&self, index: usize, length: usize) -> Result<Vec<u8>, Refused> {
        const PAGE: usize = 4096;
        if length == 0 {
            return Ok(Vec::new());
        }
        let start = usize::try_from(self.argument(index)).map_err(|_| Refused::EFAULT)?;
        let end = start.checked_add(length).ok_or(Refused::EFAULT)?;
        // A transfer stops at the first piece with a hole, so pieces end where pages end.
        let mut pieces = Vec::new();
        let mut base = start;
        while base < end {
            let next = (base / PAGE + 1).saturating_mul(PAGE).min(end);
            pieces.push(RemoteIoVec {
                base,
                len: next - base,
            });
            base = next;
        }
        let mut bytes = vec![0; length];
        let pid = i32::try_from(self.thread()).map_err(|_| Refused::ESRCH)?;
        let mut into = [IoSliceMut::new(&mut bytes)];
        let read = process_vm_readv(Pid::from_raw(pid), &mut into, &pieces)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    fn write(&self, index: usize, bytes: &[u8]) -> Result<(), Refused> {
        let memory = OpenOptions::new()
            .write(true)
            .open(format!("/proc/{}/mem", self.thread()))
            .map_err(errno)?;
        if !self.still_waits() {
            return Err(Refused::ESRCH);
        }
        memory
            .write_all_at(bytes, self.argument(index))
            .map_err(|_| Refused::EFAULT)
    }

    /// Hands bytes to a call that takes a buffer and its size, or asks for the size.
    fn give(&self, buffer: usize, bytes: &[u8]) -> Result<Answer, Refused> {
        let room = self.argument(buffer + 1);
        let length = bytes.len() as u64;
        if room != 0 {
            if room < length {
                return Err(Refused::ERANGE);
            }
            self.write(buffer, bytes)?;
        }
        Ok(Answer::Value(length.cast_signed()))
    }

    fn umask(&self) -> u32 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.thread()));
        let status = status.unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        umask
            .and_then(|text| u32::from_str_radix(text.trim(), 8).ok())
            .unwrap_or(0o022)
    }
}

/// Resolves an absolute path below a root that is not ours, as for a program in a `chroot`.
fn below(root: &Path, path: &Path) -> Result<PathBuf, Refused> {
    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
    let name = path.file_name().unwrap_or(OsStr::new("."));
    let parent = path.parent().unwrap_or(Path::new("/"));
    let root = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(root)
        .map_err(errno)?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let parent = openat2(&root, parent, how)?;
    let real = fs::read_link(magic(&File::from(parent))).map_err(errno)?;
    Ok(real.join(name))
}
