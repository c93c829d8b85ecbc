//! What goes wrong on the way: throttling, refusals, broken blocks, old credentials, lost snapshots.

use std::time::{Duration, Instant};

use cloud::fake::aws::{GITHUB, Image, Rules};
use cloud::fake::{Act, Fault, Reply, When};
use cloud::{Error, Provider as _, Stage};
use image_manifest::block_map::Kind;

use crate::bench::{Bench, Silent, advance};

const PUT: &str = "ebs:PutSnapshotBlock";
const HOME: &str = "regions = ['eu-west-1']";

fn fault(label: &str, skip: u64, times: u64, when: When, act: Act) -> Fault {
    Fault {
        label: Some(label.to_owned()),
        skip,
        times,
        when,
        act,
    }
}

fn calls(bench: &Bench, label: &str) -> u64 {
    let calls = bench.server.calls();
    let mut found = calls.iter().filter(|(called, _)| called.label == label);
    found.next().map_or(0, |(_, count)| *count)
}

#[tokio::test]
async fn a_killed_upload_goes_on_with_the_blocks_that_are_missing() {
    let bench = Bench::with(Rules::default(), HOME, &[(Kind::Data, 200)]).await;
    bench
        .server
        .fault(fault(PUT, 150, 1000, When::Before, Act::Hang));
    let mut killed = bench.publisher();
    let mut running = Box::pin(advance(&mut killed));
    tokio::select! {
        finished = &mut running => panic!("{finished:?}"),
        () = bench.server.stopped() => {}
    }
    let busy = bench.publish().await.unwrap_err();
    assert!(
        matches!(&busy, Error::Busy(target) if target == "prod"),
        "{busy}"
    );
    drop(running);
    bench.server.faults().faults.clear();
    bench.server.reset();
    bench.publish().await.unwrap();
    assert_eq!(calls(&bench, "ebs:StartSnapshot"), 0, "the same snapshot");
    let sent = calls(&bench, PUT);
    assert!(
        (50..=150).contains(&sent),
        "{sent} of 200 blocks were sent again"
    );
    bench.assert_published(&["eu-west-1"]);
}

#[tokio::test]
async fn an_upload_settles_near_the_limit_and_is_whole() {
    let bench = Bench::with(Rules::default(), HOME, &[(Kind::Data, 350)]).await;
    bench.server.faults().rate = Some((PUT.to_owned(), 50));
    let begun = Instant::now();
    bench.publish().await.unwrap();
    bench.assert_published(&["eu-west-1"]);
    // How near is shown with a clock of its own in `pace`; here a busy machine may be slower than the limit.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?} for 6 s of blocks");
    let sent = calls(&bench, PUT);
    assert!(sent <= 350 * 12 / 10, "{sent} calls for 350 blocks");
}

#[tokio::test]
async fn what_is_not_allowed_ends_at_once_and_is_named() {
    for action in [
        "ebs:StartSnapshot",
        PUT,
        "ebs:CompleteSnapshot",
        "ec2:DescribeImages",
        "ec2:RegisterImage",
        "ssm:GetParameters",
        "ssm:PutParameter",
    ] {
        let bench = Bench::new(Rules::default(), &format!("{HOME}\nparameters = ['/x']")).await;
        bench
            .aws
            .rules(|rules| rules.denied.extend([action.to_owned()]));
        let begun = Instant::now();
        let error = bench.publish().await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5), "{action}");
        let named = matches!(&error, Error::Denied { permission, .. } if permission == action);
        assert!(named, "{action}: {error}");
    }
}

#[tokio::test]
async fn answers_that_are_lost_or_broken_are_asked_for_again() {
    let bench = Bench::new(Rules::default(), &format!("{HOME}\nparameters = ['/x']")).await;
    let broken = || Act::Answer(Reply::empty(503));
    for label in [
        "ebs:StartSnapshot",
        PUT,
        "ebs:CompleteSnapshot",
        "ec2:RegisterImage",
        "ssm:PutParameter",
    ] {
        bench
            .server
            .fault(fault(label, 0, 1, When::Before, broken()));
        bench
            .server
            .fault(fault(label, 1, 1, When::After, Act::Cut));
        bench
            .server
            .fault(fault(label, 0, 1, When::After, broken()));
    }
    bench.publish().await.unwrap();
    bench.assert_published(&["eu-west-1"]);
}

#[tokio::test]
async fn a_block_that_arrives_broken_is_sent_again_but_not_for_ever() {
    let wrong = || {
        let mut reply = Reply::empty(400).with("x-amzn-errortype", "ValidationException");
        reply.body =
            br#"{"Message":"the checksum does not match","Reason":"INVALID_PARAMETER_VALUE"}"#[..]
                .into();
        Act::Answer(reply)
    };
    let bench = Bench::new(Rules::default(), HOME).await;
    bench.server.fault(fault(PUT, 0, 2, When::Before, wrong()));
    bench.publish().await.unwrap();
    bench.assert_published(&["eu-west-1"]);
    let bench = Bench::new(Rules::default(), HOME).await;
    bench
        .server
        .fault(fault(PUT, 0, 1000, When::Before, wrong()));
    let error = bench.publish().await.unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    // A server that says it got something else did.
    let bench = Bench::new(Rules::default(), HOME).await;
    let other = || Act::Answer(Reply::empty(201).with("x-amz-checksum", "AAAA"));
    bench
        .server
        .fault(fault(PUT, 0, 1000, When::Before, other()));
    let error = bench.publish().await.unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_snapshot_that_timed_out_is_begun_anew_and_the_old_one_removed() {
    for lose_notes in [false, true] {
        let bench = Bench::with(Rules::default(), HOME, &[(Kind::Data, 100)]).await;
        bench
            .server
            .fault(fault(PUT, 70, 1000, When::Before, Act::Hang));
        let mut killed = bench.publisher();
        tokio::select! {
            finished = advance(&mut killed) => panic!("{finished:?}"),
            () = bench.server.stopped() => {}
        }
        drop(killed);
        bench.server.faults().faults.clear();
        bench.aws.time_out();
        if lose_notes {
            for file in std::fs::read_dir(bench.journal.path()).unwrap() {
                std::fs::remove_file(file.unwrap().path()).unwrap();
            }
        }
        bench.publish().await.unwrap();
        bench.assert_published(&["eu-west-1"]);
    }
}

#[tokio::test]
async fn no_image_is_made_of_a_snapshot_that_is_not_what_was_sent() {
    const LIST: &str = "ebs:ListSnapshotBlocks";
    let mut bench = Bench::new(Rules::default(), HOME).await;
    bench.bounds.visible = Duration::from_millis(50);
    // Completed and never compared: the run was killed in between.
    bench
        .server
        .fault(fault(LIST, 0, 1, When::Before, Act::Hang));
    let mut killed = bench.publisher();
    tokio::select! {
        finished = advance(&mut killed) => panic!("{finished:?}"),
        () = bench.server.stopped() => {}
    }
    drop(killed);
    assert_eq!(bench.aws.snapshots("eu-west-1")[0].state, "completed");
    let nothing = serde_json::json!({ "Blocks": [], "BlockSize": 524_288, "VolumeSize": 1 });
    let nothing = Act::Answer(Reply::json(200, &nothing));
    bench.server.fault(fault(LIST, 0, 1, When::Before, nothing));
    let error = bench.publish().await.unwrap_err();
    let error = cloud::http::chain(&error);
    assert!(error.contains("the list of blocks of snap-"), "{error}");
    assert!(bench.aws.images("eu-west-1").is_empty());
    assert!(bench.aws.snapshots("eu-west-1").is_empty());
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.publish().await.unwrap();
    bench.assert_published(&["eu-west-1"]);
}

#[tokio::test]
async fn a_copy_that_failed_says_why_and_the_next_run_makes_another() {
    let rules = Rules {
        pending: 7,
        ..Rules::default()
    };
    let bench = Bench::new(rules, "regions = ['eu-west-1', 'eu-north-1']").await;
    let mut publisher = bench.publisher();
    let watch = async {
        while bench.aws.images("eu-north-1").is_empty() {
            // Not by the clock: on a busy machine it would come too late.
            tokio::task::yield_now().await;
        }
        bench.aws.fail_pending("the key does not allow it");
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        finished = advance(&mut publisher) => cloud::http::chain(&finished.unwrap_err()),
        () = watch => unreachable!(),
    };
    assert!(
        error.contains("failed: the key does not allow it"),
        "{error}"
    );
    drop(publisher);
    bench.aws.rules(|rules| rules.pending = 0);
    bench.publish().await.unwrap();
    bench.assert_published(&["eu-west-1", "eu-north-1"]);
}

#[tokio::test]
async fn a_name_that_somebody_else_has_is_left_alone() {
    let bench = Bench::new(Rules::default(), "regions = ['eu-west-1', 'eu-north-1']").await;
    for region in ["eu-west-1", "eu-north-1"] {
        bench.aws.put_image(Image {
            id: format!("ami-of-others-{region}"),
            region: region.to_owned(),
            name: "host-20260102-0123abcd-amd64".to_owned(),
            state: "available".to_owned(),
            ..Image::default()
        });
    }
    let mut publisher = bench.publisher();
    publisher.observe().await.unwrap();
    let findings = publisher.check().await.unwrap();
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(
        findings[0].message.contains("is taken by ami-of-others"),
        "{findings:?}"
    );
    let error = publisher
        .advance(Stage::Private, &Silent)
        .await
        .unwrap_err();
    let error = cloud::http::chain(&error);
    assert!(error.contains("exists and is not of this image"), "{error}");
    assert_eq!(bench.aws.images("eu-north-1").len(), 1);
}

#[tokio::test]
async fn what_stands_in_the_way_is_told_before_the_first_byte() {
    let target = "regions = ['eu-west-1', 'eu-north-1', 'ap-east-1', 'mars-west-1']\npublic = true";
    let bench = Bench::new(
        Rules {
            block_public: true,
            ..Rules::default()
        },
        target,
    )
    .await;
    bench.aws.rules(|rules| {
        rules
            .denied
            .extend(["ec2:RegisterImage".to_owned(), "ec2:CopyImage".to_owned()]);
    });
    let mut publisher = bench.publisher();
    let findings = publisher.check().await.unwrap();
    let told = |place: &str, words: &str| {
        let mut found = findings.iter().filter(|finding| finding.place == place);
        assert!(
            found.any(|finding| finding.message.contains(words)),
            "{place} {words}: {findings:#?}"
        );
    };
    told("ap-east-1", "not enabled");
    told("mars-west-1", "no such region");
    told("eu-west-1", "`ec2:RegisterImage`");
    told("eu-north-1", "`ec2:CopyImage`");
    told("eu-west-1", "blocks public images");
    assert_eq!(bench.server.changes(), 0);
}

#[tokio::test]
async fn tokens_of_a_job_are_minted_afresh_whenever_a_session_ends() {
    let role = "role = 'arn:aws:iam::111122223333:role/publisher'\nparameters = ['/x']";
    let rules = Rules {
        session: Some(12),
        ..Rules::default()
    };
    let bench = Bench::new(rules, &format!("{HOME}\n{role}")).await;
    bench.server.faults().latency = Duration::from_millis(12);
    let url = format!("{}/github/token?api-version=2", bench.server.url());
    let job = [
        ("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", GITHUB),
    ];
    let mut publisher = bench.publisher_of(bench.journal.path(), &job);
    advance(&mut publisher).await.unwrap();
    bench.assert_published(&["eu-west-1"]);
    let (minted, sessions) = (
        calls(&bench, "github:Token"),
        calls(&bench, "sts:AssumeRoleWithWebIdentity"),
    );
    assert!(
        minted >= 2 && minted == sessions,
        "{minted} tokens, {sessions} sessions"
    );
    let debug = format!("{publisher:?}");
    assert!(
        !debug.contains(GITHUB) && !debug.contains("secret-"),
        "{debug}"
    );
}

#[tokio::test]
async fn a_token_service_that_rests_is_asked_again_but_not_for_ever() {
    const ASSUME: &str = "sts:AssumeRoleWithWebIdentity";
    let role = "role = 'arn:aws:iam::111122223333:role/publisher'";
    let bench = Bench::new(Rules::default(), &format!("{HOME}\n{role}")).await;
    let url = format!("{}/github/token?api-version=2", bench.server.url());
    let job = [
        ("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", GITHUB),
    ];
    let throttled = "<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>";
    let answers = [Reply::empty(503), Reply::xml(400, throttled)];
    for answer in answers {
        let act = Act::Answer(answer);
        bench.server.fault(fault(ASSUME, 0, 1, When::Before, act));
    }
    // The session was made, and its token is used up.
    bench
        .server
        .fault(fault(ASSUME, 0, 1, When::After, Act::Cut));
    let mut publisher = bench.publisher_of(bench.journal.path(), &job);
    publisher.observe().await.unwrap();
    assert_eq!(calls(&bench, ASSUME), 4);
    bench.server.reset();
    let act = Act::Answer(Reply::empty(503));
    bench
        .server
        .fault(fault(ASSUME, 0, 1000, When::Before, act));
    let mut publisher = bench.publisher_of(bench.journal.path(), &job);
    let error = publisher.observe().await.unwrap_err();
    assert!(matches!(error, Error::Credentials { .. }), "{error}");
    assert_eq!(calls(&bench, ASSUME), 4);
}

#[tokio::test]
async fn wrong_credentials_are_told_without_the_secret() {
    let bench = Bench::new(Rules::default(), HOME).await;
    let keys = [
        ("AWS_ACCESS_KEY_ID", cloud::fake::aws::KEY),
        ("AWS_SECRET_ACCESS_KEY", "a-secret-that-is-wrong"),
    ];
    let mut publisher = bench.publisher_of(bench.journal.path(), &keys);
    let error = publisher.observe().await.unwrap_err();
    assert!(error.to_string().contains("AuthFailure"), "{error}");
    assert!(!format!("{error:?} {publisher:?}").contains("a-secret"));
    let mut nobody = bench.publisher_of(
        bench.journal.path(),
        &[("AWS_EC2_METADATA_DISABLED", "true")],
    );
    let error = nobody.observe().await.unwrap_err();
    assert!(matches!(error, Error::Credentials { .. }), "{error}");
}
