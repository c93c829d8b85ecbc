//! Power and boot.

use super::{Call, LENGTH};
use crate::sim::Refused;
use crate::sim::ipmi::records::Event;
use crate::wire::{Code, Request};
use crate::{PowerState, ResetKind};

/// The power cannot be told.
const UNSPECIFIED: Code = Code(0xff);

pub(super) fn execute(call: &mut Call<'_>, request: &Request<'_>) -> Result<Vec<u8>, Code> {
    let data = request.data;
    match request.command {
        // Capabilities: no intrusion, no panel lockout, NMI; FRU, SDR, SEL and management at 20h.
        0x00 => Ok(vec![0x04, 0x20, 0x20, 0x20, 0x20]),
        0x01 => status(call),
        0x02 => control(call, *data.first().ok_or(LENGTH)?),
        // Identify: a host without a lamp agrees.
        0x04 => Ok(Vec::new()),
        // Restart cause: unknown.
        0x07 => Ok(vec![0x00, 0x01]),
        0x08 => {
            let timer = call.config.boot_timer;
            let boot = &mut call.state.boot;
            boot.set(data, (call.board, timer), call.now)?;
            Ok(Vec::new())
        }
        0x09 => {
            let &parameter = data.first().ok_or(LENGTH)?;
            call.state.boot.get(parameter & 0x7f, call.board)
        }
        _ => Err(Code::INVALID_COMMAND),
    }
}

fn status(call: &Call<'_>) -> Result<Vec<u8>, Code> {
    let power = match call.board.power() {
        // IPMI has no word for a host on its way: until it is off, it has power.
        PowerState::On | PowerState::Transition => 1,
        PowerState::Off => 0,
        PowerState::Unknown { .. } => return Err(UNSPECIFIED),
    };
    // Power restore policy: stays off.
    Ok(vec![power, 0x00, 0x40])
}

fn control(call: &mut Call<'_>, action: u8) -> Result<Vec<u8>, Code> {
    let kind = match action & 0x0f {
        0 => ResetKind::ForceOff,
        1 => ResetKind::On,
        2 => ResetKind::Cycle,
        3 => ResetKind::ForceRestart,
        4 => ResetKind::Nmi,
        5 => ResetKind::GracefulShutdown,
        _ => return Err(Code::INVALID_FIELD),
    };
    call.board.act(kind).map_err(|refused| match refused {
        Refused::Unsupported => Code::INVALID_FIELD,
        Refused::NotNow(_) => Code::STATE,
    })?;
    if matches!(
        kind,
        ResetKind::On | ResetKind::Cycle | ResetKind::ForceRestart
    ) {
        call.state.boot.started();
    }
    call.state.records.log(Event::Power(kind));
    Ok(Vec::new())
}
