//! The facade against simulated BMCs that misbehave.

#![expect(
    clippy::unwrap_used,
    reason = "tests; the lint does not see `cfg(all(test, …))`"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::*;
use crate::crypto::Suite;
use crate::journal::{self, Step};
use crate::sim::ipmi::{Config, Privilege as Limit, User, serve};
use crate::sim::{Board, Chassis, Fault, Faults, Memory as Host, Moment, Verdict};

mod loss;

const PASSWORD: &str = "correct horse 16";
const DEADLINE: Duration = Duration::from_secs(20);

struct Rack {
    host: Arc<Host>,
    faults: Arc<Faults>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for Rack {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn identity() -> Identity {
    Identity {
        guid: Some(*b"a guid of a host"),
        serial: Some("SN1".to_owned()),
        ..Identity::default()
    }
}

fn config() -> Config {
    let user = |name: &str, limit| User {
        name: name.into(),
        password: PASSWORD.to_owned().into(),
        limit,
    };
    Config::new(vec![
        user("operator", Limit::Operator),
        user("reader", Limit::User),
    ])
}

async fn rack(host: Host, config: Config) -> Rack {
    rack_with(host, config, |board| board).await
}

async fn rack_with(host: Host, config: Config, with: impl FnOnce(Board) -> Board) -> Rack {
    let host = Arc::new(host);
    let faults = Arc::new(Faults::default());
    let board =
        with(Board::new(Arc::clone(&host) as Arc<dyn Chassis>).with_faults(Arc::clone(&faults)));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let server = tokio::spawn(async move {
        serve(socket, board, config).await.unwrap();
    });
    Rack {
        host,
        faults,
        address,
        server,
    }
}

impl Rack {
    fn endpoint(&self) -> Endpoint {
        Endpoint {
            protocol: Protocol::Ipmi,
            host: self.address.ip().to_string().into(),
            port: Some(self.address.port()),
            system: None,
            trust: Trust::FirstUse,
            waivers: Waivers::default(),
            vendor: None,
        }
    }

    fn bmc_as(&self, user: &str, password: &str) -> Bmc {
        let credentials = Credentials {
            user: user.into(),
            password: password.to_owned().into(),
            kg: None,
        };
        Bmc::new(self.endpoint(), credentials).unwrap()
    }

    fn bmc(&self) -> Bmc {
        self.bmc_as("operator", PASSWORD)
    }

    async fn run(&self, intent: Intent) -> Result<Done, Error> {
        let expected = identity().expected();
        self.bmc()
            .execute(&expected, &intent, &journal::Memory::default(), DEADLINE)
            .await
    }
}

fn pxe() -> BootOverride {
    BootOverride {
        device: BootDevice::Network,
        persistence: Persistence::Once,
        firmware: BootFirmware::Uefi,
    }
}

#[tokio::test]
async fn a_deploy_is_off_then_boot_then_on_and_each_is_read_back() {
    for suite in [Suite::Three, Suite::Seventeen] {
        let rack = rack(
            Host::new(identity()).running(),
            Config {
                suites: vec![suite],
                ..config()
            },
        )
        .await;
        let off = rack.run(Intent::EnsureOff(Off::Forced)).await.unwrap();
        assert_eq!((off.power, off.acted), (PowerState::Off, Acted::Sent));
        let boot = rack.run(Intent::Boot(pxe())).await.unwrap();
        assert_eq!(boot.boot, Some(pxe()));
        let on = rack.run(Intent::EnsureOn).await.unwrap();
        assert_eq!((on.power, on.acted), (PowerState::On, Acted::Sent));
        assert_eq!(on.identity.guid, identity().guid);
        assert_eq!(
            rack.host.acts(),
            [ResetKind::ForceOff, ResetKind::On],
            "suite {suite}"
        );
        assert_eq!(rack.host.boots(), [Some(pxe())]);
    }
}

#[tokio::test]
async fn what_is_so_already_is_not_touched() {
    let rack = rack(Host::new(identity()).running(), config()).await;
    let on = rack.run(Intent::EnsureOn).await.unwrap();
    assert_eq!((on.power, on.acted), (PowerState::On, Acted::Nothing));
    assert!(rack.host.acts().is_empty());
}

#[tokio::test]
async fn another_machine_is_not_touched() {
    let rack = rack(Host::new(identity()).running(), config()).await;
    rack.faults.set(Fault::OtherIdentity(Identity {
        guid: Some([7; 16]),
        ..identity()
    }));
    for intent in [
        Intent::EnsureOff(Off::Forced),
        Intent::EnsureOn,
        Intent::Boot(pxe()),
        Intent::Diagnose,
    ] {
        let refused = rack.run(intent).await.unwrap_err();
        assert!(matches!(refused, Error::WrongHost { .. }), "{refused}");
    }
    rack.faults.clear();
    let unrecorded = rack
        .bmc()
        .execute(
            &Expected::default(),
            &Intent::EnsureOff(Off::Forced),
            &journal::Memory::default(),
            DEADLINE,
        )
        .await;
    assert_eq!(unrecorded, Err(Error::Unrecorded));
    assert!(rack.host.acts().is_empty());
}

#[tokio::test]
async fn a_bmc_that_lies_is_not_believed() {
    let rack = rack(Host::new(identity()).running(), config()).await;
    rack.faults.set(Fault::LiesAboutPower);
    rack.faults.set(Fault::LiesAboutBoot);
    let expected = identity().expected();
    let short = Duration::from_secs(3);
    let journal = journal::Memory::default();
    for intent in [Intent::EnsureOff(Off::Forced), Intent::Boot(pxe())] {
        let found = rack
            .bmc()
            .execute(&expected, &intent, &journal, short)
            .await
            .unwrap_err();
        assert!(
            matches!(found, Error::NotVerified { .. }),
            "{intent}: {found}"
        );
    }
}

#[tokio::test]
async fn a_command_without_an_answer_is_not_sent_again() {
    // The command arrives and is obeyed; the answer to it never comes.
    let mute = |board: Board| {
        board.with_hook(Arc::new(|request| {
            let control = request.what.starts_with("chassis control");
            if control && request.moment == Moment::After {
                Verdict::Silence
            } else {
                Verdict::Proceed
            }
        }))
    };
    let rack = rack_with(Host::new(identity()).running(), config(), mute).await;
    let off = rack.run(Intent::EnsureOff(Off::Forced)).await.unwrap();
    assert_eq!((off.power, off.acted), (PowerState::Off, Acted::Sent));
    assert_eq!(rack.host.acts(), [ResetKind::ForceOff]);
}

#[tokio::test]
async fn a_command_that_is_lost_is_told_as_unknown_and_not_sent_again() {
    let deaf = |board: Board| {
        board.with_hook(Arc::new(|request| {
            if request.what.starts_with("chassis control") {
                Verdict::Silence
            } else {
                Verdict::Proceed
            }
        }))
    };
    let rack = rack_with(Host::new(identity()).running(), config(), deaf).await;
    let unknown = rack
        .bmc()
        .execute(
            &identity().expected(),
            &Intent::EnsureOff(Off::Forced),
            &journal::Memory::default(),
            Duration::from_secs(12),
        )
        .await
        .unwrap_err();
    assert!(matches!(unknown, Error::Unknown { .. }), "{unknown}");
    assert!(unknown.is_transient());
}

/// A journal that does not let anything happen, and remembers what it was asked.
#[derive(Debug, Default)]
struct NoLeave(std::sync::Mutex<Vec<ResetKind>>);

impl Journal for NoLeave {
    fn last<'a>(&'a self, _: &'a OperationId) -> journal::Later<'a, Option<Step>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn record<'a>(&'a self, _: &'a OperationId, _: Step) -> journal::Later<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn about(&self, kind: ResetKind) -> journal::Later<'_, ()> {
        self.0.lock().unwrap().push(kind);
        let why = journal::Failure("called off".to_owned());
        Box::pin(std::future::ready(Err(why)))
    }
}

#[tokio::test]
async fn nothing_takes_the_power_without_leave() {
    let within = Duration::from_secs(1);
    let cases = [
        (Intent::EnsureOff(Off::Forced), ResetKind::ForceOff),
        (
            Intent::EnsureOff(Off::Graceful { within }),
            ResetKind::GracefulShutdown,
        ),
        (
            Intent::CycleOnce(OperationId("1".to_owned())),
            ResetKind::ForceOff,
        ),
    ];
    for (intent, kind) in cases {
        let rack = rack(Host::new(identity()).running(), config()).await;
        let journal = NoLeave::default();
        let expected = identity().expected();
        let refused = rack
            .bmc()
            .execute(&expected, &intent, &journal, DEADLINE)
            .await;
        assert!(
            matches!(refused, Err(Error::Journal { .. })),
            "{intent}: {refused:?}"
        );
        assert_eq!(*journal.0.lock().unwrap(), [kind], "{intent}");
        assert_eq!(rack.host.acts(), [], "{intent}");
        // What gives power needs no leave.
        let off = self::rack(Host::new(identity()), config()).await;
        let on = off
            .bmc()
            .execute(&expected, &Intent::EnsureOn, &journal, DEADLINE)
            .await;
        assert_eq!(on.map(|on| on.acted), Ok(Acted::Sent));
    }
}

#[tokio::test]
async fn half_of_the_packets_may_be_lost() {
    let config = Config {
        sessions: 256,
        ..config()
    };
    let rack = rack(Host::new(identity()).running(), config).await;
    rack.faults.set(Fault::Drop(50));
    assert_eq!(rack.bmc().power(6 * DEADLINE).await, Ok(PowerState::On));
}

#[tokio::test]
async fn lost_packets_never_send_off_twice() {
    let rack = rack(Host::new(identity()).running(), config()).await;
    rack.faults.set(Fault::Drop(15));
    let expected = identity().expected();
    let journal = journal::Memory::default();
    for intent in [
        Intent::EnsureOff(Off::Forced),
        Intent::Boot(pxe()),
        Intent::EnsureOn,
    ] {
        // A command that was lost is told as unknown; asking again begins with a look.
        while let Err(error) = rack
            .bmc()
            .execute(&expected, &intent, &journal, DEADLINE)
            .await
        {
            assert!(error.is_transient(), "{error}");
        }
    }
    let offs = rack
        .host
        .acts()
        .iter()
        .filter(|act| **act == ResetKind::ForceOff)
        .count();
    assert_eq!(offs, 1);
    assert_eq!(rack.host.power(), PowerState::On);
}

#[tokio::test]
async fn duplicates_and_late_answers_change_nothing() {
    for fault in [Fault::Duplicate, Fault::Late(Duration::from_millis(700))] {
        let rack = rack(Host::new(identity()).running(), config()).await;
        rack.faults.set(fault.clone());
        let off = rack
            .run(Intent::EnsureOff(Off::Forced))
            .await
            .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(off.power, PowerState::Off, "{fault:?}");
        assert_eq!(
            rack.run(Intent::EnsureOn).await.unwrap().power,
            PowerState::On,
            "{fault:?}"
        );
        assert_eq!(
            rack.host.acts(),
            [ResetKind::ForceOff, ResetKind::On],
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn short_answers_are_an_error_and_not_a_panic() {
    let rack = rack(Host::new(identity()).running(), config()).await;
    rack.faults.set(Fault::Short);
    let error = rack.bmc().power(Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_downgrade_is_refused() {
    let rack = rack(Host::new(identity()).running(), config()).await;
    rack.faults.set(Fault::Downgrade);
    let error = rack.bmc().power(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, Error::Insecure { .. }), "{error}");
}

#[tokio::test]
async fn what_worked_once_is_the_least_that_is_accepted() {
    let rack = rack(Host::new(identity()), config()).await;
    let bmc = rack.bmc();
    bmc.power(DEADLINE).await.unwrap();
    let weaker = self::rack(
        Host::new(identity()),
        Config {
            suites: vec![Suite::Three],
            ..config()
        },
    )
    .await;
    assert_eq!(
        weaker.bmc().power(DEADLINE).await,
        Ok(PowerState::Off),
        "3 will do where 17 never worked"
    );
    let endpoint = Endpoint {
        port: Some(weaker.address.port()),
        ..bmc.endpoint.clone()
    };
    let bmc = Bmc { endpoint, ..bmc };
    let error = bmc.power(DEADLINE).await.unwrap_err();
    assert!(matches!(error, Error::Insecure { .. }), "{error}");
}

#[tokio::test]
async fn lag_is_waited_for() {
    let rack = rack(Host::new(identity()).running(), config()).await;
    rack.faults.set(Fault::Lag(Duration::from_secs(5)));
    let off = rack.run(Intent::EnsureOff(Off::Forced)).await.unwrap();
    assert_eq!((off.power, off.acted), (PowerState::Off, Acted::Sent));
    assert!(off.elapsed >= Duration::from_secs(5));
    assert_eq!(rack.host.acts(), [ResetKind::ForceOff]);
}

#[tokio::test]
async fn wrong_passwords_users_and_keys_are_refusals() {
    let kg = crate::crypto::key(b"a bmc key").unwrap();
    let plain = rack(Host::new(identity()), config()).await;
    let keyed = rack(
        Host::new(identity()),
        Config {
            kg: Some(kg),
            ..config()
        },
    )
    .await;
    let cases = [
        ("password", plain.bmc_as("operator", "wrong")),
        ("user", plain.bmc_as("nobody", PASSWORD)),
        ("kg", keyed.bmc()),
    ];
    for (name, bmc) in cases {
        let error = bmc.power(Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{name}: {error}");
    }
    let credentials = Credentials {
        user: "operator".into(),
        password: PASSWORD.to_owned().into(),
        kg: Some(b"a bmc key".to_vec().into()),
    };
    let bmc = Bmc::new(keyed.endpoint(), credentials).unwrap();
    assert_eq!(bmc.power(DEADLINE).await, Ok(PowerState::Off));
}

#[tokio::test]
async fn a_reader_reads_and_may_not_act() {
    let rack = rack(Host::new(identity()).running(), config()).await;
    let bmc = rack.bmc_as("reader", PASSWORD);
    assert_eq!(bmc.power(DEADLINE).await, Ok(PowerState::On));
    let error = bmc
        .execute(
            &identity().expected(),
            &Intent::EnsureOff(Off::Forced),
            &journal::Memory::default(),
            DEADLINE,
        )
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(rack.host.acts().is_empty());
}

#[tokio::test]
async fn sessions_are_closed_on_every_path() {
    let rack = rack(
        Host::new(identity()),
        Config {
            sessions: 2,
            ..config()
        },
    )
    .await;
    let bmc = Arc::new(rack.bmc());
    for _ in 0..6 {
        assert_eq!(bmc.power(DEADLINE).await, Ok(PowerState::Off));
    }
    for round in 0..6 {
        // Cancelled somewhere in the handshake, the read or the close.
        let patience = Duration::from_micros(200 * round);
        let cancelled = tokio::time::timeout(patience, bmc.power(DEADLINE)).await;
        drop(cancelled);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(bmc.power(Duration::from_secs(5)).await, Ok(PowerState::Off));
}

#[tokio::test]
async fn a_cycle_happens_once_however_often_it_is_asked_for() {
    let rack = rack(Host::new(identity()).running(), config()).await;
    let journal = journal::Memory::default();
    let intent = Intent::CycleOnce(OperationId("op-1".to_owned()));
    let expected = identity().expected();
    for acted in [Acted::Sent, Acted::Nothing, Acted::Nothing] {
        let done = rack
            .bmc()
            .execute(&expected, &intent, &journal, DEADLINE)
            .await
            .unwrap();
        assert_eq!((done.power, done.acted), (PowerState::On, acted));
    }
    assert_eq!(rack.host.acts(), [ResetKind::ForceOff, ResetKind::On]);
}

#[tokio::test]
async fn a_cycle_goes_on_where_a_crash_left_it() {
    use crate::journal::Journal as _;
    let operation = OperationId("op-1".to_owned());
    let intent = Intent::CycleOnce(operation.clone());
    let expected = identity().expected();
    // Crashed after the host was seen off, and after "off" was sent and obeyed.
    for step in [Step::SeenOff, Step::Off] {
        let rack = rack(Host::new(identity()), config()).await;
        let journal = journal::Memory::default();
        journal.record(&operation, step).await.unwrap();
        let done = rack
            .bmc()
            .execute(&expected, &intent, &journal, DEADLINE)
            .await
            .unwrap();
        assert_eq!(done.power, PowerState::On);
        assert_eq!(rack.host.acts(), [ResetKind::On], "{step:?}");
    }
    // Crashed between writing "off" down and the host going off: nobody knows whether it was sent.
    let rack = rack(Host::new(identity()).running(), config()).await;
    let journal = journal::Memory::default();
    journal.record(&operation, Step::Off).await.unwrap();
    let error = rack
        .bmc()
        .execute(&expected, &intent, &journal, Duration::from_secs(2))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    assert!(rack.host.acts().is_empty());
}
