//! Why a BMC did not do, or did not say, what was asked.

/// Why a BMC did not do, or did not say, what was asked.
///
/// No variant ever carries a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It does not answer.
    #[error("the bmc does not answer: {detail}")]
    Unreachable {
        /// What was tried.
        detail: String,
    },
    /// It does not take our name, password or key, or the account may not do this.
    #[error("the bmc refuses us: {detail}")]
    Refused {
        /// What it said.
        detail: String,
    },
    /// The credentials cannot be used with this protocol.
    #[error("the credentials do not fit: {detail}")]
    Credentials {
        /// What does not fit; never the contents.
        detail: String,
    },
    /// It offers less protection than we accept.
    #[error("the connection is not safe: {detail}")]
    Insecure {
        /// What differed.
        detail: String,
    },
    /// It belongs to another machine than the one that was meant; nothing was done.
    #[error("this is another machine: expected {expected}, found {found}")]
    WrongHost {
        /// What is recorded.
        expected: String,
        /// What the BMC says.
        found: String,
    },
    /// Nothing is recorded of this machine, so it cannot be told from another; nothing was done.
    #[error("no identity is recorded for this bmc, so its host is not touched")]
    Unrecorded,
    /// It cannot do that.
    #[error("the bmc cannot do that: {detail}")]
    Unsupported {
        /// What it cannot do.
        detail: String,
    },
    /// It could not do it now, for the whole of the deadline.
    #[error("the bmc is busy: {detail}")]
    Busy {
        /// What it said.
        detail: String,
    },
    /// It took the command, and what it says afterwards is something else.
    #[error("asked for {wanted}, and the bmc still says {found}")]
    NotVerified {
        /// What was asked for.
        wanted: String,
        /// What was read back last.
        found: String,
    },
    /// A command was sent, and whether it was obeyed is not known.
    #[error("sent {sent} once, and what became of it is unknown: {read}")]
    Unknown {
        /// What was sent.
        sent: String,
        /// What could be read afterwards.
        read: String,
    },
    /// It said something that the protocol does not allow.
    #[error("the bmc broke the protocol: {detail}")]
    Protocol {
        /// What it said.
        detail: String,
    },
    /// It has several systems, and none was named.
    #[error("the bmc has several systems ({systems}); name the one that is meant")]
    Ambiguous {
        /// Their names.
        systems: String,
    },
    /// A step could not be recorded, so it was not taken.
    #[error("failed to record a step, so it was not taken: {detail}")]
    Journal {
        /// What the journal said.
        detail: String,
    },
}

impl Error {
    /// Whether the same may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Busy { .. }
                | Self::NotVerified { .. }
                | Self::Unknown { .. }
        )
    }

    /// A constant word for logs and counters.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { .. } => "refused",
            Self::Credentials { .. } => "credentials",
            Self::Insecure { .. } => "insecure",
            Self::WrongHost { .. } => "wrong-host",
            Self::Unrecorded => "unrecorded",
            Self::Unsupported { .. } => "unsupported",
            Self::Busy { .. } => "busy",
            Self::NotVerified { .. } => "not-verified",
            Self::Unknown { .. } => "unknown",
            Self::Protocol { .. } => "protocol",
            Self::Ambiguous { .. } => "ambiguous",
            Self::Journal { .. } => "journal",
        }
    }
}
