//! Each row of the vendor table, replayed against a simulator that behaves like that.
//!
//! Where a row tells the client something, the same is tried without it and must fail: no row is for nothing.

use std::time::Duration;

use super::tests::{Sim, config, network};
use crate::bmc::Conversation as _;
use crate::sim::redfish::{Config, Manner};
use crate::vendor::{Row, Rule, Settled, TABLE};
use crate::{BootDevice, BootOverride, Error, PowerState, ResetKind, Sent};

const SPELL: Duration = Duration::from_secs(2);

/// How a service behaves that the row is about.
fn manner(rule: Rule) -> Manner {
    match rule {
        Rule::SendEnabled => Manner::NeedsEnabled,
        Rule::SendMode => Manner::ForgetsMode,
        Rule::ToSettings => Manner::SettingsOnly,
        Rule::NoIfMatch => Manner::IfMatchCrashes,
        Rule::HttpUri(attribute) => Manner::UriInSetup(attribute),
        Rule::Passes { message, .. } => match message {
            "ActionParameterValueConflict" => Manner::SlowOff(SPELL),
            "SYS518" => Manner::NotReady(SPELL),
            "UnableToModifyDuringSystemPOST" => Manner::InPost(SPELL),
            other => panic!("no service says {other}"),
        },
        Rule::OnceReadsContinuous => Manner::OnceReadsContinuous,
        Rule::Settled(settled) => match settled {
            Settled::Required => Manner::WantsIfMatch,
            Settled::Refused => Manner::NoIfMatchOnActions,
            Settled::Stripped => Manner::StrippedEtag,
            Settled::Empty => Manner::EmptyEtag,
            Settled::Mode => Manner::NoMode,
            Settled::UriWithPxe => Manner::NoUriWithPxe,
            Settled::SetAnyway => Manner::RefusesAnyway,
            Settled::EmptyBody => Manner::NeedsBody,
            Settled::NoSession => Manner::NoSessions,
        },
    }
}

/// Turns a host off and on, and has it boot from the network once although it has booted from disk once before.
async fn deploy(row: &Row, vendor: &str) -> Result<(), Error> {
    let config = Config {
        vendor: "Contoso".to_owned(),
        manners: vec![manner(row.rule)],
        ..config()
    };
    let mut sim = Sim::start(config).await;
    sim.endpoint.vendor = Some(vendor.into());
    let mut chain = sim.open().await?;
    let device = match row.rule {
        Rule::HttpUri(_) => BootDevice::Http {
            uri: Some("http://10.77.0.1/boot.efi".to_owned()),
        },
        _ => BootDevice::Network,
    };
    let wanted = BootOverride {
        device,
        ..network()
    };
    let disk = BootOverride {
        device: BootDevice::Disk,
        ..network()
    };
    for boot in [&disk, &wanted] {
        if *boot == disk {
            use crate::sim::Chassis as _;
            sim.host.set_boot_override(Some(disk.clone())).unwrap();
            continue;
        }
        set(&mut chain, boot).await?;
    }
    for (kind, power) in [
        (ResetKind::On, PowerState::On),
        (ResetKind::ForceOff, PowerState::Off),
        (ResetKind::On, PowerState::On),
    ] {
        assert_eq!(chain.reset(kind).await?, Sent::Accepted, "{row:?}");
        assert_eq!(chain.power().await?, power, "{row:?}");
    }
    set(&mut chain, &wanted).await?;
    chain.close().await;
    let boots = sim.host.boots();
    assert_eq!(boots, [Some(wanted), None], "{row:?}");
    Ok(())
}

async fn set(chain: &mut super::Chain, wanted: &BootOverride) -> Result<(), Error> {
    chain.set_boot(wanted).await?;
    let found = chain.boot().await?;
    if found.as_ref() == Some(wanted) {
        return Ok(());
    }
    Err(Error::NotVerified {
        wanted: wanted.to_string(),
        found: format!("{found:?}"),
    })
}

#[tokio::test]
async fn every_row_is_obeyed_and_needed() {
    let mut replays = tokio::task::JoinSet::new();
    for row in TABLE {
        replays.spawn(async move {
            let with = deploy(row, row.vendor).await;
            assert_eq!(with, Ok(()), "{row:?}");
            if !matches!(row.rule, Rule::Settled(_)) {
                let without = deploy(row, "nobody").await;
                assert!(without.is_err(), "{row:?} is for nothing");
            }
        });
    }
    assert_eq!(replays.join_all().await.len(), TABLE.len());
}

#[tokio::test]
async fn every_vendor_is_obeyed_as_a_whole() {
    let mut vendors: Vec<_> = TABLE.iter().map(|row| row.vendor).collect();
    vendors.dedup();
    let mut replays = tokio::task::JoinSet::new();
    for vendor in vendors {
        replays.spawn(async move {
            let sim = Sim::start(config().vendor(vendor)).await;
            let mut chain = sim.open().await.unwrap();
            // Recognised by what the service calls itself.
            let known = crate::vendor::named(vendor);
            assert_eq!(chain.profile.vendor(), known, "{vendor}");
            set(&mut chain, &network())
                .await
                .unwrap_or_else(|error| panic!("{vendor}: {error}"));
            let sent = chain.reset(ResetKind::On).await;
            assert_eq!(sent, Ok(Sent::Accepted), "{vendor}");
            chain.close().await;
            assert_eq!(sim.host.boots(), [Some(network())], "{vendor}");
        });
    }
    replays.join_all().await;
}
