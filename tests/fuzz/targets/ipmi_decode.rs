//! Any bytes as one RMCP datagram and as each message that it may carry: reading ends, never panics,
//! and what was read is written as it was.
#![no_main]

use ipmi::wire::{Datagram, Message, OpenReply, OpenRequest, Rakp1, Rakp2, Rakp3, Rakp4};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Datagram::decode(bytes) {
        Ok(Datagram::Session(packet)) => payload(packet.payload),
        Ok(Datagram::Legacy(packet)) => payload(packet.payload),
        Ok(Datagram::Ping(_)) | Err(_) => {}
    }
    payload(bytes);
});

/// Decodes as everything; a second reading of what the first one wrote gives the same.
fn payload(bytes: &[u8]) {
    match Message::decode(bytes) {
        Ok(Message::Request(request)) => {
            let again = request.encode();
            assert_eq!(Message::decode(&again), Ok(Message::Request(request)));
        }
        Ok(Message::Reply(reply)) => {
            let again = reply.encode();
            assert_eq!(Message::decode(&again), Ok(Message::Reply(reply)));
        }
        Err(_) => {}
    }
    if let Ok(request) = OpenRequest::decode(bytes) {
        assert_eq!(OpenRequest::decode(&request.encode()), Ok(request));
    }
    if let Ok(reply) = OpenReply::decode(bytes) {
        assert_eq!(OpenReply::decode(&reply.encode()), Ok(reply));
    }
    if let Ok(message) = Rakp1::decode(bytes) {
        assert_eq!(Rakp1::decode(&message.encode()), Ok(message));
    }
    if let Ok(message) = Rakp2::decode(bytes) {
        assert_eq!(Rakp2::decode(&message.encode()), Ok(message));
    }
    if let Ok(message) = Rakp3::decode(bytes) {
        assert_eq!(Rakp3::decode(&message.encode()), Ok(message));
    }
    if let Ok(message) = Rakp4::decode(bytes) {
        assert_eq!(Rakp4::decode(&message.encode()), Ok(message));
    }
}
