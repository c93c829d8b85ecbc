//! How a simulated BMC misbehaves, adjustable while it runs.
//!
//! It refuses to be subtle: each fault is one that real BMCs have, and it is on or off.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::Identity;

/// One way to misbehave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Changes of power begin only after this time.
    Lag(Duration),
    /// Changes of power are agreed to and not done.
    LiesAboutPower,
    /// Boot overrides are agreed to and not kept.
    LiesAboutBoot,
    /// Of one hundred packets (or requests) in either direction, this many are lost.
    Drop(u8),
    /// Answers leave after this time.
    Late(Duration),
    /// Answers are sent twice.
    Duplicate,
    /// Answers are cut in half.
    Short,
    /// Weaker security is picked than was asked for.
    Downgrade,
    /// The BMC is that of another machine.
    OtherIdentity(Identity),
    /// Credentials are refused, whatever they are.
    Refuse,
    /// No session is free.
    SessionsExhausted,
}

/// The faults of one BMC.
#[derive(Debug, Default)]
pub struct Faults {
    active: Mutex<Vec<Fault>>,
}

impl Faults {
    /// Faults that are on from the start.
    #[must_use]
    pub fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        let this = Self::default();
        for fault in faults {
            this.set(fault);
        }
        this
    }

    fn active(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns a fault on; one of the same kind is replaced.
    pub fn set(&self, fault: Fault) {
        let mut active = self.active();
        let kind = std::mem::discriminant(&fault);
        active.retain(|old| std::mem::discriminant(old) != kind);
        active.push(fault);
    }

    /// Turns all faults off.
    pub fn clear(&self) {
        self.active().clear();
    }

    /// Tells which faults are on.
    #[must_use]
    pub fn list(&self) -> Vec<Fault> {
        self.active().clone()
    }

    fn find<T>(&self, pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        self.active().iter().find_map(pick)
    }

    fn has(&self, fault: &Fault) -> bool {
        self.active().contains(fault)
    }

    /// How long changes of power wait.
    #[must_use]
    pub fn lag(&self) -> Duration {
        let lag = |fault: &Fault| match fault {
            Fault::Lag(lag) => Some(*lag),
            _ => None,
        };
        self.find(lag).unwrap_or_default()
    }

    /// Whether changes of power are agreed to and not done.
    #[must_use]
    pub fn lies_about_power(&self) -> bool {
        self.has(&Fault::LiesAboutPower)
    }

    /// Whether boot overrides are agreed to and not kept.
    #[must_use]
    pub fn lies_about_boot(&self) -> bool {
        self.has(&Fault::LiesAboutBoot)
    }

    /// Throws the dice for one packet or request: whether it is lost.
    #[must_use]
    pub fn loses_this(&self) -> bool {
        let percent = self.find(|fault| match fault {
            Fault::Drop(percent) => Some(*percent),
            _ => None,
        });
        let Some(percent) = percent else {
            return false;
        };
        // Randomness that fails loses the packet too: a network owes nobody an answer.
        getrandom::u32().map_or(true, |dice| dice % 100 < u32::from(percent))
    }

    /// How long answers are held back.
    #[must_use]
    pub fn late(&self) -> Duration {
        let late = |fault: &Fault| match fault {
            Fault::Late(late) => Some(*late),
            _ => None,
        };
        self.find(late).unwrap_or_default()
    }

    /// Whether answers are sent twice.
    #[must_use]
    pub fn duplicates(&self) -> bool {
        self.has(&Fault::Duplicate)
    }

    /// Whether answers are cut in half.
    #[must_use]
    pub fn shortens(&self) -> bool {
        self.has(&Fault::Short)
    }

    /// Whether weaker security is picked than was asked for.
    #[must_use]
    pub fn downgrades(&self) -> bool {
        self.has(&Fault::Downgrade)
    }

    /// The other machine that this BMC says it is.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.find(|fault| match fault {
            Fault::OtherIdentity(identity) => Some(identity.clone()),
            _ => None,
        })
    }

    /// Whether all credentials are refused.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.has(&Fault::Refuse)
    }

    /// Whether no session is free.
    #[must_use]
    pub fn sessions_exhausted(&self) -> bool {
        self.has(&Fault::SessionsExhausted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_replaces_one_of_its_kind() {
        let faults = Faults::new([Fault::Drop(100), Fault::Duplicate]);
        assert!(faults.loses_this());
        faults.set(Fault::Drop(0));
        assert!(!faults.loses_this());
        assert!(faults.duplicates());
        assert_eq!(faults.list(), [Fault::Duplicate, Fault::Drop(0)]);
        faults.clear();
        assert!(faults.list().is_empty());
    }
}
