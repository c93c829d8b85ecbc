//! Flow control of SOL, without sockets and clocks: one packet is under way at a time, in each direction.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Flags, Packet};

/// After how long a packet that nobody acknowledged is sent again.
const AGAIN: Duration = Duration::from_millis(250);
/// How often a packet is sent before the other end is given up.
const TRIES: u8 = 12;
/// How many characters wait for their turn.
const QUEUE: usize = 64 * 1024;

/// One end of a SOL connection.
#[derive(Debug)]
pub struct Flow {
    queue: VecDeque<u8>,
    under_way: Option<UnderWay>,
    sequence: u8,
    /// The last packet that came and how much of it was taken.
    last: Option<(u8, u8)>,
    size: usize,
    stuck: bool,
}

#[derive(Debug)]
struct UnderWay {
    sequence: u8,
    characters: Vec<u8>,
    sent: Instant,
    tries: u8,
}

/// What a packet brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// How many of its characters are new and were taken.
    pub taken: usize,
    /// What must be sent back.
    pub answer: Option<Vec<u8>>,
}

impl Flow {
    /// One end that sends at most `size` characters at once.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            under_way: None,
            sequence: 0,
            last: None,
            size: size.clamp(1, 255),
            stuck: false,
        }
    }

    /// How many characters can still be queued.
    #[must_use]
    pub fn room(&self) -> usize {
        QUEUE.saturating_sub(self.queue.len())
    }

    /// Queues characters; those that find no room are the caller's to keep.
    pub fn push(&mut self, characters: &[u8]) -> usize {
        let taken = characters.len().min(self.room());
        self.queue.extend(characters.iter().take(taken));
        taken
    }

    /// Whether the other end acknowledged nothing for as long as it was asked to.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Whether everything was sent and acknowledged.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.under_way.is_none()
    }

    /// When the packet under way is due again; none while nothing is.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.under_way.as_ref().map(|packet| packet.sent + AGAIN)
    }

    /// The packet to send now, if there is one: new characters, or the old ones once more.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(packet) = &mut self.under_way {
            if now.saturating_duration_since(packet.sent) < AGAIN {
                return None;
            }
            if packet.tries >= TRIES {
                self.stuck = true;
                return None;
            }
            packet.tries += 1;
            packet.sent = now;
        } else {
            let length = self.queue.len().min(self.size);
            if length == 0 {
                return None;
            }
            self.sequence = self.sequence % 15 + 1;
            self.under_way = Some(UnderWay {
                sequence: self.sequence,
                characters: self.queue.drain(..length).collect(),
                sent: now,
                tries: 1,
            });
        }
        self.under_way.as_ref().map(UnderWay::encode)
    }

    /// Takes a packet of which at most `room` characters can be taken.
    pub fn receive(&mut self, packet: &Packet<'_>, room: usize) -> Received {
        self.acknowledged(packet);
        if packet.sequence == 0 {
            return Received::default();
        }
        let (taken, accepted) = match self.last {
            Some((sequence, accepted)) if sequence == packet.sequence => (0, accepted),
            _ => {
                let taken = packet.characters.len().min(room);
                (taken, u8::try_from(taken).unwrap_or(u8::MAX))
            }
        };
        let is_refused = accepted == 0 && !packet.characters.is_empty();
        if !is_refused {
            self.last = Some((packet.sequence, accepted));
        }
        let answer = Packet {
            sequence: 0,
            acknowledges: packet.sequence,
            accepted,
            flags: if is_refused {
                Flags::NACK
            } else {
                Flags::default()
            },
            characters: &[],
        };
        Received {
            taken,
            answer: Some(answer.encode()),
        }
    }

    fn acknowledged(&mut self, packet: &Packet<'_>) {
        // A NACK leaves the packet under way; it goes out again when it is due.
        if packet.flags.has(Flags::NACK) {
            return;
        }
        let ours = |sent: &mut UnderWay| sent.sequence == packet.acknowledges;
        if let Some(sent) = self.under_way.take_if(ours) {
            let accepted = usize::from(packet.accepted);
            let left = sent.characters.get(accepted..).unwrap_or_default();
            for character in left.iter().rev() {
                self.queue.push_front(*character);
            }
        }
    }
}

impl UnderWay {
    fn encode(&self) -> Vec<u8> {
        Packet {
            sequence: self.sequence,
            acknowledges: 0,
            accepted: 0,
            flags: Flags::default(),
            characters: &self.characters,
        }
        .encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Carries packets between two ends, losing and repeating as `fate` has it.
    fn carry(text: &[u8], size: usize, room: usize, fate: &[u8]) -> (Vec<u8>, Flow) {
        let (mut from, mut to) = (Flow::new(size), Flow::new(size));
        assert_eq!(from.push(text), text.len());
        let mut arrived = Vec::new();
        let mut now = Instant::now();
        let mut fate = fate.iter().chain(std::iter::repeat(&3));
        while !from.is_idle() && !from.is_stuck() {
            now += AGAIN;
            let Some(bytes) = from.poll(now) else {
                continue;
            };
            let copies = match fate.next() {
                Some(0) => 0,
                Some(1) => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let packet = Packet::decode(&bytes).unwrap();
                let received = to.receive(&packet, room);
                arrived.extend_from_slice(&packet.characters[..received.taken]);
                if fate.next() != Some(&0) {
                    let answer = received.answer.unwrap();
                    from.receive(&Packet::decode(&answer).unwrap(), 0);
                }
            }
        }
        (arrived, from)
    }

    proptest! {
        #[test]
        fn what_is_typed_arrives_once_and_in_order(
            text in proptest::collection::vec(any::<u8>(), 0..400),
            size in 1_usize..255,
            room in 1_usize..300,
            fate in proptest::collection::vec(0_u8..8, 0..200),
        ) {
            let (arrived, from) = carry(&text, size, room, &fate);
            prop_assert!(text.starts_with(&arrived));
            prop_assert!(from.is_stuck() || arrived == text);
        }
    }

    #[test]
    fn an_end_that_says_nothing_is_given_up() {
        let mut flow = Flow::new(10);
        flow.push(b"root\r");
        let mut now = Instant::now();
        let mut sent = 0;
        while !flow.is_stuck() {
            sent += u8::from(flow.poll(now).is_some());
            now += AGAIN;
        }
        assert_eq!(sent, TRIES);
    }

    #[test]
    fn a_packet_without_room_is_refused_and_taken_later() {
        let mut flow = Flow::new(10);
        let packet = Packet {
            sequence: 1,
            acknowledges: 0,
            accepted: 0,
            flags: Flags::default(),
            characters: b"abc",
        };
        let refused = flow.receive(&packet, 0);
        assert_eq!(refused.taken, 0);
        assert!(
            Packet::decode(&refused.answer.unwrap())
                .unwrap()
                .flags
                .has(Flags::NACK)
        );
        assert_eq!(flow.receive(&packet, 9).taken, 3);
    }
}
