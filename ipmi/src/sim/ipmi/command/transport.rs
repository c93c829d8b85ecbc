//! LAN and SOL settings; they are told, not changed.

use super::{Call, LENGTH};
use crate::wire::{Code, Request};

/// Parameter not supported.
const UNSUPPORTED: Code = Code(0x80);
/// Every parameter is of revision 1.1.
const REVISION: u8 = 0x11;

pub(super) fn execute(call: &Call<'_>, request: &Request<'_>) -> Result<Vec<u8>, Code> {
    let [_, parameter] = *request.data.first_chunk().ok_or(LENGTH)?;
    let value = match request.command {
        0x02 => lan(call, parameter)?,
        0x22 => sol(call, parameter)?,
        _ => return Err(Code::INVALID_COMMAND),
    };
    Ok([&[REVISION][..], &value].concat())
}

fn lan(call: &Call<'_>, parameter: u8) -> Result<Vec<u8>, Code> {
    Ok(match parameter {
        // Set in progress: no. Authentication types: none of IPMI 1.5.
        0 | 1 => vec![0],
        // The hardware address.
        5 => {
            let macs = call.board.identity().macs;
            macs.first().ok_or(UNSUPPORTED)?.to_vec()
        }
        _ => return Err(UNSUPPORTED),
    })
}

fn sol(call: &Call<'_>, parameter: u8) -> Result<Vec<u8>, Code> {
    Ok(match parameter {
        0 => vec![0],
        // Enabled; its payload channel.
        1 | 7 => vec![1],
        // Encrypted, authenticated, for operators.
        2 => vec![0xc3],
        // Characters leave after 20 ms, or as soon as there are 96.
        3 => vec![4, 96],
        // Seven tries, 250 ms apart.
        4 => vec![7, 25],
        // 115200 baud.
        5 | 6 => vec![0x0a],
        8 => call.port.to_le_bytes().to_vec(),
        _ => return Err(UNSUPPORTED),
    })
}
