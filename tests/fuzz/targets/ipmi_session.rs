//! A console's session against a BMC that says anything: it never panics, and without the password
//! nothing opens it. A BMC that knows the password may then seal anything into its packets.
#![no_main]

use std::sync::Arc;

use ipmi::Credentials;
use ipmi::crypto::{Exchange, Keys, Suite, key};
use ipmi::session::{Entropy, Login, Privilege, Received, Session};
use ipmi::wire::{
    BmcProof, Datagram, Kind, NetFn, OpenReply, OpenRequest, Opened, Rakp1, Rakp2, Rakp4,
    encode_plain,
};
use libfuzzer_sys::fuzz_target;

const CONSOLE: u32 = 0x1122_3344;
const BMC: u32 = 0x5566_7788;
const PASSWORD: &str = "sixteen bytes!!!";
const USER: &str = "admin";

/// The same bytes in every run.
struct Counter(u8);

impl Entropy for Counter {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, story)) = bytes.split_first() else {
        return;
    };
    let suite = if how & 1 == 0 {
        Suite::Three
    } else {
        Suite::Seventeen
    };
    let credentials = Credentials {
        user: USER.into(),
        password: PASSWORD.into(),
        kg: None,
    };
    let login = Arc::new(Login::new(&credentials, Privilege::Operator).expect("it fits"));
    let mut entropy = Counter(0);
    let (mut session, first) = Session::begin(login, suite, CONSOLE, &mut entropy);
    if how & 2 == 0 {
        strangers(&mut session, story, &mut entropy);
    } else {
        sealed(&mut session, (suite, &first), story, &mut entropy);
    }
    let _last = session.close(&mut entropy);
});

/// Cuts a story into pieces, each behind its length.
fn pieces(mut story: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (&[low, high], rest) = story.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (piece, rest) = rest.split_at(length);
        story = rest;
        Some(piece)
    })
}

/// Datagrams of somebody who does not know the password.
fn strangers(session: &mut Session, story: &[u8], entropy: &mut Counter) {
    for datagram in pieces(story) {
        let received = session.receive(datagram, entropy);
        assert!(
            !matches!(received, Received::Opened),
            "opened without a password"
        );
        assert!(!session.is_open());
    }
}

/// Whole packets of a BMC that knows it.
fn sealed(
    session: &mut Session,
    (suite, first): (Suite, &[u8]),
    story: &[u8],
    entropy: &mut Counter,
) {
    let keys = handshake(session, (suite, first), entropy);
    assert!(session.is_open());
    let ask = session.ask(NetFn::Chassis, 0x01, &[]);
    for (sequence, payload) in (1..).zip(pieces(story)) {
        let (kind, payload) = match payload.split_first() {
            Some((&0, rest)) => (Kind::Sol, rest),
            Some((&1, rest)) => (Kind::Rakp4, rest),
            _ => (Kind::Ipmi, payload),
        };
        let datagram = keys.seal(kind, CONSOLE, sequence, entropy.array(), payload);
        if let Received::Reply(answer) = session.receive(&datagram, entropy) {
            let _is_ours = ask.is_answered_by(&answer);
        }
        let again = session.receive(&datagram, entropy);
        assert!(matches!(again, Received::Ignored(_)), "taken twice");
    }
}

fn payload(datagram: &[u8]) -> &[u8] {
    match Datagram::decode(datagram) {
        Ok(Datagram::Session(packet)) => packet.payload,
        other => panic!("{other:?}"),
    }
}

/// The BMC's half of an honest handshake.
fn handshake(session: &mut Session, (suite, first): (Suite, &[u8]), entropy: &mut Counter) -> Keys {
    let send = |received| match received {
        Received::Send(datagram) => datagram,
        other => panic!("{other:?}"),
    };
    let open = OpenRequest::decode(payload(first)).expect("an open request");
    let reply = OpenReply {
        tag: open.tag,
        console: open.console,
        opened: Ok(Opened {
            privilege: open.privilege,
            bmc: BMC,
            algorithms: open.algorithms,
        }),
    };
    let reply = encode_plain(Kind::OpenReply, 0, &reply.encode());
    let datagram = send(session.receive(&reply, entropy));
    let rakp1 = Rakp1::decode(payload(&datagram)).expect("rakp 1");
    let exchange = Exchange {
        suite,
        console: CONSOLE,
        bmc: BMC,
        console_random: rakp1.random,
        bmc_random: [7; 16],
        guid: [9; 16],
        role: rakp1.role.0,
        user: USER.as_bytes(),
    };
    let password = key(PASSWORD.as_bytes()).expect("it fits");
    let code = exchange.rakp2(&password);
    let reply = Rakp2 {
        tag: rakp1.tag,
        console: CONSOLE,
        proof: Ok(BmcProof {
            random: exchange.bmc_random,
            guid: exchange.guid,
            code: code.as_bytes(),
        }),
    };
    let reply = encode_plain(Kind::Rakp2, 0, &reply.encode());
    let tag = payload(&send(session.receive(&reply, entropy)))[0];
    let (code, keys) = exchange.keys(&password);
    let reply = Rakp4 {
        tag,
        console: CONSOLE,
        proof: Ok(code.as_bytes()),
    };
    let reply = encode_plain(Kind::Rakp4, 0, &reply.encode());
    assert_eq!(session.receive(&reply, entropy), Received::Opened);
    keys
}
