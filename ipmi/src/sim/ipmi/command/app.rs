//! The BMC itself and its sessions.

use super::{Call, LENGTH};
use crate::crypto::Suite;
use crate::sim::ipmi::sol::{SIZE, Sol};
use crate::sim::ipmi::{Privilege, privilege};
use crate::wire::{Code, Request};

/// The number of the only channel, a LAN.
const CHANNEL: u8 = 1;
/// What requests call the channel that they came by.
const THIS_CHANNEL: u8 = 0x0e;
/// The payload type of SOL.
const SOL: u8 = 1;
/// The requested privilege is beyond the account's.
const BEYOND_LIMIT: Code = Code(0x81);
/// No such session.
const UNKNOWN_SESSION: Code = Code(0x87);
/// The payload is active already, here or elsewhere.
const ACTIVE_ALREADY: Code = Code(0x80);
/// The payload must be encrypted here.
const MUST_BE_ENCRYPTED: Code = Code(0x84);

pub(super) fn execute(call: &mut Call<'_>, request: &Request<'_>) -> Result<Vec<u8>, Code> {
    let data = request.data;
    match request.command {
        0x01 => Ok(device_id().to_vec()),
        // Self test: no error.
        0x04 => Ok(vec![0x55, 0x00]),
        0x37 | 0x08 => {
            let guid = call.board.identity().guid.ok_or(Code::NOT_PRESENT)?;
            Ok(guid.to_vec())
        }
        0x38 => authentication(call, data),
        0x3b => set_privilege(call, data),
        0x3c => close(call, data),
        0x42 => channel_info(data),
        0x48 => activate_payload(call, data),
        0x49 => deactivate_payload(call, data),
        0x4a => payload_status(call, data),
        // Payload support: messages and SOL, and the three groups of the handshake.
        0x4e => Ok(vec![0x03, 0x00, 0x3f, 0x00, 0x00, 0x00, 0x00, 0x00]),
        // Payload version 1.0.
        0x4f => Ok(vec![0x10]),
        0x54 => cipher_suites(call, data),
        _ => Err(Code::INVALID_COMMAND),
    }
}

/// Get Device ID: IPMI 2.0, with sensors, SDR, SEL, FRU and chassis; of nobody's make.
fn device_id() -> [u8; 15] {
    let mut version = env!("CARGO_PKG_VERSION")
        .split('.')
        .map(|part| part.parse().unwrap_or(0));
    let (major, minor): (u8, u8) = (version.next().unwrap_or(0), version.next().unwrap_or(0));
    // The minor number is in BCD.
    let minor = ((minor / 10 % 10) << 4) | (minor % 10);
    [
        0x20,
        0x01,
        major & 0x7f,
        minor,
        0x02,
        0x8f,
        0,
        0,
        0,
        0x01,
        0x00,
        0,
        0,
        0,
        0,
    ]
}

/// Get Channel Authentication Capabilities: only IPMI 2.0, only with names.
fn authentication(call: &Call<'_>, data: &[u8]) -> Result<Vec<u8>, Code> {
    let [channel, _] = *data.first_chunk().ok_or(LENGTH)?;
    is_ours(channel)?;
    let mut status = 0x04;
    if call.config.kg.is_some() {
        status |= 0x20;
    }
    Ok(vec![CHANNEL, 0x80, status, 0x02, 0, 0, 0, 0])
}

fn is_ours(channel: u8) -> Result<(), Code> {
    match channel & 0x0f {
        CHANNEL | THIS_CHANNEL => Ok(()),
        _ => Err(Code::INVALID_FIELD),
    }
}

fn set_privilege(call: &mut Call<'_>, data: &[u8]) -> Result<Vec<u8>, Code> {
    let &level = data.first().ok_or(LENGTH)?;
    let session = call.session()?;
    // 0 asks only what it is.
    if level & 0x0f != 0 {
        let wanted = privilege(level & 0x0f).ok_or(Code::INVALID_FIELD)?;
        if wanted > session.limit {
            return Err(BEYOND_LIMIT);
        }
        session.privilege = wanted;
    }
    Ok(vec![session.privilege.number()])
}

fn close(call: &mut Call<'_>, data: &[u8]) -> Result<Vec<u8>, Code> {
    let id = u32::from_le_bytes(*data.first_chunk().ok_or(LENGTH)?);
    let own = call.session()?;
    if own.bmc != id && own.privilege < Privilege::Administrator {
        return Err(Code::PRIVILEGE);
    }
    let session = call.sessions.get(id).ok_or(UNKNOWN_SESSION)?;
    session.closing = true;
    Ok(Vec::new())
}

fn channel_info(data: &[u8]) -> Result<Vec<u8>, Code> {
    is_ours(*data.first().ok_or(LENGTH)?)?;
    // A LAN with many sessions.
    Ok(vec![
        CHANNEL, 0x04, 0x01, 0x80, 0xf2, 0x1b, 0x00, 0x00, 0x00,
    ])
}

/// Get Channel Cipher Suites, by suite; 16 bytes of the list at a time.
fn cipher_suites(call: &Call<'_>, data: &[u8]) -> Result<Vec<u8>, Code> {
    let [channel, _, index] = *data.first_chunk().ok_or(LENGTH)?;
    is_ours(channel)?;
    let number = |suite: &Suite| match suite {
        Suite::Three => 3,
        Suite::Seventeen => 17,
    };
    let record = |suite: &Suite| {
        let algorithms = suite.algorithms();
        [
            0xc0,
            number(suite),
            algorithms.authentication,
            0x40 | algorithms.integrity,
            0x80 | algorithms.confidentiality,
        ]
    };
    let list: Vec<u8> = call.config.suites.iter().flat_map(record).collect();
    let part = list.chunks(16).nth(usize::from(index & 0x3f));
    Ok([&[CHANNEL][..], part.unwrap_or_default()].concat())
}

fn is_sol(data: &[u8]) -> Result<(), Code> {
    match data.first_chunk() {
        Some([SOL, 1]) => Ok(()),
        Some(_) => Err(Code::INVALID_FIELD),
        None => Err(LENGTH),
    }
}

fn activate_payload(call: &mut Call<'_>, data: &[u8]) -> Result<Vec<u8>, Code> {
    is_sol(data)?;
    if call.sessions.iter().any(|session| session.sol.is_some()) {
        return Err(ACTIVE_ALREADY);
    }
    // Suites without encryption do not exist here, so a console must not ask for SOL without.
    if data.get(2).is_none_or(|auxiliary| auxiliary & 0xc0 != 0xc0) {
        return Err(MUST_BE_ENCRYPTED);
    }
    let sol = Sol::new(call.board, call.now);
    call.session()?.sol = Some(sol);
    let port = call.port.to_le_bytes();
    Ok(vec![
        0, 0, 0, 0, SIZE, 0, SIZE, 0, port[0], port[1], 0xff, 0xff,
    ])
}

fn deactivate_payload(call: &mut Call<'_>, data: &[u8]) -> Result<Vec<u8>, Code> {
    is_sol(data)?;
    // Anybody who may use SOL may end that of another, as §24.2 has it.
    let active = call
        .sessions
        .iter_mut()
        .find(|session| session.sol.is_some());
    active.ok_or(ACTIVE_ALREADY)?.sol = None;
    Ok(Vec::new())
}

fn payload_status(call: &Call<'_>, data: &[u8]) -> Result<Vec<u8>, Code> {
    if data.first() != Some(&SOL) {
        return Err(Code::INVALID_FIELD);
    }
    let active = call.sessions.iter().any(|session| session.sol.is_some());
    Ok(vec![0x01, u8::from(active), 0x00])
}
