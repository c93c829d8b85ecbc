//! The poller against simulated BMCs.

#![expect(
    clippy::unwrap_used,
    reason = "tests; the lint does not see `cfg(all(test, …))`"
)]

use std::net::Ipv4Addr;

use super::*;
use crate::bmc::{Credentials, Endpoint, Identity, Trust, Waivers};
use crate::crypto::Suite;
use crate::sim::ipmi::{Config, Privilege as Limit, User, serve};
use crate::sim::{Board, Fault, Faults, Memory as Host};

fn bmc(port: u16, password: &str) -> Arc<Bmc> {
    let endpoint = Endpoint {
        protocol: Protocol::Ipmi,
        host: "127.0.0.1".into(),
        port: Some(port),
        system: None,
        trust: Trust::FirstUse,
        waivers: Waivers::default(),
        vendor: None,
    };
    let credentials = Credentials {
        user: "admin".into(),
        password: password.to_owned().into(),
        kg: None,
    };
    Arc::new(Bmc::new(endpoint, credentials).unwrap())
}

async fn simulate(running: bool, suites: &[Suite], fault: Option<Fault>) -> u16 {
    let host = Host::new(Identity::default());
    let host = if running { host.running() } else { host };
    let board = Board::new(Arc::new(host)).with_faults(Arc::new(Faults::new(fault)));
    let user = User {
        name: "admin".into(),
        password: "secret".to_owned().into(),
        limit: Limit::Administrator,
    };
    let config = Config {
        suites: suites.to_vec(),
        ..Config::new(vec![user])
    };
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(serve(socket, board, config));
    port
}

#[tokio::test]
async fn a_sweep_answers_for_each_in_order_and_spares_who_was_just_asked() {
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut bmcs = vec![
        bmc(simulate(true, &[Suite::Seventeen], None).await, "secret"),
        bmc(silent.local_addr().unwrap().port(), "secret"),
        bmc(simulate(false, &[Suite::Three], None).await, "secret"),
        bmc(simulate(false, &[Suite::Three], None).await, "wrong"),
        bmc(
            simulate(
                true,
                &[Suite::Three, Suite::Seventeen],
                Some(Fault::Duplicate),
            )
            .await,
            "secret",
        ),
        bmc(
            simulate(
                true,
                &[Suite::Three, Suite::Seventeen],
                Some(Fault::Downgrade),
            )
            .await,
            "secret",
        ),
    ];
    for _ in 0..200 {
        bmcs.push(bmc(
            simulate(true, &[Suite::Seventeen], None).await,
            "secret",
        ));
    }
    let mut poller = Poller::bind(Pace {
        window: 16,
        wait: Duration::from_millis(300),
        ..Pace::default()
    })
    .unwrap();
    let held = Arc::clone(bmcs[6].gate()).lock_owned().await;
    let readings = poller.sweep(&bmcs).await;
    assert_eq!(readings[0], Reading::Power(PowerState::On));
    assert!(
        matches!(readings[1], Reading::Failed(Error::Unreachable { .. })),
        "{:?}",
        readings[1]
    );
    assert_eq!(readings[2], Reading::Power(PowerState::Off));
    assert!(
        matches!(readings[3], Reading::Failed(Error::Refused { .. })),
        "{:?}",
        readings[3]
    );
    assert_eq!(readings[4], Reading::Power(PowerState::On));
    assert!(
        matches!(readings[5], Reading::Failed(Error::Insecure { .. })),
        "{:?}",
        readings[5]
    );
    assert_eq!(readings[6], Reading::Skipped(Rest::Busy));
    assert!(
        readings[7..]
            .iter()
            .all(|reading| *reading == Reading::Power(PowerState::On))
    );
    drop(held);
    poller.sweep(&bmcs).await;
    let third = poller.sweep(&bmcs).await;
    assert_eq!(third[0], Reading::Skipped(Rest::Recent));
    assert_eq!(third[6], Reading::Power(PowerState::On));
}

#[tokio::test]
async fn lost_packets_cost_time_and_no_answers() {
    let mut bmcs = Vec::new();
    for _ in 0..50 {
        bmcs.push(bmc(
            simulate(true, &[Suite::Seventeen], Some(Fault::Drop(10))).await,
            "secret",
        ));
    }
    let pace = Pace {
        // Longer than a busy machine keeps fifty simulators from answering.
        wait: Duration::from_millis(400),
        tries: 12,
        ..Pace::default()
    };
    let readings = Poller::bind(pace).unwrap().sweep(&bmcs).await;
    assert!(
        readings
            .iter()
            .all(|reading| *reading == Reading::Power(PowerState::On)),
        "{readings:?}"
    );
}
