//! What the simulated service remembers: sessions, tasks, the firmware's setup and the inserted image.
//!
//! It refuses to remember the power or the override: those are the chassis's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;

use super::answer::hex;
use super::log::Entry;
use super::{Config, Manner};
use crate::BootFirmware;
use crate::sim::Board;

/// Tasks that are remembered; the oldest are forgotten first.
const TASKS: usize = 64;

/// One simulated service.
pub(super) struct Service {
    pub(super) board: Board,
    pub(super) config: Config,
    state: Mutex<State>,
}

/// What changes.
pub(super) struct State {
    pub(super) sessions: BTreeMap<String, Session>,
    /// When each task is over.
    pub(super) tasks: BTreeMap<u32, Instant>,
    pub(super) next: u32,
    /// What was done to the power, oldest first.
    pub(super) log: VecDeque<Entry>,
    /// The firmware mode that is set when no override is.
    pub(super) mode: BootFirmware,
    /// Attributes of the firmware's setup.
    pub(super) setup: BTreeMap<String, String>,
    /// What is in the virtual drive.
    pub(super) image: Option<String>,
    /// When the service came up, and when the host was last turned on and off.
    pub(super) started: Instant,
    pub(super) turned_on: Option<Instant>,
    pub(super) turned_off: Option<Instant>,
}

pub(super) struct Session {
    pub(super) token: String,
    pub(super) used: Instant,
}

/// Whether somebody may come in, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Nobody,
    Basic,
    Session(String),
}

impl Service {
    pub(super) fn new(board: Board, config: Config) -> Self {
        let setup = config.manners.iter().filter_map(|manner| match manner {
            Manner::UriInSetup(attribute) => Some(((*attribute).to_owned(), String::new())),
            _ => None,
        });
        let setup = setup.collect();
        Self {
            board,
            config,
            state: Mutex::new(State {
                sessions: BTreeMap::new(),
                tasks: BTreeMap::new(),
                next: 1,
                log: VecDeque::new(),
                mode: BootFirmware::Uefi,
                setup,
                image: None,
                started: Instant::now(),
                turned_on: None,
                turned_off: None,
            }),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is(&self, manner: Manner) -> bool {
        self.config.manners.contains(&manner)
    }

    /// How long a passing refusal of this kind lasts, if the service has it.
    pub(super) fn spell(&self, pick: impl Fn(Manner) -> Option<Duration>) -> Option<Duration> {
        self.config.manners.iter().find_map(|manner| pick(*manner))
    }

    /// The attribute of the setup that is the URI of HTTP Boot.
    pub(super) fn uri_attribute(&self) -> Option<&'static str> {
        self.config.manners.iter().find_map(|manner| match manner {
            Manner::UriInSetup(attribute) => Some(*attribute),
            _ => None,
        })
    }

    pub(super) fn takes(&self, user: &str, password: &str) -> bool {
        let right = self.config.password.expose_secret().as_bytes();
        let is_right = password.as_bytes().ct_eq(right);
        !self.board.faults().refuses() && user == self.config.user && bool::from(is_right)
    }

    /// Who asks, by the token of a session or by Basic.
    pub(super) fn access(&self, headers: &HeaderMap) -> Access {
        if self.board.faults().refuses() {
            return Access::Nobody;
        }
        if let Some(token) = headers.get("x-auth-token") {
            let mut state = self.state();
            let idle = self.config.idle;
            state
                .sessions
                .retain(|_, session| session.used.elapsed() < idle);
            let own = state
                .sessions
                .iter_mut()
                .find(|(_, session)| session.token.as_bytes() == token.as_bytes());
            return own.map_or(Access::Nobody, |(id, session)| {
                session.used = Instant::now();
                Access::Session(id.clone())
            });
        }
        let is_right = basic(headers).is_some_and(|(user, password)| self.takes(&user, &password));
        if is_right {
            Access::Basic
        } else {
            Access::Nobody
        }
    }

    /// Opens a session, if one is free.
    pub(super) fn open_session(&self) -> Option<(String, String)> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        let token = hex(&random);
        let mut state = self.state();
        let idle = self.config.idle;
        state
            .sessions
            .retain(|_, session| session.used.elapsed() < idle);
        let is_full = state.sessions.len() >= self.config.sessions
            || self.is(Manner::NoSessions)
            || self.board.faults().sessions_exhausted();
        if is_full {
            return None;
        }
        let id = state.take_number().to_string();
        let session = Session {
            token: token.clone(),
            used: Instant::now(),
        };
        state.sessions.insert(id.clone(), session);
        Some((id, token))
    }

    /// Begins a task that is over after `lasts`.
    pub(super) fn begin_task(&self, lasts: Duration) -> u32 {
        let mut state = self.state();
        let id = state.take_number();
        state.tasks.insert(id, Instant::now() + lasts);
        while state.tasks.len() > TASKS {
            state.tasks.pop_first();
        }
        id
    }
}

impl State {
    pub(super) fn take_number(&mut self) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        number
    }
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let encoded = value.strip_prefix("Basic ")?;
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
