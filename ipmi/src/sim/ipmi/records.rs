//! The event log of a simulated BMC and its reservations. It has a real-time clock, as BMCs do.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::ResetKind;

/// How many entries the log holds; the oldest make room.
const ENTRIES: usize = 512;

/// What is logged.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// Somebody acted on the power.
    Power(ResetKind),
}

/// The log and the reservations.
#[derive(Debug, Default)]
pub(in crate::sim) struct Records {
    log: VecDeque<[u8; 16]>,
    last: u16,
    reservation: u16,
    added: u32,
    erased: u32,
    /// What Set SEL Time made of the clock, in seconds.
    shift: i64,
}

impl Records {
    /// The BMC's clock, in seconds since 1970.
    pub(super) fn clock(&self) -> u32 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
            });
        u32::try_from(now.saturating_add(self.shift)).unwrap_or(0)
    }

    pub(super) fn set_clock(&mut self, wanted: u32) {
        self.shift += i64::from(wanted) - i64::from(self.clock());
    }

    /// Makes a reservation; earlier ones are void.
    pub(super) fn reserve(&mut self) -> u16 {
        self.reservation = self.reservation.checked_add(1).unwrap_or(1);
        self.reservation
    }

    pub(super) fn is_reserved(&self, reservation: u16) -> bool {
        reservation != 0 && reservation == self.reservation
    }

    /// Logs an event.
    pub(super) fn log(&mut self, event: Event) {
        let Event::Power(kind) = event;
        // Sensor type, event type, and its data (IPMI 2.0 Table 42-3).
        let (sensor, data) = match kind {
            ResetKind::ForceOff => (0x09, 0x00),
            ResetKind::Cycle => (0x09, 0x01),
            ResetKind::GracefulShutdown => (0x20, 0x03),
            // System boot initiated: by power on, by hard reset.
            ResetKind::On => (0x1d, 0x00),
            ResetKind::ForceRestart => (0x1d, 0x01),
            // Critical interrupt: front panel NMI.
            ResetKind::Nmi => (0x13, 0x00),
        };
        let [a, b, c, d] = self.clock().to_le_bytes();
        self.append([
            0, 0, 0x02, a, b, c, d, 0x20, 0x00, 0x04, sensor, 0x00, 0x6f, data, 0xff, 0xff,
        ]);
    }

    /// Appends an entry under a new id, which is returned.
    pub(super) fn append(&mut self, mut entry: [u8; 16]) -> u16 {
        // 0000h and FFFFh mean the first and the last.
        self.last = if self.last >= 0xfffe {
            1
        } else {
            self.last + 1
        };
        entry[..2].copy_from_slice(&self.last.to_le_bytes());
        if self.log.len() == ENTRIES {
            self.log.pop_front();
        }
        self.log.push_back(entry);
        self.added = self.clock();
        self.last
    }

    pub(super) fn clear(&mut self) {
        self.log.clear();
        self.erased = self.clock();
    }

    /// An entry by its id, and the id of the next one.
    pub(super) fn entry(&self, id: u16) -> Option<(u16, &[u8; 16])> {
        let index = match id {
            0x0000 => 0,
            0xffff => self.log.len().checked_sub(1)?,
            id => self.log.iter().position(|entry| id_of(entry) == id)?,
        };
        let next = self.log.get(index + 1).map_or(0xffff, id_of);
        Some((next, self.log.get(index)?))
    }

    /// The reply to Get SEL Info.
    pub(super) fn log_info(&self) -> Vec<u8> {
        let count = u16::try_from(self.log.len()).unwrap_or(u16::MAX);
        let free = u16::try_from((ENTRIES - self.log.len()) * 16).unwrap_or(u16::MAX);
        let mut info = vec![0x51];
        info.extend_from_slice(&count.to_le_bytes());
        info.extend_from_slice(&free.to_le_bytes());
        info.extend_from_slice(&self.added.to_le_bytes());
        info.extend_from_slice(&self.erased.to_le_bytes());
        // Reservations are supported.
        info.push(0x02);
        info
    }
}

fn id_of(entry: &[u8; 16]) -> u16 {
    u16::from_le_bytes([entry[0], entry[1]])
}
