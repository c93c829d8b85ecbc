//! `netboot cancel`: calls off what is under way with hosts.
//!
//! It refuses to undo: a host stays where it is.

use clap::Args;

use super::order::{Change, Hosts};
use super::{Exit, Failure};
use crate::api::HostsOrder;

/// Call off what is under way with hosts, and let stopped ones go on.
#[derive(Debug, Args)]
pub(super) struct Cancel {
    #[command(flatten)]
    hosts: Hosts,
    #[command(flatten)]
    change: Change,
}

impl Cancel {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let hosts = self.hosts.selector()?;
        self.change.run("/v1/cancel", &HostsOrder { hosts })
    }
}
