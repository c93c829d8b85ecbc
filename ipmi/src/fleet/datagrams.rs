//! A sweep over one socket: many sessions, one task.
//!
//! Each BMC has one message under way. Who does not answer begins again with a new session id, and gives its
//! place in the window to somebody else meanwhile.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

use super::{Pace, Turn};
use crate::bmc::{Error, PowerState};
use crate::command::power_state;
use crate::driver::refused;
use crate::session::{
    Ask, Entropy as _, Kernel, Login, Privilege, Received, Refusal, Session, addressee,
};
use crate::wire::{NetFn, chassis};

/// How many datagrams are taken in before timers are looked at again.
const BURST: usize = 256;
/// How long the answer to a close is waited for before it is sent a second and last time.
const CLOSE_WAIT: Duration = Duration::from_millis(500);
/// The longest that a slow BMC is waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// More than the largest packet.
const DATAGRAM: usize = 1500;
/// Slots are numbered in the lower bits of a session's id; the upper ones tell its sessions apart.
const SLOT_BITS: u32 = 20;

type Answer = (usize, Result<PowerState, Error>);

/// One BMC that is being asked.
struct Slot {
    turn: Turn,
    address: SocketAddr,
    login: Arc<Login>,
    session: Session,
    console: u32,
    /// The id of the handshake that was given up last: an answer to it says that the BMC is slow, not gone.
    previous: Option<u32>,
    step: Step,
    suite: usize,
    tries: u32,
    wait: Duration,
    /// The timer that counts; earlier ones are ignored.
    timer: u64,
}

enum Step {
    Handshake,
    Asking(Ask),
    Closing(Vec<u8>),
}

struct Sweep<'a> {
    socket: &'a UdpSocket,
    pace: Pace,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// How many have their first try under way.
    fresh: usize,
    timers: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    timer: u64,
    answers: Vec<Answer>,
}

pub(super) async fn sweep(
    socket: &UdpSocket,
    pace: Pace,
    turns: Vec<(Turn, SocketAddr)>,
) -> Vec<Answer> {
    let began = Instant::now();
    let step = pace.spread / u32::try_from(turns.len().max(1)).unwrap_or(u32::MAX);
    let mut waiting: VecDeque<_> = turns.into();
    let mut next = began;
    let mut sweep = Sweep {
        socket,
        pace,
        slots: Vec::new(),
        free: Vec::new(),
        fresh: 0,
        timers: BinaryHeap::new(),
        timer: 0,
        answers: Vec::with_capacity(waiting.len()),
    };
    let mut buffer = [0; DATAGRAM];
    loop {
        let now = Instant::now();
        while sweep.fresh < pace.window.max(1) && next <= now {
            let Some((turn, address)) = waiting.pop_front() else {
                break;
            };
            next += jittered(step);
            sweep.begin(turn, address);
        }
        if waiting.is_empty() && sweep.free.len() == sweep.slots.len() {
            return sweep.answers;
        }
        let room = !waiting.is_empty() && sweep.fresh < pace.window.max(1);
        let timer = sweep.timers.peek().map(|Reverse((at, ..))| *at);
        let wake = [timer, room.then_some(next)].into_iter().flatten().min();
        tokio::select! {
            ready = socket.readable() => if ready.is_ok() { sweep.receive(&mut buffer) },
            () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
        }
        sweep.expire(Instant::now());
    }
}

/// A step that is between nothing and twice as long, so that sweeps do not fall into step with each other.
fn jittered(step: Duration) -> Duration {
    if step.is_zero() {
        return step;
    }
    step * u32::from(Kernel.array::<1>()[0]) / 128
}

impl Sweep<'_> {
    fn begin(&mut self, turn: Turn, address: SocketAddr) {
        let login = match Login::new(turn.bmc.credentials(), Privilege::User) {
            Ok(login) => Arc::new(login),
            Err(error) => return self.answers.push((turn.index, Err(error))),
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let wait = turn.bmc.memory().patience(self.pace.wait);
        let console = console(index);
        let (session, first) = start(&turn, &login, 0, console);
        self.fresh += 1;
        let step = Step::Handshake;
        self.slots[index] = Some(Slot {
            turn,
            address,
            login,
            session,
            console,
            previous: None,
            step,
            suite: 0,
            tries: 1,
            wait,
            timer: 0,
        });
        self.send(index, &first);
    }

    /// Sends, and sets the timer of the answer. A datagram that the socket does not take is one that is lost.
    fn send(&mut self, index: usize, datagram: &[u8]) {
        let Some(slot) = &mut self.slots[index] else {
            return;
        };
        if let Err(error) = self.socket.try_send_to(datagram, slot.address) {
            tracing::trace!(%error, bmc = %slot.address, "could not send to a bmc");
        }
        self.timer += 1;
        slot.timer = self.timer;
        let wait = if matches!(slot.step, Step::Closing(_)) {
            CLOSE_WAIT
        } else {
            slot.wait
        };
        self.timers
            .push(Reverse((Instant::now() + wait, index, self.timer)));
    }

    fn receive(&mut self, buffer: &mut [u8]) {
        for _ in 0..BURST {
            let Ok((length, from)) = self.socket.try_recv_from(buffer) else {
                return;
            };
            let datagram = &buffer[..length];
            let Some(console) = addressee(datagram) else {
                continue;
            };
            let index = (console & ((1 << SLOT_BITS) - 1)) as usize;
            let Some(Some(slot)) = self.slots.get_mut(index) else {
                continue;
            };
            if slot.address != from {
                continue;
            }
            if slot.console == console {
                self.take(index, datagram);
            } else if slot
                .previous
                .take_if(|previous| *previous == console)
                .is_some()
            {
                slot.wait = (slot.wait * 2).min(LONGEST_WAIT);
                slot.tries = slot.tries.saturating_sub(1).max(2);
            }
        }
    }

    fn take(&mut self, index: usize, datagram: &[u8]) {
        let Some(slot) = &mut self.slots[index] else {
            return;
        };
        if matches!(slot.step, Step::Closing(_)) {
            // The session is gone here, so its code cannot be checked: whatever comes, the packet arrived.
            return self.finish(index);
        }
        match slot.session.receive(datagram, &mut Kernel) {
            Received::Send(next) => self.send(index, &next),
            Received::Opened => {
                let suites = slot.turn.bmc.memory().suites();
                if let Some(suite) = suites.get(slot.suite) {
                    slot.turn.bmc.memory().worked(*suite);
                }
                let ask = slot.session.ask(NetFn::Chassis, chassis::STATUS, &[]);
                let datagram = slot.session.send(&ask, &mut Kernel);
                slot.step = Step::Asking(ask);
                if let Some(datagram) = datagram {
                    self.send(index, &datagram);
                }
            }
            Received::Reply(answer) => {
                let Step::Asking(ask) = &slot.step else {
                    return;
                };
                if ask.is_answered_by(&answer) {
                    let power = power_state(answer.code, &answer.data);
                    self.answer(index, power);
                }
            }
            Received::Refused(refusal) => self.refused(index, &refusal),
            Received::Payload(..) | Received::Ignored(_) => {}
        }
    }

    fn refused(&mut self, index: usize, refusal: &Refusal) {
        let Some(slot) = &mut self.slots[index] else {
            return;
        };
        let suites = slot.turn.bmc.memory().suites();
        if matches!(refusal, Refusal::Status { status, .. } if status.is_about_suite())
            && slot.suite + 1 < suites.len()
        {
            slot.suite += 1;
            return self.restart(index);
        }
        self.answer(index, Err(refused(refusal)));
    }

    /// Begins the handshake again, with a new id.
    fn restart(&mut self, index: usize) {
        let Some(slot) = &mut self.slots[index] else {
            return;
        };
        // The BMC may have taken RAKP 3 already, and then holds a session.
        if let Some(close) = slot.session.close(&mut Kernel)
            && let Err(error) = self.socket.try_send_to(&close, slot.address)
        {
            tracing::trace!(%error, bmc = %slot.address, "could not close a bmc session");
        }
        slot.previous = Some(std::mem::replace(&mut slot.console, console(index)));
        let (session, first) = start(&slot.turn, &slot.login, slot.suite, slot.console);
        (slot.session, slot.step) = (session, Step::Handshake);
        self.send(index, &first);
    }

    /// Notes the answer, and closes the session if there is one.
    fn answer(&mut self, index: usize, answer: Result<PowerState, Error>) {
        let Some(slot) = &mut self.slots[index] else {
            return;
        };
        self.answers.push((slot.turn.index, answer));
        match slot.session.close(&mut Kernel) {
            Some(datagram) => {
                slot.step = Step::Closing(datagram.clone());
                self.send(index, &datagram);
            }
            None => self.finish(index),
        }
    }

    fn finish(&mut self, index: usize) {
        if let Some(slot) = self.slots[index].take() {
            self.fresh -= usize::from(slot.tries == 1);
            self.free.push(index);
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some(Reverse((at, index, timer))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(slot) = &mut self.slots[index] else {
                continue;
            };
            if slot.timer == timer {
                self.silent(index);
            }
        }
    }

    fn silent(&mut self, index: usize) {
        let Some(slot) = &mut self.slots[index] else {
            return;
        };
        if let Step::Closing(datagram) = &slot.step {
            if let Err(error) = self.socket.try_send_to(datagram, slot.address) {
                tracing::trace!(%error, bmc = %slot.address, "could not close a bmc session");
            }
            return self.finish(index);
        }
        if slot.tries == 1 {
            self.fresh -= 1;
        }
        slot.tries += 1;
        slot.wait = slot.wait * 3 / 2;
        if slot.tries > self.pace.tries {
            let detail = format!("no answer, tried {} times", self.pace.tries);
            return self.answer(index, Err(Error::Unreachable { detail }));
        }
        let again = match &slot.step {
            Step::Asking(ask) => slot.session.send(ask, &mut Kernel),
            Step::Handshake | Step::Closing(_) => None,
        };
        match again {
            Some(datagram) => self.send(index, &datagram),
            None => self.restart(index),
        }
    }
}

fn console(slot: usize) -> u32 {
    let random = u32::from_le_bytes(Kernel.array()) | 1 << SLOT_BITS;
    let slot = u32::try_from(slot).unwrap_or(0) & ((1 << SLOT_BITS) - 1);
    random & !((1 << SLOT_BITS) - 1) | slot
}

fn start(turn: &Turn, login: &Arc<Login>, suite: usize, console: u32) -> (Session, Vec<u8>) {
    let suites = turn.bmc.memory().suites();
    let suite = suites
        .get(suite)
        .or(suites.last())
        .copied()
        .unwrap_or(crate::crypto::Suite::Seventeen);
    Session::begin(Arc::clone(login), suite, console, &mut Kernel)
}
