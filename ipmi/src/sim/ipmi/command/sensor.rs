//! Sensor readings.

use super::{Call, LENGTH};
use crate::sim::ipmi::sensors;
use crate::wire::{Code, Request};

pub(super) fn execute(call: &Call<'_>, request: &Request<'_>) -> Result<Vec<u8>, Code> {
    let number = request.data.first().copied().ok_or(LENGTH);
    match request.command {
        0x27 => sensors::thresholds(number?).ok_or(Code::NOT_PRESENT),
        0x2d => sensors::reading(number?, &call.board.power()).ok_or(Code::NOT_PRESENT),
        _ => Err(Code::INVALID_COMMAND),
    }
}
