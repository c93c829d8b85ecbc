//! One transfer: which blocks are out, which have arrived, what is sent next and when.
//!
//! It refuses to answer an acknowledgement that says nothing new, unless it is a sign of loss: answering each
//! duplicate with data doubles every packet from there on (the sorcerer's apprentice, RFC 1123 §4.2.3.1).

use std::time::Duration;

use super::packet::{DATA_HEADER, encode_data_header};
use super::rto::Rto;
use super::terms::Terms;

/// Copies of one packet, the first included, to a peer that has answered before.
const SENDS: u32 = 6;
/// The same to a peer that never answered: its address may be forged, and a real one asks again.
const SENDS_UNPROVEN: u32 = 3;
/// A peer that was heard this long ago may still come back: firmware stalls while it paints or erases flash.
const PATIENCE: Duration = Duration::from_secs(20);

/// Consecutive blocks of a file that are to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Number of the first block, counted from 1 without rolling over.
    pub first: u64,
    /// How many blocks.
    pub count: u16,
    /// Content bytes of every block but the file's last.
    pub block_size: u16,
}

impl Blocks {
    /// The size of every packet but perhaps the last: what segmentation offload cuts at.
    #[must_use]
    pub fn packet_size(&self) -> usize {
        DATA_HEADER + usize::from(self.block_size)
    }

    /// Writes the packets of these blocks one after the other, given the whole content of the file.
    pub fn encode(&self, content: &[u8], into: &mut Vec<u8>) {
        let size = u64::from(self.block_size);
        for block in self.first..self.first + u64::from(self.count) {
            encode_data_header(low_bits(block), into);
            let start = usize::try_from((block - 1) * size).unwrap_or(usize::MAX);
            let start = start.min(content.len());
            let end = content.len().min(start + usize::from(self.block_size));
            into.extend(&content[start..end]);
        }
    }

    /// Splits off the first `count` blocks.
    #[must_use]
    pub fn split(self, count: u16) -> (Self, Option<Self>) {
        if count == 0 || count >= self.count {
            return (self, None);
        }
        let head = Self { count, ..self };
        let tail = Self {
            first: self.first + u64::from(count),
            count: self.count - count,
            ..self
        };
        (head, Some(tail))
    }
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client acknowledged the last block.
    Complete,
    /// Every block was sent and the acknowledgement of the last ones never came. Some clients leave without it.
    Unconfirmed,
    /// The client took the answer to its options and left: EDK2 asks for the size this way.
    Probed,
    /// The client sent an error.
    Aborted {
        /// The number it gave.
        code: u16,
        /// The text it gave.
        text: String,
    },
    /// The client went silent.
    TimedOut,
    /// The same peer asked anew.
    Restarted,
}

impl Outcome {
    /// One word for it, for a metric.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Unconfirmed => "unconfirmed",
            Self::Probed => "probed",
            Self::Aborted { .. } => "aborted",
            Self::TimedOut => "timed_out",
            Self::Restarted => "restarted",
        }
    }
}

/// What a transfer wants after an acknowledgement or at its deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Wait,
    Offer,
    Send(Blocks),
    End(Outcome),
}

/// The state of one transfer.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    terms: Terms,
    size: u64,
    last: u64,
    /// The answer to the options is out and not acknowledged.
    offered: bool,
    /// All blocks up to this one have arrived.
    acked: u64,
    /// All blocks up to this one were sent.
    sent: u64,
    /// When the oldest packet that is not acknowledged was sent last.
    sent_at: Duration,
    /// When nothing was sent that had been sent before.
    fresh_at: Duration,
    /// More copies of the oldest packet, after the first.
    resent: u32,
    /// An acknowledgement now measures the round trip.
    timed: bool,
    /// Repeats of this block's acknowledgement may be echoes of what we sent twice, so they are no sign of loss.
    echo: u64,
    /// When the peer last told something new.
    heard: Duration,
    proven: bool,
    deadline: Duration,
    rto: Rto,
    resent_blocks: u64,
}

impl Transfer {
    /// Starts a transfer; with `offered`, it waits for the options to be acknowledged first.
    pub(super) fn start(now: Duration, terms: Terms, size: u64, offered: bool) -> (Self, Step) {
        let rto = Rto::new(terms.timeout);
        let mut transfer = Self {
            terms,
            size,
            last: size / u64::from(terms.block_size) + 1,
            offered,
            acked: 0,
            sent: 0,
            sent_at: now,
            fresh_at: now,
            resent: 0,
            timed: true,
            echo: u64::MAX,
            heard: now,
            proven: false,
            deadline: now + rto.first(),
            rto,
            resent_blocks: 0,
        };
        let step = if offered {
            Step::Offer
        } else {
            transfer.send_window(now)
        };
        (transfer, step)
    }

    /// When [`Transfer::expire`] is due.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Tells whether the peer has answered since the request, and when it last said something new.
    pub(super) fn proven(&self) -> Option<Duration> {
        self.proven.then_some(self.heard)
    }

    /// Content bytes that the peer has acknowledged.
    pub(super) fn delivered(&self) -> u64 {
        (self.acked * u64::from(self.terms.block_size)).min(self.size)
    }

    /// Blocks that were sent more than once.
    pub(super) fn resent_blocks(&self) -> u64 {
        self.resent_blocks
    }

    /// Takes the acknowledgement of a block by its 16-bit number.
    pub(super) fn ack(&mut self, now: Duration, block: u16) -> Step {
        if self.offered {
            if block != 0 {
                return Step::Wait;
            }
            self.offered = false;
            self.learn(now);
            return self.send_window(now);
        }
        // At most 64 blocks are out, so 16 bits tell which one is meant, rolled over or not (RFC 7440 §4).
        let ahead = u64::from(block.wrapping_sub(low_bits(self.acked)));
        if ahead > self.sent - self.acked {
            return Step::Wait;
        }
        if ahead == 0 {
            return self.repeated(now);
        }
        let since = now.saturating_sub(self.sent_at);
        self.learn(now);
        self.acked += ahead;
        if self.acked == self.last {
            return Step::End(Outcome::Complete);
        }
        if self.acked == self.sent {
            return self.send_window(now);
        }
        // RFC 7440 §4: an acknowledgement inside the window says that the next block was lost. It cannot mean
        // blocks that were sent less than a round trip ago.
        self.timed = false;
        self.echo = self.sent;
        if since < self.rto.shortest() {
            return self.extend_window(now);
        }
        self.resent_blocks += self.sent - self.acked;
        self.send_window(now)
    }

    /// Does what is due at the deadline.
    pub(super) fn expire(&mut self, now: Duration) -> Step {
        if now < self.deadline {
            return Step::Wait;
        }
        let sends = if self.proven { SENDS } else { SENDS_UNPROVEN };
        if self.resent + 1 < sends {
            return self.resend(now);
        }
        // Nothing more is sent, but a peer that was there may still speak.
        let patience = self.heard + PATIENCE;
        if self.proven && self.sent < self.last && now < patience {
            self.deadline = patience;
            return Step::Wait;
        }
        Step::End(if self.sent == self.last {
            Outcome::Unconfirmed
        } else {
            Outcome::TimedOut
        })
    }

    /// The base of the window was acknowledged once more: loss, an echo or a late duplicate.
    fn repeated(&mut self, now: Duration) -> Step {
        let since = now.saturating_sub(self.sent_at);
        // The first block of a window was lost, and the client says so (RFC 7440 §4). It cannot know sooner
        // than one round trip after we sent; and once we have sent blocks twice, their echoes look the same.
        let gap = self.terms.window > 1 && self.acked != self.echo && since >= self.rto.shortest();
        // The client's own timer. Answering at our own pace at most cannot start an avalanche.
        let overdue = since >= self.rto.first();
        if self.resent + 1 < SENDS && (gap || overdue) {
            return self.resend(now);
        }
        Step::Wait
    }

    fn resend(&mut self, now: Duration) -> Step {
        self.resent += 1;
        self.timed = false;
        if self.offered {
            self.arm(now);
            return Step::Offer;
        }
        self.echo = self.sent;
        self.resent_blocks += self.sent - self.acked;
        self.blocks(now)
    }

    /// Sends what the window has room for, all of it anew.
    fn send_window(&mut self, now: Duration) -> Step {
        self.resent = 0;
        if self.acked == self.sent {
            self.fresh_at = now;
        }
        self.sent = (self.acked + u64::from(self.terms.window)).min(self.last);
        self.blocks(now)
    }

    /// Sends what the window has room for behind the blocks that are under way.
    fn extend_window(&mut self, now: Duration) -> Step {
        self.resent = 0;
        self.deadline = now + self.rto.first();
        let first = self.sent + 1;
        self.sent = (self.acked + u64::from(self.terms.window)).min(self.last);
        if self.sent < first {
            return Step::Wait;
        }
        Step::Send(self.from(first))
    }

    fn blocks(&mut self, now: Duration) -> Step {
        self.arm(now);
        Step::Send(self.from(self.acked + 1))
    }

    fn from(&self, first: u64) -> Blocks {
        Blocks {
            first,
            count: u16::try_from(self.sent + 1 - first).unwrap_or(u16::MAX),
            block_size: self.terms.block_size,
        }
    }

    fn arm(&mut self, now: Duration) {
        self.sent_at = now;
        self.deadline = now + self.rto.after(self.resent);
    }

    fn learn(&mut self, now: Duration) {
        self.rto.at_most(now.saturating_sub(self.fresh_at));
        if self.timed {
            self.rto.sample(now.saturating_sub(self.sent_at));
        }
        self.timed = true;
        self.heard = now;
        self.proven = true;
    }
}

/// Block numbers roll over to 0 (as every server and client of large files does; the RFCs are silent).
fn low_bits(block: u64) -> u16 {
    let [.., high, low] = block.to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 512;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn terms(window: u16) -> Terms {
        Terms {
            block_size: 512,
            window,
            timeout: None,
        }
    }

    fn send(first: u64, count: u16) -> Step {
        Step::Send(Blocks {
            first,
            count,
            block_size: 512,
        })
    }

    #[test]
    fn lock_step_ignores_what_is_not_new() {
        let (mut transfer, step) = Transfer::start(ms(0), terms(1), 2 * BLOCK, false);
        assert_eq!(step, send(1, 1));
        let cases = [
            ("the first block", 1, 1, send(2, 1)),
            ("its acknowledgement again", 2, 1, Step::Wait),
            ("an old one", 3, 0, Step::Wait),
            ("one that was never sent", 4, 3, Step::Wait),
            ("the second block", 5, 2, send(3, 1)),
            (
                "the empty block that ends it",
                6,
                3,
                Step::End(Outcome::Complete),
            ),
        ];
        for (name, at, block, expected) in cases {
            assert_eq!(transfer.ack(ms(at), block), expected, "{name}");
        }
        assert_eq!(
            (transfer.delivered(), transfer.resent_blocks()),
            (2 * BLOCK, 0)
        );
    }

    #[test]
    fn a_window_goes_back_to_the_block_that_was_lost() {
        let (mut transfer, step) = Transfer::start(ms(0), terms(4), 100 * BLOCK, true);
        assert_eq!(step, Step::Offer);
        assert_eq!(transfer.ack(ms(10), 0), send(1, 4), "options taken");
        assert_eq!(transfer.ack(ms(20), 4), send(5, 4), "whole window");
        assert_eq!(transfer.ack(ms(30), 6), send(7, 4), "block 7 was lost");
        assert_eq!(
            transfer.ack(ms(31), 6),
            Step::Wait,
            "said again, too soon to be new"
        );
        assert_eq!(transfer.ack(ms(40), 10), send(11, 4), "goes on");
        assert_eq!(transfer.ack(ms(51), 10), send(11, 4), "block 11 was lost");
        assert_eq!(
            transfer.ack(ms(52), 10),
            Step::Wait,
            "said by each block after it"
        );
        assert_eq!(transfer.ack(ms(61), 14), send(15, 4));
        assert_eq!(
            transfer.ack(ms(72), 14),
            Step::Wait,
            "an echo of the blocks sent twice"
        );
        assert_eq!(transfer.resent_blocks(), 2 + 4);
    }

    #[test]
    fn block_numbers_roll_over_to_zero() {
        let size = 70_000 * BLOCK + 1;
        let (mut transfer, _) = Transfer::start(ms(0), terms(64), size, false);
        let mut acked = 0_u64;
        loop {
            acked = (acked + 64).min(70_001);
            match transfer.ack(ms(acked), low_bits(acked)) {
                Step::Send(blocks) => assert_eq!(blocks.first, acked + 1),
                other => {
                    assert_eq!(other, Step::End(Outcome::Complete));
                    break;
                }
            }
        }
        assert_eq!((acked, transfer.delivered()), (70_001, size));
    }

    #[test]
    fn a_silent_peer_is_sent_six_copies_and_no_more() {
        let (mut transfer, _) = Transfer::start(ms(0), terms(1), 10 * BLOCK, false);
        assert_eq!(transfer.ack(ms(1), 1), send(2, 1));
        let mut copies = 1;
        let outcome = loop {
            let now = transfer.deadline();
            match transfer.expire(now) {
                Step::Send(blocks) => {
                    assert_eq!(blocks.first, 2);
                    copies += 1;
                }
                Step::Wait => assert!(transfer.deadline() > now),
                Step::End(outcome) => break (outcome, now),
                Step::Offer => unreachable!("the options were never offered"),
            }
        };
        assert_eq!(copies, 6);
        assert_eq!(outcome, (Outcome::TimedOut, ms(20_001)));
    }

    #[test]
    fn a_peer_that_never_answers_is_given_up_early() {
        let (mut transfer, _) = Transfer::start(ms(0), terms(1), 10 * BLOCK, true);
        let mut steps = Vec::new();
        while !matches!(steps.last(), Some(Step::End(_))) {
            steps.push(transfer.expire(transfer.deadline()));
        }
        assert_eq!(
            steps,
            [Step::Offer, Step::Offer, Step::End(Outcome::TimedOut)]
        );
    }

    #[test]
    fn packets_of_blocks_carry_the_file() {
        let content: Vec<u8> = (0..=255).cycle().take(1024).collect();
        let blocks = Blocks {
            first: 2,
            count: 2,
            block_size: 512,
        };
        let mut bytes = Vec::new();
        blocks.encode(&content, &mut bytes);
        assert_eq!(bytes.len(), 516 + 4, "the last block is empty");
        assert_eq!(bytes[..4], [0, 3, 0, 2]);
        assert_eq!(bytes[4..516], content[512..]);
        assert_eq!(bytes[516..], [0, 3, 0, 3]);
        let (head, tail) = blocks.split(1);
        assert_eq!((head.first, head.count), (2, 1));
        assert_eq!(tail.map(|tail| (tail.first, tail.count)), Some((3, 1)));
    }
}
