//! Any bytes as SOL packets to one end of a console: it takes no more than there is room for, and goes on.
#![no_main]

use std::time::{Duration, Instant};

use ipmi::sol::{Flow, Packet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut flow = Flow::new(16);
    let mut now = Instant::now();
    for piece in bytes.chunks(24) {
        let Some((&how, packet)) = piece.split_first() else {
            return;
        };
        now += Duration::from_millis(u64::from(how));
        flow.push(&packet[..packet.len() / 2]);
        let room = usize::from(how & 0x1f);
        if let Ok(packet) = Packet::decode(packet) {
            let received = flow.receive(&packet, room);
            assert!(received.taken <= room.min(packet.characters.len()));
            if let Some(answer) = &received.answer {
                assert!(Packet::decode(answer).is_ok());
            }
        }
        if let Some(sent) = flow.poll(now) {
            assert!(sent.len() <= 4 + 16);
        }
    }
});
