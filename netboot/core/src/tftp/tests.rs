//! The engine against a client over a link that loses, doubles, delays and reorders.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const PEER: Peer = Peer {
    address: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)), 2070),
    local: None,
};

#[derive(Clone, Copy, Debug)]
struct Link {
    lost_percent: u64,
    doubled_percent: u64,
    jitter_ms: u64,
    seed: u64,
}

impl Link {
    /// A small generator of our own: the story must be the same for the same seed, for ever.
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The delays after which copies of one packet arrive.
    fn copies(&mut self) -> Vec<Duration> {
        let mut copies = Vec::new();
        let (first, second) = (self.random() % 100, self.random() % 100);
        if first >= self.lost_percent {
            copies.push(self.delay());
        }
        if second < self.doubled_percent {
            copies.push(self.delay());
        }
        copies
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(1000 + self.random() % (self.jitter_ms * 1000 + 1))
    }
}

/// When a client speaks about a block that it did not wait for.
#[derive(Clone, Copy, Debug)]
enum Temper {
    /// At every one, as EDK2 does.
    Loud,
    /// At the first one after each block in order.
    Polite,
    /// At those that come too early, and never at copies of what it has.
    Calm,
}

struct Client {
    request: ReadRequest,
    window: u64,
    block_size: usize,
    temper: Temper,
    content: Vec<u8>,
    blocks: u64,
    in_window: u64,
    complained: bool,
    started: bool,
    done: bool,
}

impl Client {
    fn new(asks: &[Ask], temper: Temper) -> Self {
        Self {
            request: ReadRequest {
                file: "/file".to_owned(),
                mode: Mode::Octet,
                asks: asks.to_vec(),
            },
            window: 1,
            block_size: 512,
            temper,
            content: Vec::new(),
            blocks: 0,
            in_window: 0,
            complained: false,
            started: false,
            done: false,
        }
    }

    fn ack(&mut self) -> Vec<u8> {
        self.in_window = 0;
        let [.., high, low] = self.blocks.to_be_bytes();
        vec![0, 4, high, low]
    }

    /// What it sends when nothing came for its own time.
    fn nudge(&mut self) -> Option<Vec<u8>> {
        if self.done {
            None
        } else if self.started {
            Some(self.ack())
        } else {
            Some(self.request.encode())
        }
    }

    fn take(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        match packet {
            [0, 6, options @ ..] => {
                if self.blocks > 0 {
                    return None;
                }
                for option in options
                    .split(|byte| *byte == 0)
                    .collect::<Vec<_>>()
                    .chunks_exact(2)
                {
                    match Ask::parse(option[0], option[1]) {
                        Some(Ask::BlockSize(size)) => {
                            self.block_size = usize::try_from(size).unwrap();
                        }
                        Some(Ask::Window(window)) => self.window = window,
                        _ => {}
                    }
                }
                self.started = true;
                Some(self.ack())
            }
            [0, 3, high, low, content @ ..] => {
                self.started = true;
                let [.., next_high, next_low] = (self.blocks + 1).to_be_bytes();
                if self.done || (*high, *low) != (next_high, next_low) {
                    let behind =
                        block_of(*high, *low).wrapping_sub(block_of(next_high, next_low)) > 0x8000;
                    let quiet = match self.temper {
                        Temper::Loud => false,
                        Temper::Polite => self.complained,
                        Temper::Calm => behind || self.done,
                    };
                    self.complained = true;
                    return (!quiet).then(|| self.ack());
                }
                self.complained = false;
                self.blocks += 1;
                self.in_window += 1;
                self.content.extend(content);
                self.done = content.len() < self.block_size;
                if self.done || self.in_window == self.window {
                    return Some(self.ack());
                }
                None
            }
            other => panic!("the server sent {other:?}"),
        }
    }
}

fn block_of(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

struct One(Vec<u8>);

impl Files for One {
    type File = ();

    fn find(&self, name: &str, _: Mode) -> Result<((), u64), Refusal> {
        if name == "file" {
            return Ok(((), self.0.len() as u64));
        }
        Err(Refusal {
            code: ErrorCode::NotFound,
            text: format!("no `{name}` here"),
        })
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Arrival {
    AtServer(Vec<u8>),
    AtClient(Vec<u8>),
    ClientTimer(u64),
}

/// How a simulated transfer went.
#[derive(Debug)]
struct Story {
    content: Option<Vec<u8>>,
    data_packets: u64,
    elapsed: Duration,
    ends: Vec<Outcome>,
    left_open: usize,
}

fn simulate(file: &[u8], mut client: Client, mut link: Link) -> Story {
    let files = One(file.to_vec());
    let mut engine = Engine::new(Limits::default());
    let mut queue = BinaryHeap::new();
    let mut now = Duration::ZERO;
    let mut story = Story {
        content: None,
        data_packets: 0,
        elapsed: Duration::ZERO,
        ends: Vec::new(),
        left_open: 0,
    };
    let patience = Duration::from_millis(1100);
    let (mut order, mut timer, mut nudges) = (0_u64, 0_u64, 0);
    queue.push(Reverse((now, 0, Arrival::ClientTimer(0))));
    for _ in 0..200_000 {
        let due = engine.next_timer();
        let arrival = match (queue.peek(), due) {
            (Some(Reverse((at, ..))), Some(due)) if *at > due => None,
            (None, Some(_)) => None,
            (Some(_), _) => queue.pop(),
            (None, None) => break,
        };
        let mut out = Vec::new();
        let mut from_client = None;
        let mut heard = false;
        match arrival {
            None => {
                now = due.unwrap();
                engine.expire(now, &mut out);
            }
            Some(Reverse((at, _, arrival))) => {
                now = at;
                match arrival {
                    Arrival::AtServer(bytes) => {
                        engine.datagram(now, PEER, &bytes, &files, &mut out);
                    }
                    Arrival::AtClient(bytes) => {
                        from_client = client.take(&bytes);
                        heard = true;
                    }
                    Arrival::ClientTimer(set) if set == timer && nudges < 30 => {
                        nudges += 1;
                        from_client = client.nudge();
                        heard = !client.done;
                    }
                    Arrival::ClientTimer(_) => {}
                }
            }
        }
        let mut send = |at: Duration, arrival: Arrival| {
            order += 1;
            queue.push(Reverse((at, order, arrival)));
        };
        if heard {
            timer += 1;
            send(now + patience, Arrival::ClientTimer(timer));
        }
        for delay in from_client.iter().flat_map(|_| link.copies()) {
            send(now + delay, Arrival::AtServer(from_client.clone().unwrap()));
        }
        for output in out {
            let (bytes, packet_size) = match output {
                Output::Packet { bytes, .. } => (bytes, usize::MAX),
                Output::Blocks { blocks, .. } => {
                    story.data_packets += u64::from(blocks.count);
                    let mut bytes = Vec::new();
                    blocks.encode(file, &mut bytes);
                    (bytes, blocks.packet_size())
                }
                Output::Event(Event::Ended { outcome, .. }) => {
                    story.ends.push(outcome);
                    continue;
                }
                Output::Event(_) => continue,
            };
            for packet in bytes.chunks(packet_size) {
                for delay in link.copies() {
                    send(now + delay, Arrival::AtClient(packet.to_vec()));
                }
            }
        }
        engine.check();
        if client.done && story.content.is_none() {
            story.content = Some(client.content.clone());
            story.elapsed = now;
        }
    }
    story.left_open = engine.transfers();
    story
}

fn file(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap())
        .collect()
}

prop_compose! {
    fn any_link(max_loss: u64)(
        lost_percent in 0..=max_loss,
        doubled_percent in 0..=20_u64,
        jitter_ms in 0..=8_u64,
        seed: u64,
    ) -> Link {
        Link { lost_percent, doubled_percent, jitter_ms, seed }
    }
}

prop_compose! {
    fn any_client()(
        block_size in prop_oneof![Just(None), Just(Some(8)), Just(Some(1468)), (8..2000_u64).prop_map(Some)],
        window in prop_oneof![Just(None), (1..100_u64).prop_map(Some)],
        size in any::<bool>(),
        temper in any_temper(),
    ) -> (Vec<Ask>, Temper) {
        let mut asks = Vec::new();
        asks.extend(block_size.map(Ask::BlockSize));
        asks.extend(size.then_some(Ask::Size(0)));
        asks.extend(window.map(Ask::Window));
        (asks, temper)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn a_file_arrives_whole_over_a_poor_link(size in 0..6000_usize, (asks, temper) in any_client(), link in any_link(2)) {
        let file = file(size);
        let story = simulate(&file, Client::new(&asks, temper), link);
        prop_assert!(story.content.as_ref() == Some(&file), "{:?}", story.ends);
        prop_assert_eq!(story.left_open, 0);
    }

    #[test]
    fn no_link_makes_a_client_take_wrong_bytes(size in 0..3000_usize, (asks, temper) in any_client(), link in any_link(40)) {
        let file = file(size);
        let story = simulate(&file, Client::new(&asks, temper), link);
        if let Some(content) = story.content {
            prop_assert!(content == file);
        }
        prop_assert_eq!(story.left_open, 0, "a transfer outlived its client");
    }

    #[test]
    fn doubled_packets_start_no_avalanche(blocks in 1..200_u64, window in 1..=64_u64, temper in any_temper(), seed: u64) {
        let file = file(usize::try_from(blocks * 16).unwrap());
        let link = Link { lost_percent: 0, doubled_percent: 100, jitter_ms: 0, seed };
        let client = Client::new(&[Ask::BlockSize(16), Ask::Window(window)], temper);
        let story = simulate(&file, client, link);
        prop_assert!(story.content.as_ref() == Some(&file));
        // Who acknowledges the copy of a block inside the window asks for the rest of it again.
        let limit = match (temper, window) {
            (Temper::Calm, _) | (_, 1) => blocks + 1,
            _ => 2 * (blocks + 1) * window,
        };
        prop_assert!(story.data_packets <= limit, "{} packets for {blocks} blocks", story.data_packets);
    }

    #[test]
    fn no_story_breaks_the_engine(story in prop::collection::vec(any::<u8>(), 0..2000)) {
        drill(&story);
    }

    #[test]
    fn no_plausible_story_breaks_the_engine(steps in prop::collection::vec((any::<u8>(), any_datagram()), 0..200)) {
        let story: Vec<u8> = steps
            .into_iter()
            .flat_map(|(choice, datagram)| [vec![choice, u8::try_from(datagram.len()).unwrap()], datagram].concat())
            .collect();
        drill(&story);
    }
}

fn any_temper() -> impl Strategy<Value = Temper> {
    prop_oneof![Just(Temper::Loud), Just(Temper::Polite), Just(Temper::Calm)]
}

fn any_datagram() -> impl Strategy<Value = Vec<u8>> {
    let request = (any_client(), "[ab]").prop_map(|((asks, _), file)| {
        let mode = Mode::Octet;
        ReadRequest { file, mode, asks }.encode()
    });
    prop_oneof![
        4 => (0..300_u16).prop_map(|block| [[0, 4], block.to_be_bytes()].concat()),
        2 => request,
        1 => Just(b"\0\x05\0\x08User aborted\0".to_vec()),
        1 => Just(Vec::new()),
    ]
}

#[test]
fn one_percent_of_loss_costs_little() {
    let file = file(1 << 20);
    let asks = |window| [Ask::BlockSize(1468), Ask::Window(window)];
    for (window, seconds) in [(1, 6), (16, 3)] {
        let link = Link {
            lost_percent: 1,
            doubled_percent: 0,
            jitter_ms: 0,
            seed: 7,
        };
        let story = simulate(&file, Client::new(&asks(window), Temper::Loud), link);
        assert!(
            story.content.as_ref() == Some(&file),
            "window {window}: {:?}",
            story.ends
        );
        assert!(
            story.elapsed < Duration::from_secs(seconds),
            "window {window}: {:?}",
            story.elapsed
        );
    }
}

/// Plays datagrams at given times and returns the first two bytes of each answer or the event.
fn play(datagrams: &[(u64, &[u8])], limits: Limits) -> Vec<String> {
    let files = One(file(5000));
    let mut engine = Engine::new(limits);
    let mut said = Vec::new();
    for (at, bytes) in datagrams {
        let mut out = Vec::new();
        engine.datagram(Duration::from_millis(*at), PEER, bytes, &files, &mut out);
        said.extend(out.into_iter().map(|output| {
            match output {
                Output::Packet { bytes, .. } => String::from_utf8_lossy(&bytes[2..])
                    .replace('\0', " ")
                    .trim()
                    .to_owned(),
                Output::Blocks { blocks, .. } => format!(
                    "blocks {}+{} of {}",
                    blocks.first, blocks.count, blocks.block_size
                ),
                Output::Event(Event::Began { .. }) => "began".to_owned(),
                Output::Event(Event::Ended { bytes, outcome, .. }) => {
                    format!("{} {bytes}", outcome.label())
                }
                Output::Event(Event::Refused { .. }) => "refused".to_owned(),
                Output::Event(Event::Ignored { silence, .. }) => silence.label().to_owned(),
            }
        }));
    }
    said
}

const PROBE: &[u8] = b"\0\x01file\0octet\0tsize\x000\0blksize\x001468\0";
const READ: &[u8] = b"\0\x01\\file\0octet\0blksize\x001468\0windowsize\x004\0";
const ABORT: &[u8] = b"\0\x05\0\x08User aborted the transfer\0";

/// Name, datagrams with their times in ms, limits, what is said.
type Conversation<'a> = (&'a str, Vec<(u64, &'a [u8])>, Limits, Vec<&'a str>);

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn conversations_go_as_firmware_expects() {
    let none = Limits {
        transfers: 0,
        ..Limits::default()
    };
    let one_address = Limits {
        per_address: 0,
        ..Limits::default()
    };
    let usual = Limits::default();
    let offer = "tsize 5000 blksize 1468";
    let cases: [Conversation<'_>; 11] = [
        (
            "edk2 asks for the size, then reads from the same port",
            vec![
                (0, PROBE),
                (1, ABORT),
                (2, READ),
                (3, b"\0\x04\0\0"),
                (4, b"\0\x04\0\x04"),
            ],
            usual,
            vec![
                offer,
                "probed 0",
                "blksize 1468 windowsize 4",
                "began",
                "blocks 1+4 of 1468",
                "complete 5000",
            ],
        ),
        (
            "the same without the abort",
            vec![(0, PROBE), (2, READ)],
            usual,
            vec![offer, "restarted 0", "blksize 1468 windowsize 4"],
        ),
        (
            "a late copy of the request",
            vec![(0, READ), (1, b"\0\x04\0\0"), (2, READ), (2000, READ)],
            usual,
            vec![
                "blksize 1468 windowsize 4",
                "began",
                "blocks 1+4 of 1468",
                "duplicate_request",
                "restarted 0",
                "blksize 1468 windowsize 4",
            ],
        ),
        (
            "abort in the middle",
            vec![
                (0, b"\0\x01file\0octet\0"),
                (1, b"\0\x04\0\x01"),
                (2, ABORT),
            ],
            usual,
            vec![
                "began",
                "blocks 1+1 of 512",
                "blocks 2+1 of 512",
                "aborted 512",
            ],
        ),
        (
            "write",
            vec![(0, b"\0\x02x\0octet\0")],
            usual,
            vec![
                "\u{2}writing is not possible: this server only gives files",
                "refused",
            ],
        ),
        (
            "missing",
            vec![(0, b"\0\x01x\0octet\0")],
            usual,
            vec!["\u{1}no `x` here", "refused"],
        ),
        (
            "climbing",
            vec![(0, b"\0\x01../file\0octet\0")],
            usual,
            vec!["\u{2}the name leads out of the served files", "refused"],
        ),
        (
            "malformed request",
            vec![(0, b"\0\x01file\0mail\0")],
            usual,
            vec!["\u{4}the mode is neither octet nor netascii", "refused"],
        ),
        (
            "stray",
            vec![(0, b"\0\x04\0\x01"), (0, ABORT), (0, b"\0\x09"), (0, b"")],
            usual,
            vec![
                "unknown_transfer",
                "unknown_transfer",
                "malformed",
                "malformed",
            ],
        ),
        ("full", vec![(0, READ)], none, vec!["busy"]),
        (
            "full for this address",
            vec![(0, READ)],
            one_address,
            vec![
                "too many transfers with your address: let some end first",
                "refused",
            ],
        ),
    ];
    for (name, datagrams, limits, expected) in cases {
        assert_eq!(play(&datagrams, limits), expected, "{name}");
    }
}
