//! System boot options (IPMI 2.0 §28.12 and §28.13), kept byte for byte.
//!
//! It refuses devices that the host behind it cannot boot from.

use std::time::{Duration, Instant};

use crate::sim::Board;
use crate::wire::Code;
use crate::{BootDevice, BootFirmware, BootOverride, Persistence};

const VALID: u8 = 0x80;
const PERSISTENT: u8 = 0x40;
const EFI: u8 = 0x20;
/// Parameter not supported.
const UNSUPPORTED: Code = Code(0x80);
/// Somebody else is setting options.
const BEING_SET: Code = Code(0x81);
/// In parameter 3: the flags stay valid although nobody starts the host.
const NO_TIMER: u8 = 0x08;

/// The boot options.
#[derive(Debug, Default)]
pub(in crate::sim) struct BootOptions {
    flags: Option<Flags>,
    progress: u8,
    partition: u8,
    keep: u8,
    acknowledged: [u8; 2],
    initiator: [u8; 9],
    lapses: Option<Instant>,
}

#[derive(Debug)]
struct Flags {
    bytes: [u8; 5],
    meaning: Option<BootOverride>,
}

impl BootOptions {
    /// When the flags lapse.
    pub(super) fn lapses(&self) -> Option<Instant> {
        self.lapses
    }

    /// Clears flags of which the time is over.
    pub(super) fn lapse(&mut self, board: &Board, now: Instant) {
        if self.lapses.take_if(|at| *at <= now).is_none() {
            return;
        }
        self.flags = None;
        if let Err(error) = board.set_boot_override(None) {
            tracing::debug!(%error, "chassis kept a boot override that lapsed");
        }
    }

    /// The host was started: what it was told holds.
    pub(super) fn started(&mut self) {
        self.lapses = None;
    }

    /// Get System Boot Options.
    pub(super) fn get(&self, parameter: u8, board: &Board) -> Result<Vec<u8>, Code> {
        let data = match parameter {
            0 => vec![self.progress],
            1 => vec![self.partition],
            3 => vec![self.keep],
            4 => self.acknowledged.to_vec(),
            5 => self.flags(board).to_vec(),
            6 => self.initiator.to_vec(),
            _ => return Err(UNSUPPORTED),
        };
        Ok([&[0x01, parameter][..], &data].concat())
    }

    /// The bytes as they were set, unless the host has used them, or was told something else meanwhile.
    fn flags(&self, board: &Board) -> [u8; 5] {
        let now = board.boot_override();
        match &self.flags {
            Some(flags) if flags.meaning == now => flags.bytes,
            _ => now.map(|wanted| encode(&wanted)).unwrap_or_default(),
        }
    }

    /// Set System Boot Options.
    pub(super) fn set(
        &mut self,
        data: &[u8],
        (board, timer): (&Board, Duration),
        now: Instant,
    ) -> Result<(), Code> {
        let (&parameter, data) = data.split_first().ok_or(LENGTH)?;
        let parameter = parameter & 0x7f;
        match parameter {
            0 => self.progress(*data.first().ok_or(LENGTH)?)?,
            1 => self.partition = *data.first().ok_or(LENGTH)?,
            3 => self.keep = *data.first().ok_or(LENGTH)? & 0x1f,
            4 => {
                let [mask, value] = *data.first_chunk().ok_or(LENGTH)?;
                let kept = self.acknowledged[1] & !mask;
                self.acknowledged = [mask, kept | value & mask];
            }
            5 => self.set_flags(*data.first_chunk().ok_or(LENGTH)?, (board, timer), now)?,
            6 => self.initiator = *data.first_chunk().ok_or(LENGTH)?,
            _ => return Err(UNSUPPORTED),
        }
        Ok(())
    }

    fn progress(&mut self, wanted: u8) -> Result<(), Code> {
        match wanted & 0x03 {
            // Set complete, or commit write.
            0 | 2 => self.progress = 0,
            1 if self.progress == 1 => return Err(BEING_SET),
            1 => self.progress = 1,
            _ => return Err(Code::INVALID_FIELD),
        }
        Ok(())
    }

    fn set_flags(
        &mut self,
        bytes: [u8; 5],
        (board, timer): (&Board, Duration),
        now: Instant,
    ) -> Result<(), Code> {
        let meaning = decode(bytes)?;
        board
            .set_boot_override(meaning.clone())
            .map_err(|_| Code::INVALID_FIELD)?;
        let is_once = bytes[0] & VALID != 0 && bytes[0] & PERSISTENT == 0;
        self.lapses = (is_once && self.keep & NO_TIMER == 0).then(|| now + timer);
        self.flags = Some(Flags { bytes, meaning });
        Ok(())
    }
}

const LENGTH: Code = Code(0xc7);

fn decode(bytes: [u8; 5]) -> Result<Option<BootOverride>, Code> {
    let [first, second, ..] = bytes;
    if first & VALID == 0 {
        return Ok(None);
    }
    let device = match second >> 2 & 0x0f {
        0 => return Ok(None),
        1 => BootDevice::Network,
        2 => BootDevice::Disk,
        6 => BootDevice::Setup,
        _ => return Err(Code::INVALID_FIELD),
    };
    Ok(Some(BootOverride {
        device,
        persistence: if first & PERSISTENT == 0 {
            Persistence::Once
        } else {
            Persistence::Persistent
        },
        firmware: if first & EFI == 0 {
            BootFirmware::Bios
        } else {
            BootFirmware::Uefi
        },
    }))
}

/// What another protocol set, in IPMI's bytes.
fn encode(wanted: &BootOverride) -> [u8; 5] {
    let selector = match wanted.device {
        // IPMI has no word for HTTP boot; it is a boot from the network.
        BootDevice::Network | BootDevice::Http { .. } => 1,
        BootDevice::Disk => 2,
        BootDevice::Setup => 6,
        BootDevice::None => return [0; 5],
    };
    let persistent = match wanted.persistence {
        Persistence::Once => 0,
        Persistence::Persistent => PERSISTENT,
    };
    let firmware = match wanted.firmware {
        BootFirmware::Bios => 0,
        BootFirmware::Uefi => EFI,
    };
    [VALID | persistent | firmware, selector << 2, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sim::{Chassis as _, Memory};
    use crate::{Identity, ResetKind};

    const TIMER: Duration = Duration::from_mins(1);

    #[test]
    fn flags_are_kept_byte_for_byte_until_a_boot_uses_them() {
        let host = Arc::new(Memory::new(Identity::default()));
        let board = Board::new(Arc::clone(&host) as _);
        let now = Instant::now();
        let cases = [
            ("efi pxe once", [0xa0, 0x04, 0x20, 0, 0x01], [0; 5]),
            (
                "efi pxe always",
                [0xe0, 0x04, 0, 0x02, 0],
                [0xe0, 0x04, 0, 0x02, 0],
            ),
            ("bios disk once", [0x80, 0x08, 0, 0, 0], [0; 5]),
            ("setup once", [0xa0, 0x18, 0, 0, 0], [0; 5]),
        ];
        for (name, bytes, after) in cases {
            let mut options = BootOptions::default();
            let request = [&[5][..], &bytes].concat();
            assert_eq!(
                options.set(&request, (&board, TIMER), now),
                Ok(()),
                "{name}"
            );
            assert_eq!(options.flags(&board), bytes, "{name}");
            host.act(ResetKind::ForceOff).unwrap();
            host.act(ResetKind::On).unwrap();
            assert_eq!(options.flags(&board), after, "{name}, booted");
        }
    }

    #[test]
    fn flags_lapse_unless_the_host_is_started_or_the_timer_is_off() {
        let board = Board::new(Arc::new(Memory::new(Identity::default())));
        let now = Instant::now();
        let request = [5, 0xa0, 0x04, 0, 0, 0];
        let later = now + TIMER;
        let mut options = BootOptions::default();
        options.set(&request, (&board, TIMER), now).unwrap();
        options.lapse(&board, later);
        assert_eq!(options.flags(&board), [0; 5]);
        options.set(&request, (&board, TIMER), now).unwrap();
        options.started();
        options.lapse(&board, later);
        assert_eq!(options.flags(&board)[..2], [0xa0, 0x04]);
        options.set(&[3, NO_TIMER], (&board, TIMER), now).unwrap();
        options.set(&request, (&board, TIMER), now).unwrap();
        options.lapse(&board, later);
        assert_eq!(options.flags(&board)[..2], [0xa0, 0x04]);
    }

    #[test]
    fn what_the_host_cannot_boot_from_is_refused() {
        let board = Board::new(Arc::new(Memory::new(Identity::default())));
        let request = [5, 0x80, 0x14, 0, 0, 0];
        let refused = BootOptions::default().set(&request, (&board, TIMER), Instant::now());
        assert_eq!(refused, Err(Code::INVALID_FIELD));
    }
}
