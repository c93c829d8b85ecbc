//! Our end of SOL: a session of its own that carries what is typed and what is printed.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Flags, Flow, Packet};
use crate::bmc::{Console, Error};
use crate::command::Transact as _;
use crate::driver::Link;
use crate::wire::{Code, Kind, NetFn};

const ACTIVATE: u8 = 0x48;
const DEACTIVATE: u8 = 0x49;
const DEVICE_ID: u8 = 0x01;
/// Payload SOL, instance 1; encrypted and authenticated.
const PAYLOAD: [u8; 6] = [0x01, 0x01, 0xc0, 0x00, 0x00, 0x00];
/// The payload is active in another session.
const ACTIVE_ALREADY: Code = Code(0x80);
/// How many packets wait for who reads or types.
const QUEUE: usize = 64;
/// Sessions end after 60 s without a packet (IPMI 2.0 §6.12.15).
const ALIVE: Duration = Duration::from_secs(20);
/// How long a BMC may take to answer that it is still there.
const PATIENCE: Duration = Duration::from_secs(15);
/// Nobody looks at the line less often than this.
const LOOK: Duration = Duration::from_millis(250);

/// Activates SOL in this session and carries it until the console is dropped or the BMC ends it.
///
/// # Errors
/// [`Error::Busy`] when somebody else holds the console; [`Error::Unsupported`] when the BMC has none.
pub async fn open(mut link: Link) -> Result<Console, Error> {
    let reply = link.transact(NetFn::App, ACTIVATE, &PAYLOAD).await?;
    if reply.code == ACTIVE_ALREADY {
        link.close().await;
        return Err(Error::Busy {
            detail: "somebody else holds its console".to_owned(),
        });
    }
    let data = reply.well("the console")?;
    // Four auxiliary bytes, then how much a packet to the BMC may carry, its four bytes of header included by some.
    let size = data
        .get(4..6)
        .and_then(|size| size.first_chunk())
        .map_or(0, |size| u16::from_le_bytes(*size));
    let size = usize::from(size).saturating_sub(4).clamp(1, 200);
    let (print, output) = mpsc::channel(QUEUE);
    let (keys, typed) = mpsc::channel(QUEUE);
    let carried = Line {
        link,
        flow: Flow::new(size),
        print,
        typed,
        rest: Bytes::new(),
    };
    tokio::spawn(carried.run());
    Ok(Console {
        output,
        input: keys,
    })
}

struct Line {
    link: Link,
    flow: Flow,
    print: mpsc::Sender<Bytes>,
    typed: mpsc::Receiver<Bytes>,
    /// What was typed and found no room yet.
    rest: Bytes,
}

/// What happened next on the line.
enum Next {
    Payload(Option<(Kind, Vec<u8>)>),
    Typed(Option<Bytes>),
    Dropped,
}

impl Line {
    async fn run(mut self) {
        if let Err(error) = self.carry().await {
            tracing::debug!(%error, "console ended");
        }
        self.link.extend(Instant::now() + PATIENCE);
        if let Err(error) = self.link.transact(NetFn::App, DEACTIVATE, &PAYLOAD).await {
            tracing::debug!(%error, "could not deactivate the console");
        }
        self.link.close().await;
    }

    /// Carries until the console is dropped, or the BMC ends it.
    async fn carry(&mut self) -> Result<(), Error> {
        let mut alive = Instant::now() + ALIVE;
        let mut typing = true;
        loop {
            match self.next(typing).await? {
                Next::Payload(Some((Kind::Sol, payload))) => self.receive(&payload).await?,
                Next::Payload(_) => {}
                Next::Typed(Some(keys)) => self.rest = keys,
                Next::Typed(None) => typing = false,
                Next::Dropped => return Ok(()),
            }
            self.send().await?;
            if Instant::now() >= alive {
                self.link.extend(Instant::now() + PATIENCE);
                self.link.request(NetFn::App, DEVICE_ID, &[]).await?;
                alive = Instant::now() + ALIVE;
            }
        }
    }

    async fn next(&mut self, typing: bool) -> Result<Next, Error> {
        let wait = self.flow.due().map_or(LOOK, |due| {
            let now = Instant::now().into_std();
            due.saturating_duration_since(now).min(LOOK)
        });
        Ok(tokio::select! {
            payload = self.link.receive_payload(wait) => Next::Payload(payload?),
            keys = self.typed.recv(), if typing && self.rest.is_empty() => Next::Typed(keys),
            () = self.print.closed() => Next::Dropped,
        })
    }

    /// Takes a packet; what nobody has read yet leaves no room for more, and the BMC will send it again.
    async fn receive(&mut self, payload: &[u8]) -> Result<(), Error> {
        let packet = Packet::decode(payload).map_err(|malformed| Error::Protocol {
            detail: malformed.to_string(),
        })?;
        let room = if self.print.capacity() == 0 { 0 } else { 255 };
        let received = self.flow.receive(&packet, room);
        if let Some(printed) = packet.characters.get(..received.taken)
            && !printed.is_empty()
            && self
                .print
                .try_send(Bytes::copy_from_slice(printed))
                .is_err()
        {
            tracing::debug!("console output was dropped with its reader");
        }
        if let Some(answer) = received.answer {
            self.link.send_payload(Kind::Sol, &answer).await?;
        }
        if packet.flags.has(Flags::DEACTIVATED) {
            return Err(Error::Busy {
                detail: "the bmc ended the console".to_owned(),
            });
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Error> {
        let taken = self.flow.push(&self.rest);
        self.rest = self.rest.slice(taken..);
        if let Some(packet) = self.flow.poll(Instant::now().into_std()) {
            self.link.send_payload(Kind::Sol, &packet).await?;
        }
        if self.flow.is_stuck() {
            return Err(Error::Unreachable {
                detail: "nobody acknowledges what is typed on the console".to_owned(),
            });
        }
        Ok(())
    }
}
