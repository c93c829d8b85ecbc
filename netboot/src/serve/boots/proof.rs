//! What a boot has proved: its token exchanged, its newest report, and how often it was given secrets.
//!
//! It refuses to take a report twice, and to exchange a token for who has another nonce.

use std::sync::Arc;

use image_manifest::Digest;
use netboot_core::boot::Step;

use super::{All, Boots, Recorded, Running};
use crate::store::Change;

/// How often one boot is answered with its secrets: an answer may get lost, and stage1 asks again.
const SECRETS_GIVEN: u32 = 8;

impl Boots {
    /// Exchanges the token of a boot, which shows that the boot runs: those before it have ended.
    ///
    /// `None` when no host has this boot, or when its token was exchanged with another nonce.
    pub(in crate::serve) fn exchange(&self, boot: &str, nonce: Digest) -> Option<Recorded> {
        let mut all = self.all();
        let host = all.by_id.get(boot).cloned()?;
        let running = all.by_host.get(&host)?.of(boot)?;
        if running.detail.exchanged.is_some_and(|known| known != nonce) {
            return None;
        }
        all.prove(boot)?;
        let running = all.by_host.get_mut(&host)?.current()?;
        running.detail.exchanged = Some(nonce);
        Some(Recorded {
            boot: Arc::clone(&running.id),
            began: false,
            // Stored again when it is asked for again: the first time may have failed.
            changes: vec![Change::Boot(running.row(&host))],
        })
    }

    /// Tells whether a report with this number is newer than all that are stored of its boot.
    pub(in crate::serve) fn is_news(&self, boot: &str, sequence: u64) -> bool {
        let mut all = self.all();
        let running = all.running(boot);
        running.is_some_and(|running| sequence > running.sequence)
    }

    /// Remembers that a report is stored, so that it is not taken again.
    pub(in crate::serve) fn stored(&self, boot: &str, sequence: u64) {
        if let Some(running) = self.all().running(boot) {
            running.sequence = running.sequence.max(sequence);
        }
    }

    /// Returns the host of a boot when it is refused something for this reason for the first time.
    pub(in crate::serve) fn is_first(&self, boot: &str, reason: &'static str) -> Option<Arc<str>> {
        let mut all = self.all();
        let host = all.by_id.get(boot).cloned()?;
        let running = all.running(boot)?;
        if running.refused.contains(&reason) {
            return None;
        }
        running.refused.push(reason);
        Some(host)
    }

    /// Counts one answer with secrets to a boot that has not handed over yet; tells whether there may be one.
    pub(in crate::serve) fn give_secrets(&self, boot: &str) -> bool {
        let mut all = self.all();
        let Some(running) = all.running(boot) else {
            return false;
        };
        running.secrets_given = running.secrets_given.saturating_add(1);
        running.secrets_given <= SECRETS_GIVEN && running.progress.reached < Step::SwitchRoot
    }
}

impl All {
    fn running(&mut self, boot: &str) -> Option<&mut Running> {
        let host = self.by_id.get(boot)?;
        let admitted = self.by_host.get_mut(host)?;
        admitted.boots.iter_mut().find(|one| &*one.id == boot)
    }
}
