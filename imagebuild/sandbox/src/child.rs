//! The inside: enters the namespaces, and as their first process runs programs and supervises them.
//!
//! It trusts its orders and nothing else; when the builder is gone, it ends, and the kernel ends
//! every process with it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, getegid, geteuid};

use crate::wire::{Event, Order, receive, send};
use crate::{filter, mounts, supervise::Supervisor, sys, uname};

/// A step of the set-up that the kernel refused.
#[derive(Debug)]
pub(crate) struct Refused {
    step: String,
    errno: i32,
}

impl Refused {
    pub(crate) fn new(step: &str, errno: Errno) -> Self {
        Self {
            step: step.to_owned(),
            errno: errno as i32,
        }
    }

    pub(crate) fn io(step: &str, error: &io::Error) -> Self {
        Self {
            step: step.to_owned(),
            errno: error.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

/// Is the helper: what a program does when its first argument is `__sandbox`.
///
/// Its standard input is the socket to the builder, its standard output takes what programs print.
/// It must be called before any thread is started.
#[must_use]
pub fn child_main() -> ExitCode {
    let Ok(control) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let control = UnixStream::from(control);
    let Ok(word) = control.try_clone() else {
        return ExitCode::FAILURE;
    };
    match enter(control) {
        Ok(code) => code,
        Err(Refused { step, errno }) => {
            // The builder waits for a word; when it is gone, no one is left to tell.
            drop(send(&word, &Event::Refused { step, errno }));
            ExitCode::FAILURE
        }
    }
}

/// Enters the namespaces, and forks: the outer process waits, the inner one serves.
fn enter(control: UnixStream) -> Result<ExitCode, Refused> {
    let order = receive(&control).map_err(|e| Refused::io("hear the first order", &e))?;
    let Order::Enter {
        root,
        worker,
        owners,
        emulator,
    } = order
    else {
        return Err(Refused::new("hear the first order", Errno::EPROTO));
    };
    if let Users::Mapper(code) = enter_users(worker)? {
        return Ok(code);
    }
    let others = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(others).map_err(|e| Refused::new("unshare namespaces", e))?;
    mounts::bind(Path::new(OsStr::from_bytes(&root)))?;
    // From here on no process of the sandbox is anybody but the one user of the map.
    if worker.is_some() {
        become_root().map_err(|e| Refused::new("become the user of the map", e))?;
    }
    let null = fs::File::open("/dev/null").map_err(|e| Refused::io("open `/dev/null`", &e))?;
    match sys::fork().map_err(|e| Refused::new("fork", e))? {
        ForkResult::Parent { child } => wait_for(child, control, &null),
        ForkResult::Child => {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
                .map_err(|e| Refused::new("tie to the parent", e))?;
            nix::unistd::dup2_stdin(&null).map_err(|e| Refused::new("close the input", e))?;
            let registry = mounts::enter(emulator.as_ref())?;
            name_host()?;
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
            let mut supervisor = Supervisor {
                owners: owners.into_iter().collect(),
                ..Supervisor::default()
            };
            supervisor.owners.allow_pins(raise_limits());
            let first = First::new(control, supervisor, registry)?;
            // The builder is gone, or will be told by the socket's end.
            Ok(first
                .serve()
                .map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
        }
    }
}

/// Which process is back from [`enter_users`].
enum Users {
    /// The helper, in its user namespace.
    Entered,
    /// A process that stayed behind to write the map, and is to end like this.
    Mapper(ExitCode),
}

/// Enters a user namespace whose only user is the caller, or the worker.
fn enter_users(worker: Option<u32>) -> Result<Users, Refused> {
    let enter = || {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| Refused::new("unshare a user namespace", e))
    };
    let refused = |e: io::Error| Refused::io("map the user", &e);
    let Some(worker) = worker else {
        let (uid, gid) = (geteuid(), getegid());
        enter()?;
        map("self", uid.as_raw(), gid.as_raw()).map_err(refused)?;
        return Ok(Users::Entered);
    };
    // Root alone may map another user, and who has entered is no longer root: so one stays behind.
    nix::unistd::setgroups(&[]).map_err(|e| Refused::new("leave the groups of root", e))?;
    let (mut entered, tell) = io::pipe().map_err(refused)?;
    let helper = Pid::this().to_string();
    match sys::fork().map_err(|e| Refused::new("fork", e))? {
        ForkResult::Child => {
            drop(tell);
            let mapped = io::Read::read_exact(&mut entered, &mut [0])
                .and_then(|()| map(&helper, worker, worker));
            let errno = mapped.map_or_else(|e| e.raw_os_error().unwrap_or(libc::EIO), |()| 0);
            Ok(Users::Mapper(ExitCode::from(
                u8::try_from(errno).unwrap_or(u8::MAX),
            )))
        }
        ForkResult::Parent { child } => {
            drop(entered);
            enter()?;
            (&tell).write_all(b"e").map_err(refused)?;
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) => Ok(Users::Entered),
                Ok(WaitStatus::Exited(_, errno)) => {
                    Err(Refused::new("map the user", Errno::from_raw(errno)))
                }
                Ok(_) => Err(Refused::new("map the user", Errno::EIO)),
                Err(errno) => Err(Refused::new("map the user", errno)),
            }
        }
    }
}

/// Writes the maps of a process that has just entered a user namespace.
fn map(process: &str, uid: u32, gid: u32) -> io::Result<()> {
    let directory = Path::new("/proc").join(process);
    fs::write(directory.join("setgroups"), "deny")?;
    fs::write(directory.join("uid_map"), format!("0 {uid} 1"))?;
    fs::write(directory.join("gid_map"), format!("0 {gid} 1"))
}

/// Becomes root of the user namespace, who is the worker outside of it.
fn become_root() -> nix::Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)
}

/// Names the host of the namespace. The filters of container runtimes refuse that call to whom they let make namespaces;
/// programs ask `uname`, which is answered without the kernel.
fn name_host() -> Result<(), Refused> {
    match nix::unistd::sethostname(uname::HOST) {
        Ok(()) | Err(Errno::EPERM | Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(Refused::new("set the host name", errno)),
    }
}

/// Waits outside of the process namespace; lets go of the socket, so that the builder sees the
/// inner process's end.
fn wait_for(child: Pid, control: UnixStream, null: &fs::File) -> Result<ExitCode, Refused> {
    drop(control);
    let closed = |result: nix::Result<()>| result.map_err(|e| Refused::new("close the socket", e));
    closed(nix::unistd::dup2_stdin(null))?;
    closed(nix::unistd::dup2_stdout(null))?;
    loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::Exited(_, 0)) => return Ok(ExitCode::SUCCESS),
            _ => return Ok(ExitCode::FAILURE),
        }
    }
}

/// Raises the limit of descriptors, and returns how many of them pinned inodes may take.
fn raise_limits() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 0;
    };
    let wanted = hard.min(16384).max(soft);
    let limit = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map_or(soft, |()| wanted);
    usize::try_from(limit / 2).unwrap_or_default()
}

/// The first process of the sandbox.
#[derive(Debug)]
struct First {
    control: UnixStream,
    children: SignalFd,
    supervisor: Supervisor,
    /// Keeps the emulator registered.
    _registry: Option<fs::File>,
}

impl First {
    fn new(
        control: UnixStream,
        supervisor: Supervisor,
        registry: Option<fs::File>,
    ) -> Result<Self, Refused> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGCHLD);
        signals
            .thread_block()
            .map_err(|e| Refused::new("block signals", e))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let children = SignalFd::with_flags(&signals, flags)
            .map_err(|e| Refused::new("listen to signals", e))?;
        Ok(Self {
            control,
            children,
            supervisor,
            _registry: registry,
        })
    }

    /// Does what it is told until the socket ends.
    fn serve(mut self) -> io::Result<()> {
        send(&self.control, &Event::Entered)?;
        loop {
            let event = match receive(&self.control)? {
                Order::Enter { .. } => return Err(io::Error::other("entered twice")),
                Order::Run { argv, env } => self.run(&argv, &env)?,
                Order::Leave => Event::Owners {
                    owners: self
                        .supervisor
                        .owners
                        .iter()
                        .map(|(k, v)| (k, v.clone()))
                        .collect(),
                    answered: self.supervisor.answered,
                },
            };
            send(&self.control, &event)?;
        }
    }

    fn run(&mut self, argv: &[Vec<u8>], env: &[(Vec<u8>, Vec<u8>)]) -> io::Result<Event> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::Stream,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        let text = |bytes: &Vec<u8>| OsStr::from_bytes(bytes).to_owned();
        let Some((program, arguments)) = argv.split_first() else {
            return Ok(Event::NotStarted {
                errno: libc::ENOENT,
            });
        };
        let mut command = Command::new(text(program));
        command.args(arguments.iter().map(text)).env_clear();
        command.envs(env.iter().map(|(name, value)| (text(name), text(value))));
        command.stdin(Stdio::null());
        sys::filter_command(&mut command, filter::program(), theirs);
        let started = command.spawn();
        drop(command);
        let main = match started {
            Ok(child) => Pid::from_raw(child.id().cast_signed()),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                return Ok(Event::NotStarted { errno });
            }
        };
        let listener = take_listener(&ours)?;
        sys::wake_in_place(&listener);
        let event = self.supervise(main, &listener)?;
        // Nothing outlives its program: a daemon would make the next one depend on time.
        match kill(Pid::from_raw(-1), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
        while !matches!(waitpid(Pid::from_raw(-1), None), Err(Errno::ECHILD)) {}
        Ok(event)
    }

    /// Answers calls until the program has ended.
    fn supervise(&mut self, main: Pid, listener: &OwnedFd) -> io::Result<Event> {
        loop {
            let mut polled = [
                PollFd::new(listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let [asked, ended, ordered] =
                polled.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
            if asked.contains(PollFlags::POLLIN) {
                self.supervisor.serve(listener)?;
            }
            if !ended.is_empty() {
                while self.children.read_signal()?.is_some() {}
                if let Some(event) = reap(main)? {
                    return Ok(event);
                }
            }
            // No order is due while a program runs: the builder has gone.
            if !ordered.is_empty() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }
}

/// Collects ended children; returns how `main` ended, when it did.
fn reap(main: Pid) -> io::Result<Option<Event>> {
    let mut event = None;
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == main => {
                event = Some(Event::Exited { code });
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => {
                event = Some(Event::Killed {
                    signal: signal as i32,
                });
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(event),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn take_listener(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut iov = [io::IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part
            && let [fd] = fds[..]
        {
            return Ok(sys::own(fd));
        }
    }
    Err(io::Error::other("the program sent no listener"))
}
