//! The commands of a simulated BMC: what each is called, needs and does.

mod app;
mod chassis;
mod sensor;
mod storage;
mod transport;

use std::time::Instant;

use super::firmware::State;
use super::sessions::{Session, Sessions};
use super::{Config, Privilege};
use crate::sim::Board;
use crate::wire::{Code, NetFn, Request};

/// The request's data has a wrong length.
const LENGTH: Code = Code(0xc7);
/// A number is out of range.
const RANGE: Code = Code(0xc9);

/// What a command works on.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) board: &'a Board,
    pub(super) config: &'a Config,
    /// Where the BMC listens.
    pub(super) port: u16,
    pub(super) sessions: &'a mut Sessions,
    pub(super) state: &'a mut State,
    /// The session that it came in; none outside of one.
    pub(super) session: Option<u32>,
    pub(super) now: Instant,
}

impl Call<'_> {
    fn session(&mut self) -> Result<&mut Session, Code> {
        let id = self.session.ok_or(Code::PRIVILEGE)?;
        self.sessions.get(id).ok_or(Code::PRIVILEGE)
    }
}

/// Carries out a command.
pub(super) fn execute(call: &mut Call<'_>, request: &Request<'_>) -> Result<Vec<u8>, Code> {
    match request.netfn {
        NetFn::App => app::execute(call, request),
        NetFn::Chassis => chassis::execute(call, request),
        NetFn::Sensor => sensor::execute(call, request),
        NetFn::Storage => storage::execute(call, request),
        NetFn::Transport => transport::execute(call, request),
        NetFn::Other(_) => Err(Code::INVALID_COMMAND),
    }
}

/// The privilege that a command needs (IPMI 2.0 Appendix G); none for what may be asked outside of a session.
pub(super) fn needs(request: &Request<'_>) -> Option<Privilege> {
    match (request.netfn, request.command) {
        // System GUID, authentication capabilities, cipher suites.
        (NetFn::App, 0x37 | 0x38 | 0x54) => None,
        // Chassis Control, Identify, Set Boot Options, Get Boot Options, clearing the log and its clock.
        (NetFn::Chassis, 0x02 | 0x04 | 0x08 | 0x09) | (NetFn::Storage, 0x44 | 0x47 | 0x49) => {
            Some(Privilege::Operator)
        }
        _ => Some(Privilege::User),
    }
}

/// What a request asks for, in words.
pub(super) fn words(request: &Request<'_>) -> String {
    let first = request.data.first().copied();
    match (request.netfn, request.command) {
        (NetFn::Chassis, 0x01) => "get chassis status".to_owned(),
        (NetFn::Chassis, 0x02) => {
            let action = match first.map(|byte| byte & 0x0f) {
                Some(0) => "off",
                Some(1) => "on",
                Some(2) => "cycle",
                Some(3) => "reset",
                Some(4) => "nmi",
                Some(5) => "shutdown",
                _ => "nothing known",
            };
            format!("chassis control: {action}")
        }
        (NetFn::Chassis, 0x08) => format!("set boot option {}", first.unwrap_or(0) & 0x7f),
        (NetFn::Chassis, 0x09) => format!("get boot option {}", first.unwrap_or(0) & 0x7f),
        (NetFn::App, 0x01) => "get device id".to_owned(),
        (NetFn::App, 0x37) => "get system guid".to_owned(),
        (NetFn::App, 0x3b) => "set session privilege".to_owned(),
        (NetFn::App, 0x3c) => "close session".to_owned(),
        (group, command) => format!("{group:?} {command:02x}h").to_lowercase(),
    }
}
