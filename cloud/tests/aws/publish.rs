//! What a publish brings about, and what the next one does.

use std::collections::BTreeSet;

use cloud::aws::{Bounds, Target};
use cloud::fake::aws::Rules;
use cloud::{Provider as _, Stage};
use image_manifest::block_map::Kind;

use crate::bench::{Bench, advance};

/// A target with everything that there is.
pub(crate) const FULL: &str = "
regions = ['eu-west-1', 'eu-north-1']
accounts = ['444455556666']
organisations = ['arn:aws:organizations::111122223333:organization/o-abc']
organisational-units = ['arn:aws:organizations::111122223333:ou/o-abc/ou-def']
tags = { team = 'boot' }
parameters = ['/images/{image}/{architecture}/newest', '/images/{image}/{version}']
deprecate-after = 30
deregistration-protection = true
tpm = true
launch = { type = 't3.small', subnet = 'subnet-0abc' }
";

fn slow() -> Rules {
    Rules {
        pending: 2,
        hidden: 2,
        ..Rules::default()
    }
}

#[tokio::test]
async fn an_image_is_published_once() {
    let bench = Bench::new(slow(), FULL).await;
    let mut first = bench.publisher();
    first.observe().await.unwrap();
    assert_eq!(first.check().await.unwrap(), []);
    assert_eq!(
        bench.server.changes(),
        0,
        "looking and asking changes nothing"
    );
    let planned: Vec<_> = first
        .plan()
        .iter()
        .map(|step| (step.action, step.place.clone()))
        .collect();
    assert_eq!(planned[0], ("upload-snapshot", "eu-west-1".to_owned()));
    assert_eq!(planned.len(), 3 + 1 + 2 * 4 + 2 * 2, "{planned:?}");
    advance(&mut first).await.unwrap();
    bench.assert_published(&["eu-west-1", "eu-north-1"]);
    for region in ["eu-west-1", "eu-north-1"] {
        let image = bench.aws.images(region).remove(0);
        let found = (
            image.architecture.as_str(),
            image.boot_mode.as_str(),
            image.virtualization.as_str(),
        );
        assert_eq!(found, ("x86_64", "uefi", "hvm"));
        assert_eq!(
            (image.tpm.as_str(), image.imds.as_str(), image.ena),
            ("v2.0", "v2.0", true)
        );
        assert_eq!(
            image.deprecated,
            Some((image.created + 30 * 86_400) / 60 * 60)
        );
        assert!(image.protected);
        assert_eq!(image.tags["team"], "boot");
        assert_eq!(image.grants.len(), 3, "{:?}", image.grants);
        let snapshot = bench.aws.snapshots(region).remove(0);
        assert_eq!(
            snapshot.accounts,
            BTreeSet::from(["444455556666".to_owned()])
        );
        assert_eq!(
            snapshot.written(),
            7,
            "only data and zeros that somebody may read"
        );
        for name in [
            "/images/host/amd64/newest",
            "/images/host/20260102-0123abcd",
        ] {
            let parameter = bench.aws.parameter(region, name).unwrap();
            assert_eq!(
                (parameter.value.as_str(), parameter.data_type.as_str()),
                (image.id.as_str(), "aws:ec2:image")
            );
            assert_eq!(parameter.tags["firstboot:image"], "host");
        }
    }
    assert_eq!(first.receipts().len(), 2 * 4);
    assert!(
        first
            .receipts()
            .iter()
            .all(|receipt| receipt.stage == Stage::Current)
    );
    bench.server.reset();
    let second = bench.publish().await.unwrap();
    assert_eq!(bench.server.changes(), 0, "{:?}", bench.server.calls());
    assert_eq!(second.plan(), []);
    assert_eq!(second.receipts(), first.receipts());
}

#[tokio::test]
async fn what_is_not_wanted_any_more_is_taken_back() {
    let mut bench = Bench::new(Rules::default(), FULL).await;
    bench.publish().await.unwrap();
    bench.target = bench
        .target
        .replace("accounts = ['444455556666']", "accounts = ['777788889999']");
    bench.target = bench
        .target
        .replace("team = 'boot'", "team = 'base', cost = '1'");
    bench.publish().await.unwrap();
    let image = bench.aws.images("eu-north-1").remove(0);
    assert!(
        image
            .grants
            .contains(&("userId".to_owned(), "777788889999".to_owned()))
    );
    assert!(
        !image
            .grants
            .contains(&("userId".to_owned(), "444455556666".to_owned()))
    );
    assert_eq!(
        (image.tags["team"].as_str(), image.tags["cost"].as_str()),
        ("base", "1")
    );
    bench.assert_published(&["eu-west-1", "eu-north-1"]);
}

#[tokio::test]
async fn an_encrypted_disk_reads_right_where_it_is_read_although_the_rest_is_noise() {
    let keys = "regions = ['eu-west-1', 'us-east-1']
        kms-keys = { eu-west-1 = 'arn:aws:kms:eu-west-1:111122223333:key/a', us-east-1 = 'arn:aws:kms:us-east-1:111122223333:key/b' }";
    let bench = Bench::new(Rules::default(), keys).await;
    bench.publish().await.unwrap();
    bench.assert_published(&["eu-west-1", "us-east-1"]);
    let snapshot = bench.aws.snapshots("us-east-1").remove(0);
    assert_eq!(
        snapshot.key.as_deref(),
        Some("arn:aws:kms:us-east-1:111122223333:key/b")
    );
    let mut never = [0; 4096];
    let disk = bench.aws.disk(&snapshot.id).unwrap();
    disk.read_at(4 << 19, &mut never).unwrap();
    assert!(
        never.iter().any(|byte| *byte != 0),
        "never-written blocks are noise"
    );
    let mut zero = [1; 4096];
    disk.read_at(8 << 19, &mut zero).unwrap();
    assert_eq!(zero, [0; 4096], "zeros that somebody may read were written");
}

#[tokio::test]
async fn two_publishers_at_once_end_with_one_image() {
    let bench = Bench::with(
        slow(),
        FULL,
        &[(Kind::Data, 40), (Kind::NeverWritten, 9), (Kind::Data, 1)],
    )
    .await;
    bench.server.faults().latency = std::time::Duration::from_millis(1);
    bench.publish_twice_at_once().await;
    bench.assert_published(&["eu-west-1", "eu-north-1"]);
}

#[tokio::test]
async fn every_wait_ends_and_says_what_it_was_for() {
    let mut bench = Bench::new(
        Rules {
            pending: u32::MAX,
            ..Rules::default()
        },
        "regions = ['eu-west-1']",
    )
    .await;
    bench.bounds = Bounds {
        task: std::time::Duration::from_millis(300),
        ..bench.bounds
    };
    let error = bench.publish().await.unwrap_err().to_string();
    assert!(
        error.contains("for snap-") && error.contains("to be completed; last seen: pending"),
        "{error}"
    );
}

#[test]
fn the_sections_of_a_file_are_read() {
    let text = format!("[[aws]]\nname = 'prod'\n{FULL}");
    let targets = cloud::Targets::parse(&text).unwrap();
    let found: &Target = &targets.aws[0];
    assert_eq!(found.deprecate_after, Some(30));
}
