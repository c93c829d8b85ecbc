use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Config, Firmware, Privilege, User};
use crate::bmc::{Credentials, Error, Health};
use crate::command::{Answered, Transact};
use crate::crypto::Suite;
use crate::session::{Kernel, Login, Received, Refusal, Session};
use crate::sim::{Board, Fault, Memory, Moment, Verdict};
use crate::wire::{Code, NetFn, Status, chassis};
use crate::{Identity, ResetKind, inventory};

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 40000);

/// A BMC and a console with a wire of no length between them.
struct Wire {
    firmware: Firmware,
    session: Session,
    now: Instant,
}

fn host() -> Arc<Memory> {
    let identity = Identity {
        guid: Some([7; 16]),
        serial: Some("SN-1".to_owned()),
        manufacturer: Some("Contoso".to_owned()),
        ..Identity::default()
    };
    Arc::new(Memory::new(identity))
}

fn config() -> Config {
    Config::new(vec![User {
        name: "operator".into(),
        password: "secret".into(),
        limit: Privilege::Operator,
    }])
}

fn firmware(board: Board, config: Config) -> Firmware {
    Firmware::new(board, Arc::new(config))
}

/// Opens a session, or tells why there is none; nothing at all where the BMC said nothing.
fn open(
    firmware: &mut Firmware,
    suite: Suite,
    console: u32,
    now: Instant,
) -> Option<Result<Session, Refusal>> {
    let credentials = Credentials {
        user: "operator".into(),
        password: "secret".into(),
        kg: None,
    };
    let login = Login::new(&credentials, Privilege::Operator).expect("it works");
    let (mut session, mut datagram) = Session::begin(Arc::new(login), suite, console, &mut Kernel);
    loop {
        let answers = firmware.receive(PEER, &datagram, now);
        match session.receive(&answers.first()?.bytes, &mut Kernel) {
            Received::Send(next) => datagram = next,
            Received::Opened => return Some(Ok(session)),
            Received::Refused(refusal) => return Some(Err(refusal)),
            other => panic!("{other:?}"),
        }
    }
}

impl Wire {
    fn new(board: Board, config: Config) -> Self {
        let now = Instant::now();
        let mut firmware = firmware(board, config);
        let session = open(&mut firmware, Suite::Seventeen, 1, now);
        Self {
            firmware,
            session: session.expect("an answer").expect("a session"),
            now,
        }
    }

    /// Asks once; none when no answer came.
    fn ask(&mut self, netfn: NetFn, command: u8, data: &[u8]) -> Option<Answered> {
        let ask = self.session.ask(netfn, command, data);
        let datagram = self.session.send(&ask, &mut Kernel).expect("it works");
        let answers = self.firmware.receive(PEER, &datagram, self.now);
        match self.session.receive(&answers.first()?.bytes, &mut Kernel) {
            Received::Reply(answer) if ask.is_answered_by(&answer) => Some(Answered {
                code: answer.code,
                data: answer.data,
            }),
            other => panic!("{other:?}"),
        }
    }

    fn raise(&mut self) {
        assert_eq!(
            self.ask(NetFn::App, 0x3b, &[3]).expect("it works").code,
            Code::OK
        );
    }
}

impl Transact for Wire {
    async fn transact(
        &mut self,
        netfn: NetFn,
        command: u8,
        data: &[u8],
    ) -> Result<Answered, Error> {
        self.ask(netfn, command, data).ok_or(Error::Unreachable {
            detail: "silence".to_owned(),
        })
    }
}

#[test]
fn acting_needs_a_raised_privilege() {
    let host = host();
    let mut wire = Wire::new(Board::new(Arc::clone(&host) as _), config());
    let on = (NetFn::Chassis, chassis::CONTROL, [1]);
    assert_eq!(wire.ask(on.0, on.1, &on.2).unwrap().code, Code::PRIVILEGE);
    // Reading needs none.
    let status = wire.ask(NetFn::Chassis, chassis::STATUS, &[]).unwrap();
    assert_eq!((status.code, status.data[0]), (Code::OK, 0));
    // The account is an operator's, and no more.
    assert_eq!(wire.ask(NetFn::App, 0x3b, &[4]).unwrap().code, Code(0x81));
    wire.raise();
    assert_eq!(wire.ask(on.0, on.1, &on.2).unwrap().code, Code::OK);
    assert_eq!(host.acts(), [ResetKind::On]);
}

#[test]
fn a_packet_that_is_sent_again_is_not_obeyed_again() {
    let host = host();
    let mut wire = Wire::new(Board::new(Arc::clone(&host) as _), config());
    wire.raise();
    let ask = wire.session.ask(NetFn::Chassis, chassis::CONTROL, &[1]);
    let datagram = wire.session.send(&ask, &mut Kernel).unwrap();
    assert_eq!(wire.firmware.receive(PEER, &datagram, wire.now).len(), 1);
    assert!(wire.firmware.receive(PEER, &datagram, wire.now).is_empty());
    assert_eq!(host.acts().len(), 1);
}

#[test]
fn sessions_are_bounded_and_end_when_idle_or_closed() {
    let now = Instant::now();
    let mut two = config();
    two.sessions = 2;
    let mut firmware = firmware(Board::new(host()), two);
    let mut first = open(&mut firmware, Suite::Three, 1, now).unwrap().unwrap();
    open(&mut firmware, Suite::Seventeen, 2, now)
        .unwrap()
        .unwrap();
    let full = |refused: Option<Result<Session, Refusal>>| match refused.unwrap() {
        Err(Refusal::Status { status, .. }) => status == Status::NO_RESOURCES,
        other => panic!("{other:?}"),
    };
    assert!(full(open(&mut firmware, Suite::Three, 3, now)));
    let close = first.close(&mut Kernel).unwrap();
    assert_eq!(firmware.receive(PEER, &close, now).len(), 1);
    open(&mut firmware, Suite::Three, 4, now).unwrap().unwrap();
    assert!(full(open(&mut firmware, Suite::Three, 5, now)));
    let later = now + Duration::from_secs(59);
    assert!(full(open(&mut firmware, Suite::Three, 6, later)));
    let later = now + Duration::from_secs(61);
    open(&mut firmware, Suite::Three, 7, later)
        .unwrap()
        .unwrap();
}

#[test]
fn faults_of_security_are_seen_by_the_client() {
    let now = Instant::now();
    let cases = [
        (Fault::Downgrade, "asked for cipher suite 17"),
        (Fault::Refuse, "unknown user name"),
        (Fault::SessionsExhausted, "no room for another session"),
    ];
    for (fault, expected) in cases {
        let board = Board::new(host());
        board.faults().set(fault);
        let refused = open(&mut firmware(board, config()), Suite::Seventeen, 1, now);
        let said = refused.unwrap().unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_hook_sees_each_request_and_may_silence_it() {
    let host = host();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let board = Board::new(Arc::clone(&host) as _).with_hook(Arc::new(move |request| {
        log.lock()
            .unwrap()
            .push((request.what.clone(), request.moment));
        // An answer that is lost on its way: done, and not said.
        if request.what == "chassis control: on" && request.moment == Moment::After {
            Verdict::Silence
        } else {
            Verdict::Proceed
        }
    }));
    let mut wire = Wire::new(board, config());
    wire.raise();
    assert_eq!(wire.ask(NetFn::Chassis, chassis::CONTROL, &[1]), None);
    assert_eq!(host.acts(), [ResetKind::On]);
    let seen = seen.lock().unwrap();
    let expected = ("chassis control: on".to_owned(), Moment::Before);
    assert!(seen.contains(&expected), "{seen:?}");
}

#[tokio::test]
async fn what_the_simulator_writes_the_client_reads() {
    let mut wire = Wire::new(Board::new(host()), config());
    wire.raise();
    for action in [1, 2, 0] {
        let done = wire.ask(NetFn::Chassis, chassis::CONTROL, &[action]);
        assert_eq!(done.unwrap().code, Code::OK);
    }
    let read = inventory::read(&mut wire, Identity::default())
        .await
        .unwrap();
    let sensors: Vec<_> = read
        .sensors
        .iter()
        .map(|sensor| (&*sensor.name, sensor.value, &*sensor.unit, sensor.health))
        .collect();
    let expected = [
        ("Inlet Temp", Some(22.0), "°C", Health::Good),
        ("CPU Temp", Some(24.0), "°C", Health::Good),
        // The host is off.
        ("Fan 1", None, "rpm", Health::Unknown),
        ("12V", None, "V", Health::Unknown),
        ("Power Draw", Some(6.0), "W", Health::Good),
        ("PSU 1", None, "", Health::Good),
    ];
    assert_eq!(sensors, expected);
    let events: Vec<_> = read.events.iter().map(|event| &*event.message).collect();
    assert_eq!(events, ["started by power on", "power cycle", "power off"]);
    let parts: Vec<_> = read.parts.iter().map(|part| &*part.name).collect();
    assert_eq!(parts, ["chassis", "board", "product"]);
    assert!(
        read.parts
            .iter()
            .all(|part| part.serial.as_deref() == Some("SN-1"))
    );
}
