//! The outside: starts the helper, gives it programs to run, and takes back who owns what.
//!
//! It never enters a namespace itself, so it may be used from any thread of the builder.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::emulate::Emulator;
use crate::ownership::Ownership;
use crate::wire::{Event, Order, receive, send};
use crate::{refusal, worker};

/// Bytes of output that are kept: the end of it, where the failure is told.
const OUTPUT_MAX: usize = 64 << 10;

/// The first argument that makes a program the helper.
pub const HELPER_ARGUMENT: &str = "__sandbox";

/// Why a sandbox could not be entered, or a program in it not be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The helper is not there, or cannot be executed.
    #[error("failed to start the sandbox helper `{helper}`")]
    Start {
        /// The executable.
        helper: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The tree could not be given to the user as whom scripts run.
    #[error("failed to hand the tree at `{root}` to the user who runs the scripts")]
    HandOver {
        /// The tree.
        root: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a step of the set-up.
    #[error("the sandbox could not {step}; {remedy}")]
    Refused {
        /// The step.
        step: String,
        /// What a person can do about it.
        remedy: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program to run could not be executed.
    #[error("failed to start `{program}` in the sandbox")]
    Program {
        /// The program.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program is of another processor, and this kernel knows nobody who runs it.
    #[error(
        "`{program}` is of another processor: Linux 6.7 lets a sandbox bring its own emulator, before that the computer must have registered one, on Debian by `qemu-user-static` with `binfmt-support`"
    )]
    Processor {
        /// The program.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The program did not end in time, and was killed.
    #[error("`{program}` did not end within {} s", deadline.as_secs())]
    Deadline {
        /// The program.
        program: String,
        /// The time it had.
        deadline: Duration,
    },
    /// The helper ended or said something unexpected.
    #[error("the sandbox ended early")]
    Lost {
        /// What was seen of it.
        source: io::Error,
    },
    /// The tree could not be read when its owners were counted.
    #[error("failed to read the tree at `{root}`")]
    Tree {
        /// The tree.
        root: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It exited with this code.
    Exit(i32),
    /// It was ended by this signal.
    Signal(i32),
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What is left of a program.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// The last 64 KiB that it printed, standard output and error together.
    pub output: Vec<u8>,
}

impl Outcome {
    /// Says whether the program exited with 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.status == Status::Exit(0)
    }

    /// Returns the last lines of the output as text.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> String {
        let text = String::from_utf8_lossy(&self.output);
        let lines: Vec<&str> = text.trim_end().lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

/// A tree, and how programs run in it.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The directory that becomes `/`; it belongs to the user who calls, and if that is root, then
    /// to an unprivileged user from the first program on.
    pub root: PathBuf,
    /// An executable that calls [`child_main`](crate::child_main) when its first argument is
    /// [`HELPER_ARGUMENT`]; the builder names itself.
    pub helper: PathBuf,
    /// The whole environment of the programs.
    pub env: Vec<(OsString, OsString)>,
    /// The time that one program has.
    pub deadline: Duration,
    /// Who runs the tree's programs, when they are of another processor than this computer's.
    pub emulator: Option<Emulator>,
}

impl Sandbox {
    /// A sandbox on a tree, with a plain environment and ten minutes for each program.
    pub fn new(root: impl Into<PathBuf>, helper: impl Into<PathBuf>) -> Self {
        let env = [
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
        ];
        Self {
            root: root.into(),
            helper: helper.into(),
            env: env.map(|(name, value)| (name.into(), value.into())).into(),
            deadline: Duration::from_mins(10),
            emulator: None,
        }
    }

    /// Runs one program and updates the table of owners.
    ///
    /// # Errors
    /// When the sandbox or the program cannot be started, or does not end in time. A program that
    /// fails is no error: see [`Outcome::status`].
    pub fn run<S: AsRef<OsStr>>(
        &self,
        argv: &[S],
        owners: &mut Ownership,
    ) -> Result<Outcome, Error> {
        let mut session = self.enter(owners)?;
        let outcome = session.run(argv)?;
        session.leave(owners)?;
        Ok(outcome)
    }

    /// Enters the tree, for several programs.
    ///
    /// When root builds, the tree is handed to the user as whom the programs run: what the builder
    /// writes into it afterwards needs [`hand_over`](crate::hand_over) before they can change it.
    ///
    /// # Errors
    /// When the helper cannot be started or the kernel refuses the namespaces.
    pub fn enter(&self, owners: &Ownership) -> Result<Session, Error> {
        let start = |source| Error::Start {
            helper: self.helper.clone(),
            source,
        };
        let root = std::path::absolute(&self.root).map_err(start)?;
        let hand = |source| Error::HandOver {
            root: root.clone(),
            source,
        };
        let worker = worker::find().map_err(hand)?;
        worker::hand_over(&root).map_err(hand)?;
        let (control, theirs) = UnixStream::pair().map_err(start)?;
        let (output, writer) = io::pipe().map_err(start)?;
        let errors = writer.try_clone().map_err(start)?;
        let child = Command::new(&self.helper)
            .arg(HELPER_ARGUMENT)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(writer)
            .stderr(errors)
            .spawn()
            .map_err(start)?;
        let mut session = Session {
            child,
            control,
            output,
            root,
            env: self.env.clone(),
            deadline: self.deadline,
        };
        let lost = |source| Error::Lost { source };
        let owners = owners
            .iter()
            .map(|(inode, owner)| (inode, owner.clone()))
            .collect();
        let root = session.root.as_os_str().as_bytes().to_vec();
        let order = Order::Enter {
            root,
            worker,
            owners,
            emulator: self.emulator.clone(),
        };
        send(&session.control, &order).map_err(lost)?;
        match session.wait("the sandbox", &mut Tail::default())? {
            Event::Entered => Ok(session),
            Event::Refused { step, errno } => Err(Error::Refused {
                remedy: refusal::remedy(&step, errno),
                step,
                source: io::Error::from_raw_os_error(errno),
            }),
            other => Err(unexpected(&other)),
        }
    }
}

/// An entered sandbox. Dropped, it ends with every process in it.
#[derive(Debug)]
pub struct Session {
    child: Child,
    control: UnixStream,
    output: PipeReader,
    root: PathBuf,
    env: Vec<(OsString, OsString)>,
    deadline: Duration,
}

impl Session {
    /// Runs one program to its end; whatever it leaves running is killed.
    ///
    /// # Errors
    /// When it cannot be started, or does not end in time.
    pub fn run<S: AsRef<OsStr>>(&mut self, argv: &[S]) -> Result<Outcome, Error> {
        self.run_with(argv, &[])
    }

    /// Runs one program as [`run`](Self::run) does, with more environment.
    ///
    /// # Errors
    /// When it cannot be started, or does not end in time.
    pub fn run_with<S: AsRef<OsStr>>(
        &mut self,
        argv: &[S],
        more: &[(OsString, OsString)],
    ) -> Result<Outcome, Error> {
        let bytes = |text: &OsStr| text.as_bytes().to_vec();
        let program = argv.first().map_or_else(String::new, |program| {
            program.as_ref().to_string_lossy().into_owned()
        });
        let order = Order::Run {
            argv: argv
                .iter()
                .map(|argument| bytes(argument.as_ref()))
                .collect(),
            env: self
                .env
                .iter()
                .chain(more)
                .map(|(name, value)| (bytes(name), bytes(value)))
                .collect(),
        };
        send(&self.control, &order).map_err(|source| Error::Lost { source })?;
        let mut tail = Tail::default();
        let status = match self.wait(&program, &mut tail)? {
            Event::Exited { code } => Status::Exit(code),
            Event::Killed { signal } => Status::Signal(signal),
            Event::NotStarted { errno } => {
                let source = io::Error::from_raw_os_error(errno);
                return Err(match errno {
                    libc::ENOEXEC => Error::Processor { program, source },
                    _ => Error::Program { program, source },
                });
            }
            other => return Err(unexpected(&other)),
        };
        Ok(Outcome {
            status,
            output: tail.0.into(),
        })
    }

    /// Ends the sandbox and brings the table of owners up to date with the tree.
    ///
    /// # Errors
    /// When the sandbox has ended before, or the tree cannot be read.
    pub fn leave(mut self, owners: &mut Ownership) -> Result<(), Error> {
        send(&self.control, &Order::Leave).map_err(|source| Error::Lost { source })?;
        let event = self.wait("the sandbox", &mut Tail::default())?;
        let Event::Owners {
            owners: found,
            answered,
        } = event
        else {
            return Err(unexpected(&event));
        };
        // The end of the socket is its end; everything else in it has ended already.
        self.control
            .shutdown(std::net::Shutdown::Both)
            .and_then(|()| self.child.wait())
            .map_err(|source| Error::Lost { source })?;
        tracing::debug!(answered, owners = found.len(), "left the sandbox");
        *owners = found.into_iter().collect();
        owners.settle(&self.root).map_err(|source| Error::Tree {
            root: self.root.clone(),
            source,
        })
    }

    /// Returns the tree's directory outside of the sandbox.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Waits for the next event, and takes the output meanwhile.
    fn wait(&mut self, program: &str, tail: &mut Tail) -> Result<Event, Error> {
        let lost = |source: io::Error| Error::Lost { source };
        let end = Instant::now() + self.deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut polled = [
                PollFd::new(self.output.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut polled, timeout) {
                Ok(0) if left <= Duration::from_millis(1) => {
                    let program = program.to_owned();
                    return Err(Error::Deadline {
                        program,
                        deadline: self.deadline,
                    });
                }
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(lost(errno.into())),
            }
            let [printed, spoken] = polled.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
            if printed.contains(PollFlags::POLLIN) {
                tail.take(&mut self.output).map_err(lost)?;
            } else if !spoken.is_empty() {
                // The helper writes its events whole, so this does not wait on a script.
                return receive(&self.control).map_err(lost);
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The inner process dies with the outer one, and every process with the inner one. An
        // error means that they have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn unexpected(event: &Event) -> Error {
    let said = format!("unexpected word: {event:?}")
        .chars()
        .take(200)
        .collect::<String>();
    Error::Lost {
        source: io::Error::other(said),
    }
}

/// The end of an output.
#[derive(Debug, Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn take(&mut self, from: &mut PipeReader) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        let read = from.read(&mut bytes)?;
        self.0.extend(&bytes[..read]);
        let excess = self.0.len().saturating_sub(OUTPUT_MAX);
        self.0.drain(..excess);
        Ok(())
    }
}
