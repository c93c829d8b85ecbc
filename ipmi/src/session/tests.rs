//! Keys and packets against known ones, and sessions against any bytes.

use proptest::prelude::*;

use super::*;
use crate::crypto::key;

/// Random numbers that are not: 1, 2, 3 …
struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
    }
}

fn exchange(suite: Suite) -> Exchange<'static> {
    Exchange {
        suite,
        console: 0xa0a1_a2a3,
        bmc: 0x0200_0000,
        console_random: *b"console random 1",
        bmc_random: *b"the bmc random 2",
        guid: *b"the system guid!",
        role: 0x14,
        user: b"admin",
    }
}

#[test]
fn codes_and_keys_are_the_known_ones() {
    // Computed with Python's hmac from the formulas of IPMI 2.0 §13.31 and §13.32.
    let password = key(b"S3cret-16-bytes!").unwrap();
    let kg = key(b"a bmc key").unwrap();
    for (suite, rakp2, rakp3, rakp4) in KNOWN {
        let exchange = exchange(suite);
        assert_eq!(
            hex(exchange.rakp2(&password).as_bytes()),
            rakp2,
            "rakp 2, suite {suite}"
        );
        assert_eq!(
            hex(exchange.rakp3(&password).as_bytes()),
            rakp3,
            "rakp 3, suite {suite}"
        );
        assert_eq!(
            hex(exchange.keys(&kg).0.as_bytes()),
            rakp4,
            "rakp 4, suite {suite}"
        );
    }
}

#[test]
fn a_sealed_packet_is_the_known_one_and_opens() {
    let kg = key(b"a bmc key").unwrap();
    for (suite, known) in SEALED {
        let (_, keys) = exchange(suite).keys(&kg);
        let datagram = keys.seal(Kind::Ipmi, 0x0200_0000, 7, *b"0123456789abcdef", b"hello");
        assert_eq!(hex(&datagram), known, "suite {suite}");
        let Ok(Datagram::Session(packet)) = Datagram::decode(&datagram) else {
            panic!("not a packet");
        };
        assert_eq!(keys.open(&packet).as_deref(), Ok(&b"hello"[..]));
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Suite, codes of RAKP 2, 3 and 4.
const KNOWN: [(Suite, &str, &str, &str); 2] = [
    (
        Suite::Three,
        "5d622123c758899bf976a4bd026228bceef9c052",
        "bdf5712eba89b054f365cbec5fc972195599e281",
        "a26678071728a4d3ba2d6e49",
    ),
    (
        Suite::Seventeen,
        "0c33b0f2a65cb44d5e9b8dd537d568736faab265feea7d48bbe9f3d08d5e8d1b",
        "3168a6ca73f181ae5b991be62cae6cca9bd4f73849380fa9fe894b2140eaf14d",
        "786a31f6d348a552881dcf42bfc87ab4",
    ),
];

/// Suite, and a whole datagram.
const SEALED: [(Suite, &str); 2] = [
    (
        Suite::Three,
        "0600ff0706c00000000207000000200030313233343536373839616263646566e66d0bd0990502675fb2a68670cabb9affff02072154e69e5abf3ce65d7bf438",
    ),
    (
        Suite::Seventeen,
        "0600ff0706c00000000207000000200030313233343536373839616263646566136f8966d91abeb08f481ac67f3f71daffff0207028664ae4c6a5c4bdd1f3c9d42dc2fa7",
    ),
];

#[test]
fn secrets_are_not_printed() {
    let credentials = crate::Credentials {
        user: "admin".into(),
        password: "canary-password".to_owned().into(),
        kg: Some(b"canary-kg".to_vec().into()),
    };
    let login = Arc::new(Login::new(&credentials, Privilege::Operator).unwrap());
    let (session, _) = Session::begin(Arc::clone(&login), Suite::Seventeen, 1, &mut Counting(0));
    let (legacy, _) = LegacySession::begin(Arc::clone(&login));
    let (code, keys) = exchange(Suite::Seventeen).keys(&key(b"canary-kg").unwrap());
    let text = format!("{credentials:?} {login:?} {session:?} {legacy:?} {code:?} {keys:?}");
    assert!(
        !text.contains("canary") && !text.contains(&format!("{:?}", b"canary-kg")),
        "{text}"
    );
}

proptest! {
    #[test]
    fn a_sealed_packet_opens_once_it_is_whole(payload in proptest::collection::vec(any::<u8>(), 0..300), flip: proptest::sample::Index, bit in 0_u8..8) {
        for suite in [Suite::Three, Suite::Seventeen] {
            let (_, keys) = exchange(suite).keys(&key(b"k").unwrap());
            let mut datagram = keys.seal(Kind::Sol, 1, 2, [9; 16], &payload);
            let Ok(Datagram::Session(packet)) = Datagram::decode(&datagram) else { panic!("not a packet") };
            let opened = keys.open(&packet);
            prop_assert_eq!(opened.as_ref(), Ok(&payload));
            // Any changed bit beyond the RMCP header is seen.
            let index = 4 + flip.index(datagram.len() - 4);
            datagram[index] ^= 1 << bit;
            if let Ok(Datagram::Session(packet)) = Datagram::decode(&datagram) {
                prop_assert!(keys.open(&packet).is_err());
            }
        }
    }

    #[test]
    fn no_datagram_makes_a_session_panic(datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..8)) {
        let credentials = crate::Credentials { user: "u".into(), password: "p".to_owned().into(), kg: None };
        let login = Arc::new(Login::new(&credentials, Privilege::User).unwrap());
        let (mut session, _) = Session::begin(Arc::clone(&login), Suite::Three, 1, &mut Counting(0));
        let (mut legacy, _) = LegacySession::begin(login);
        for bytes in datagrams {
            for head in [&[6, 0, 0xff, 7, 6][..], &[6, 0, 0xff, 7, 0]] {
                let datagram = [head, &bytes].concat();
                drop(session.receive(&datagram, &mut Counting(3)));
                drop(legacy.receive(&datagram, &mut Counting(3)));
            }
        }
        prop_assert!(!session.is_open() && !legacy.is_open());
    }
}
