//! What others do with our images: they use them, copy them with our tags, take them back, and encrypt or name things their way.

use std::collections::{BTreeMap, BTreeSet};

use cloud::fake::aws::{Image, Rules};
use cloud::fake::{Act, Fault, Reply, When};
use cloud::{Error, Finding, Provider as _, Severity};

use crate::bench::Bench;

const HOME: &str = "regions = ['eu-west-1']";
const REGION: &str = "eu-west-1";

fn told(findings: &[Finding], severity: Severity, words: &str) -> bool {
    let mut found = findings
        .iter()
        .filter(|finding| finding.severity == severity);
    found.any(|finding| finding.message.contains(words))
}

/// The image again, as somebody has it who copied its tags too.
fn twin(home: &Image, id: &str, name: &str, snapshot: &str) -> Image {
    Image {
        id: id.to_owned(),
        name: name.to_owned(),
        snapshot: snapshot.to_owned(),
        created: home.created + 1,
        ..home.clone()
    }
}

#[tokio::test]
async fn everybody_who_uses_an_image_is_found_or_it_is_not_judged() {
    let bench = Bench::new(Rules::default(), HOME).await;
    let mut publisher = bench.publish().await.unwrap();
    let image = bench.aws.images(REGION).remove(0);
    let users = (0..12).map(|number| format!("arn:aws:ec2:eu-west-1::instance/i-{number}"));
    let users: Vec<_> = users.collect();
    for user in &users {
        bench.aws.refer(&image.id, user);
    }
    let inventory = publisher.inventory().await.unwrap();
    assert_eq!(inventory[0].kept_by, users);
    bench.server.fault(Fault {
        label: Some("ec2:DescribeImageReferences".to_owned()),
        skip: 0,
        times: 1,
        when: When::Before,
        act: Act::Answer(Reply::xml(200, "<DescribeImageReferencesResponse/>")),
    });
    let error = publisher.inventory().await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn copies_with_our_tags_stay_unless_nobody_keeps_them() {
    let bench = Bench::new(Rules::default(), HOME).await;
    bench.publish().await.unwrap();
    let home = bench.aws.images(REGION).remove(0);
    let ours = bench.aws.snapshots(REGION).remove(0);
    let put_snapshot = |id: &str, description: &str| {
        let mut snapshot = ours.clone();
        id.clone_into(&mut snapshot.id);
        description.clone_into(&mut snapshot.description);
        bench.aws.put_snapshot(snapshot);
    };
    for id in ["snap-used", "snap-named", "snap-unused", "snap-backup"] {
        put_snapshot(id, "made by a tool for backups");
    }
    put_snapshot("snap-left-over", &ours.description);
    put_snapshot("snap-busy", &ours.description);
    let (name, shared) = (home.name.as_str(), ("userId", "444455556666"));
    bench
        .aws
        .put_image(twin(&home, "ami-used", name, "snap-used"));
    bench.aws.refer("ami-used", "arn:of-an-instance");
    bench
        .aws
        .put_image(twin(&home, "ami-named", "of a tool", "snap-named"));
    bench.aws.put_image(Image {
        grants: BTreeSet::from([(shared.0.to_owned(), shared.1.to_owned())]),
        ..twin(&home, "ami-shared", name, &home.snapshot)
    });
    bench
        .aws
        .put_image(twin(&home, "ami-unused", name, "snap-unused"));
    bench.aws.put_image(Image {
        tags: BTreeMap::new(),
        ..twin(&home, "ami-without-tags", "theirs", "snap-busy")
    });
    let mut publisher = bench.publisher();
    let findings = publisher.check().await.unwrap();
    for words in [
        "ami-used has the tags of this image and is left alone: kept by arn:of-an-instance",
        "ami-named has the tags of this image and is left alone: its name is `of a tool`",
        "ami-shared has the tags of this image and is left alone: kept by 444455556666",
        "snap-backup has the tags",
    ] {
        assert!(
            told(&findings, Severity::Warning, words),
            "{words}: {findings:#?}"
        );
    }
    assert_eq!(findings.len(), 4, "{findings:#?}");
    let publisher = bench.publish().await.unwrap();
    assert_eq!(publisher.plan(), []);
    let images = bench.aws.images(REGION).into_iter().map(|image| image.id);
    let expected = [
        "ami-named",
        "ami-shared",
        "ami-used",
        "ami-without-tags",
        &home.id,
    ];
    assert_eq!(
        images.collect::<BTreeSet<_>>(),
        expected.map(str::to_owned).into()
    );
    let snapshots = bench.aws.snapshots(REGION).into_iter().map(|one| one.id);
    let expected = [
        "snap-backup",
        "snap-busy",
        "snap-named",
        "snap-used",
        &ours.id,
    ];
    assert_eq!(
        snapshots.collect::<BTreeSet<_>>(),
        expected.map(str::to_owned).into()
    );
}

#[tokio::test]
async fn an_image_whose_users_cannot_be_asked_for_stays() {
    let bench = Bench::new(Rules::default(), HOME).await;
    bench.publish().await.unwrap();
    let home = bench.aws.images(REGION).remove(0);
    bench
        .aws
        .put_image(twin(&home, "ami-twice", &home.name, &home.snapshot));
    let denied = "ec2:DescribeImageReferences".to_owned();
    bench.aws.rules(|rules| rules.denied.extend([denied]));
    bench.publish().await.unwrap();
    assert_eq!(bench.aws.images(REGION).len(), 2);
    bench.aws.rules(|rules| rules.denied.clear());
    bench.publish().await.unwrap();
    bench.assert_published(&[REGION]);
}

#[tokio::test]
async fn what_somebody_disabled_is_told_and_not_made_again() {
    let bench = Bench::new(Rules::default(), HOME).await;
    bench.publish().await.unwrap();
    let home = bench.aws.images(REGION).remove(0);
    bench.aws.put_image(Image {
        state: "disabled".to_owned(),
        ..home
    });
    bench.server.reset();
    let mut publisher = bench.publisher();
    let findings = publisher.check().await.unwrap();
    assert!(
        told(&findings, Severity::Error, "somebody disabled it"),
        "{findings:#?}"
    );
    let error = bench.publish().await.unwrap_err().to_string();
    assert!(error.contains("somebody disabled it"), "{error}");
    assert_eq!(bench.server.changes(), 0, "{:?}", bench.server.calls());
    let inventory = publisher.inventory().await.unwrap();
    assert_eq!(inventory[0].kept_by, ["somebody disabled it"]);
}

#[tokio::test]
async fn an_image_of_unknown_age_is_kept() {
    let bench = Bench::new(Rules::default(), HOME).await;
    let mut publisher = bench.publish().await.unwrap();
    let home = bench.aws.images(REGION).remove(0);
    bench.aws.put_image(Image { created: 0, ..home });
    let inventory = publisher.inventory().await.unwrap();
    assert_eq!(inventory[0].kept_by, ["its age is not known"]);
    let error = publisher.remove(&inventory[0]).await.unwrap_err();
    assert!(matches!(error, Error::Kept { .. }), "{error}");
}

#[tokio::test]
async fn an_account_that_encrypts_everything_and_a_parameter_of_text_are_told_first() {
    let rules = Rules {
        encrypts: true,
        ..Rules::default()
    };
    let target = format!("{HOME}\nparameters = ['/newest']");
    let bench = Bench::new(rules, &target).await;
    bench.aws.put_text(REGION, "/newest", "ami-1");
    let findings = bench.publisher().check().await.unwrap();
    assert!(
        told(&findings, Severity::Error, "`kms-keys`"),
        "{findings:#?}"
    );
    let words = "`/newest` is of type `text`";
    assert!(told(&findings, Severity::Error, words), "{findings:#?}");
    assert_eq!(findings.len(), 2, "{findings:#?}");
    let keys = "kms-keys = { eu-west-1 = 'arn:aws:kms:eu-west-1:111122223333:key/a' }";
    let rules = Rules {
        encrypts: true,
        ..Rules::default()
    };
    let bench = bench.anew(rules, &format!("{HOME}\n{keys}")).await;
    assert_eq!(bench.publisher().check().await.unwrap(), []);
}

#[tokio::test]
async fn what_the_account_may_not_have_is_told_before_the_first_byte() {
    let target = format!("{HOME}\npublic = true\naccounts = ['444455556666', '777788889999']");
    let limits = [
        ("L-B665C33B", "quota `AMIs`"),
        ("L-0E3CBAB9", "quota `Public AMIs`"),
        ("L-70015FFA", "quota `AMI sharing`"),
    ];
    for (code, words) in limits {
        let limit = if code == "L-70015FFA" { 1.0 } else { 0.0 };
        let rules = Rules {
            quotas: [(code.to_owned(), limit)].into(),
            ..Rules::default()
        };
        let bench = Bench::new(rules, &target).await;
        let findings = bench.publisher().check().await.unwrap();
        assert!(told(&findings, Severity::Error, words), "{findings:#?}");
        assert_eq!(findings.len(), 1, "{findings:#?}");
        // Once all is there, nothing is needed.
        bench.publish().await.unwrap();
        assert_eq!(bench.publisher().check().await.unwrap(), []);
    }
    let bench = Bench::new(Rules::default(), &target).await;
    bench.aws.rules(|rules| {
        rules
            .denied
            .extend(["servicequotas:GetServiceQuota".to_owned()]);
    });
    let findings = bench.publisher().check().await.unwrap();
    let words = "servicequotas:GetServiceQuota";
    assert!(told(&findings, Severity::Warning, words), "{findings:#?}");
    assert_eq!(findings.len(), 1, "{findings:#?}");
}

#[tokio::test]
async fn nobody_waits_for_quotas_where_they_cannot_be_asked_for() {
    let target = format!("{HOME}\npublic = true\naccounts = ['444455556666']");
    // Others at the same address, as moto, do not have the interface.
    for (status, longest) in [(501, 3), (500, 20)] {
        let bench = Bench::new(Rules::default(), &target).await;
        bench.server.fault(Fault {
            label: Some("servicequotas:GetServiceQuota".to_owned()),
            skip: 0,
            times: u64::MAX,
            when: When::Before,
            act: Act::Answer(Reply::json(status, &serde_json::json!({}))),
        });
        let mut publisher = bench.publisher();
        let longest = std::time::Duration::from_secs(longest);
        let findings = tokio::time::timeout(longest, publisher.check()).await;
        let findings = findings.expect("findings in time").unwrap();
        let words = format!("failed to ask for the quota `AMIs` in {REGION}: {status}");
        assert!(told(&findings, Severity::Warning, &words), "{findings:#?}");
        assert_eq!(findings.len(), 1, "{findings:#?}");
    }
}
