//! What is written down before something destructive is done, so that a crash cannot make it happen twice.

use std::future::Future;
use std::pin::Pin;

use crate::bmc::{OperationId, ResetKind};

/// A step of a `cycle once`, written down before it is taken.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Power off is about to be sent; it is never sent again for this operation.
    Off,
    /// The host was seen off; from here on it only has to be turned on.
    SeenOff,
    /// The host was seen on again: nothing is left to do.
    Done,
}

/// A journal that could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// What a journal answers later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// Where the steps of an operation are written down; durable before [`Journal::record`] is done.
pub trait Journal: Send + Sync {
    /// The last step that was recorded of `operation`.
    fn last<'a>(&'a self, operation: &'a OperationId) -> Later<'a, Option<Step>>;

    /// Records that `step` of `operation` is about to be taken.
    fn record<'a>(&'a self, operation: &'a OperationId, step: Step) -> Later<'a, ()>;

    /// Records that `kind`, which takes the power from a running host, is about to be sent, whatever the intent.
    /// After a failure it is not sent, so this is also the last moment at which it can be called off.
    ///
    /// By default nothing is recorded: for who does not need to know after a crash whether anything was sent.
    fn about(&self, kind: ResetKind) -> Later<'_, ()> {
        let _ = kind;
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A journal in memory, for simulated hosts: it does not outlive its process.
#[cfg(any(test, feature = "sim"))]
#[derive(Debug, Default)]
pub struct Memory(std::sync::Mutex<std::collections::BTreeMap<OperationId, Step>>);

#[cfg(any(test, feature = "sim"))]
impl Memory {
    fn steps(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeMap<OperationId, Step>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(any(test, feature = "sim"))]
impl Journal for Memory {
    fn last<'a>(&'a self, operation: &'a OperationId) -> Later<'a, Option<Step>> {
        Box::pin(std::future::ready(Ok(self.steps().get(operation).copied())))
    }

    fn record<'a>(&'a self, operation: &'a OperationId, step: Step) -> Later<'a, ()> {
        self.steps().insert(operation.clone(), step);
        Box::pin(std::future::ready(Ok(())))
    }
}
