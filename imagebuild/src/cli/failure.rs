//! Why a verb failed, and the exit code that says so.
//!
//! It refuses to be one for all: what a person can do about it depends on which it is.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use image_manifest::layout;
use imagebuild::definition::Problem;
use imagebuild::fetch::{self, Fault};
use imagebuild::lock::{self, StaleLock};
use imagebuild::{assemble, cache, export, forms, mirror, publish, registry, verify};

use super::machine::MachineError;

/// The exit codes, other than 0 (done) and 2 (bad usage, which clap answers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// It failed.
    Failed = 1,
    /// The definition, the lock or the mirror settings are bad: a retry gives the same.
    Configuration = 3,
    /// A remote is unreachable or refused: a retry may help.
    Remote = 4,
    /// A locked package is gone: every source was asked and does not have it. A retry gives the same.
    Gone = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Fault> for Exit {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Configuration => Self::Configuration,
            Fault::Remote => Self::Remote,
            Fault::Gone => Self::Gone,
            Fault::Untrusted | Fault::Machine => Self::Failed,
        }
    }
}

/// Why a verb failed.
#[derive(Debug)]
pub(super) enum Failure {
    Problems(Vec<Problem>),
    Resolve(lock::RunError),
    Lock(lock::Error),
    Stale(StaleLock),
    Mirror(mirror::Error),
    Cache(cache::Error),
    Fetch(fetch::Error),
    Assemble(assemble::Error),
    Store(layout::Error),
    Verify(verify::Error),
    Forms(forms::Error),
    Export(export::Error),
    Container(export::container::Error),
    Registry(Box<registry::Error>),
    Machine(Box<MachineError>),
    Publish(Box<publish::Error>),
    /// What a verb of its own has to say, and what may be done about it.
    Told(Box<dyn Error + Send + Sync>, Exit),
    Start(io::Error),
    Print(io::Error),
}

impl Failure {
    pub(super) fn told(error: impl Error + Send + Sync + 'static, exit: Exit) -> Self {
        Self::Told(Box::new(error), exit)
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Problems(_) | Self::Lock(_) | Self::Stale(_) | Self::Mirror(_) => {
                Exit::Configuration
            }
            Self::Told(_, exit) => *exit,
            Self::Resolve(error) => error.fault().into(),
            Self::Fetch(error) => error.fault().into(),
            Self::Assemble(error) if error.is_of_the_definition() => Exit::Configuration,
            Self::Registry(error) if error.is_remote() => Exit::Remote,
            Self::Publish(error) if error.is_remote() => Exit::Remote,
            Self::Publish(error) if error.is_of_the_targets() => Exit::Configuration,
            _ => Exit::Failed,
        }
    }

    /// What failed, with its chain of causes; problems of definitions are underlined instead.
    pub(super) fn error(&self) -> &(dyn Error + 'static) {
        match self {
            Self::Problems(problems) => match problems.first() {
                Some(problem) => problem,
                None => &std::fmt::Error,
            },
            Self::Told(error, _) => &**error,
            Self::Resolve(error) => error,
            Self::Lock(error) => error,
            Self::Stale(error) => error,
            Self::Mirror(error) => error,
            Self::Cache(error) => error,
            Self::Fetch(error) => error,
            Self::Assemble(error) => error,
            Self::Store(error) => error,
            Self::Verify(error) => error,
            Self::Forms(error) => error,
            Self::Export(error) => error,
            Self::Container(error) => error,
            Self::Registry(error) => &**error,
            Self::Machine(error) => &**error,
            Self::Publish(error) => &**error,
            Self::Start(error) | Self::Print(error) => error,
        }
    }

    /// What a person may do about it.
    pub(super) fn help(&self) -> Option<&'static str> {
        match self {
            Self::Fetch(error) => error.help(),
            Self::Registry(error) => error.help(),
            Self::Machine(error) => error.help(),
            Self::Publish(error) => error.help(),
            Self::Verify(verify::Error::Damaged { .. }) => {
                Some("`imagebuild build --rebuild` writes the artifact again")
            }
            Self::Store(layout::Error::NotALayout { .. }) => {
                Some("give `--store` an empty or absent directory, or one that `imagebuild` made")
            }
            _ if is_full(self.error()) => Some(
                "a disk is full; the tree is made in `--work`, the image in `--store`: each may be on another one",
            ),
            _ => None,
        }
    }
}

/// Whether the last reason is that something has no room.
fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let reason = error.downcast_ref::<io::Error>();
        if reason.is_some_and(|reason| reason.kind() == io::ErrorKind::StorageFull) {
            return true;
        }
        next = error.source();
    }
    false
}
