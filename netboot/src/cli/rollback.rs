//! `netboot rollback`: returns hosts to an image that they were healthy with.
//!
//! It refuses to choose the image: that is the newest other generation that was healthy.

use clap::Args;

use super::deploy::{Wait, ask_and_wait};
use super::order::{Change, Hosts};
use super::{Exit, Failure};
use crate::api::HostsOrder;

/// Return hosts to their newest other generation that was healthy, and wait until they are.
#[derive(Debug, Args)]
pub(super) struct Rollback {
    #[command(flatten)]
    hosts: Hosts,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    change: Change,
}

impl Rollback {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let hosts = self.hosts.selector()?;
        ask_and_wait(
            &self.change,
            self.wait,
            "/v1/rollback",
            &HostsOrder { hosts },
        )
    }
}
