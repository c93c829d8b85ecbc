//! Any bytes as a story for the engine: what the fuzz target and a property run.
//!
//! It refuses to look at what is answered beyond the laws that hold for every story.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::engine::{Engine, Files, Limits, Output, Peer, Refusal};
use super::packet::{ErrorCode, Mode};
use super::terms::MAX_WINDOW;

const LIMITS: Limits = Limits {
    transfers: 6,
    per_address: 4,
};

struct Two;

impl Files for Two {
    type File = u64;

    fn find(&self, name: &str, _: Mode) -> Result<(u64, u64), Refusal> {
        let size = match name {
            "a" => 0,
            "b" => 100_000,
            _ => {
                return Err(Refusal {
                    code: ErrorCode::NotFound,
                    text: name.to_owned(),
                });
            }
        };
        Ok((size, size))
    }
}

/// Plays bytes as datagrams and waits to an engine, and checks its laws after each.
///
/// A step of the story is a byte that chooses peer and wait, a byte for the length of a datagram (0: only the wait),
/// and the datagram.
///
/// # Panics
/// When a law is broken: a timer that is due stays due, blocks outside of the file or the window, more transfers than the
/// limits.
pub fn drill(story: &[u8]) {
    let mut engine = Engine::new(LIMITS);
    let mut now = Duration::ZERO;
    let mut rest = story;
    while let Some((&[choice, length], after)) = rest.split_first_chunk() {
        let (datagram, after) = after.split_at(after.len().min(length.into()));
        rest = after;
        now += Duration::from_millis(u64::from(choice >> 3).pow(3));
        let mut out = Vec::new();
        engine.expire(now, &mut out);
        assert!(engine.next_timer().is_none_or(|due| due > now));
        if length > 0 {
            let before = out.len();
            engine.datagram(now, peer(choice & 7), datagram, &Two, &mut out);
            assert!(out.len() > before, "every packet is answered or counted");
            assert!(out.len() <= before + 3, "one packet has one answer");
        }
        out.iter().for_each(check);
        #[cfg(any(test, debug_assertions))]
        engine.check();
    }
}

fn peer(choice: u8) -> Peer {
    let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, choice & 1));
    Peer {
        address: SocketAddr::new(ip, 2000 + u16::from(choice)),
        local: None,
    }
}

fn check(output: &Output<u64>) {
    let Output::Blocks {
        file: size, blocks, ..
    } = output
    else {
        return;
    };
    let block_size = u64::from(blocks.block_size);
    assert!(blocks.first >= 1 && (1..=MAX_WINDOW).contains(&blocks.count));
    assert!((blocks.first + u64::from(blocks.count) - 2) * block_size <= *size);
}
