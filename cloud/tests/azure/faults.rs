//! What goes wrong: kills, races, refusals, losses. The next run always finishes, with one of each.

use std::time::{Duration, Instant};

use cloud::fake::{Act, Fault, Reply, When};
use cloud::{Error, Provider as _};
use serde_json::json;

use crate::world::{COMPUTE, IMAGE, Lab, VERSION, publish, quick, secret, subject};

/// Publishes, killed at every changing call before and after it took effect, and again until it is done.
async fn walk(lines: &str, paths: &[&str]) {
    for when in [When::Before, When::After] {
        let mut killed = 0;
        for skip in 0.. {
            let lab = Lab::new().await;
            lab.azure.mood(|mood| (mood.slow, mood.hidden) = (1, 1));
            let subject = subject(1);
            let fault = Fault {
                label: None,
                skip,
                times: 1,
                when,
                act: Act::Hang,
            };
            lab.server.fault(fault);
            let mut first = lab.publisher(lines, &subject);
            tokio::select! {
                done = publish(&mut first) => {
                    done.unwrap();
                    break;
                }
                () = lab.server.stopped() => killed += 1,
            }
            drop(first);
            let mut second = lab.publisher(lines, &subject);
            publish(&mut second)
                .await
                .unwrap_or_else(|error| panic!("{when:?} {skip}: {error}"));
            let expected: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            assert_eq!(lab.left(), (expected, Vec::new()), "{when:?} {skip}");
            lab.server.reset();
            publish(&mut lab.publisher(lines, &subject)).await.unwrap();
            assert_eq!(lab.server.changes(), 0, "{when:?} {skip}");
        }
        assert!(
            killed >= 8,
            "{when:?}: only {killed} calls change something"
        );
    }
}

#[tokio::test]
async fn a_killed_publish_of_an_image_is_finished_by_the_next() {
    walk(IMAGE, &["images/host-20260102-1"]).await;
}

#[tokio::test]
async fn a_killed_publish_of_a_version_is_finished_by_the_next() {
    let version = cloud::azure::version(1_767_312_000, &subject(1).manifest);
    let definition = "galleries/gallery/images/host-amd64";
    walk(
        VERSION,
        &[definition, &format!("{definition}/versions/{version}")],
    )
    .await;
}

#[tokio::test]
async fn what_was_sent_before_a_kill_is_not_sent_again() {
    let lab = Lab::new().await;
    let subject = subject(1);
    let fault = Fault {
        label: Some("blob:SetProperties".to_owned()),
        skip: 0,
        times: 1,
        when: When::Before,
        act: Act::Hang,
    };
    lab.server.fault(fault);
    let mut first = lab.publisher(IMAGE, &subject);
    tokio::select! {
        _ = publish(&mut first) => panic!("it was to be killed"),
        () = lab.server.stopped() => {}
    }
    drop(first);
    lab.server.reset();
    publish(&mut lab.publisher(IMAGE, &subject)).await.unwrap();
    let calls = lab.server.calls();
    assert!(
        !calls.keys().any(|called| called.label == "blob:PutPage"),
        "{calls:?}"
    );
}

#[tokio::test]
async fn two_publishers_at_once_end_with_one_of_each() {
    let races = (0..16).flat_map(|delay| [(IMAGE, 1, delay), (VERSION, 2, delay)]);
    for (lines, count, delay) in races {
        let lab = Lab::new().await;
        lab.azure.mood(|mood| mood.slow = 3);
        let subject = subject(1);
        let other = tempfile::tempdir().unwrap();
        let mut one = lab.publisher(lines, &subject);
        let mut two = lab.publisher_with(lines, &subject, &secret(), other.path());
        let late = async {
            tokio::time::sleep(Duration::from_millis(delay * 4)).await;
            publish(&mut two).await
        };
        let (one, two) = tokio::join!(publish(&mut one), late);
        one.unwrap_or_else(|error| panic!("{delay}: {error}"));
        two.unwrap_or_else(|error| panic!("{delay}: {error}"));
        let (paths, blobs) = lab.left();
        assert_eq!(
            (paths.len(), blobs.len()),
            (count, 0),
            "{delay}: {paths:?} {blobs:?}"
        );
    }
}

#[tokio::test]
async fn a_denied_action_is_named_at_once() {
    let blobs = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs";
    let cases = [
        (IMAGE, "Microsoft.Compute/images/write".to_owned()),
        (IMAGE, "Microsoft.Compute/images/read".to_owned()),
        (
            IMAGE,
            "Microsoft.Storage/storageAccounts/listKeys/action".to_owned(),
        ),
        (IMAGE, format!("{blobs}/write")),
        (IMAGE, format!("{blobs}/delete")),
        (
            VERSION,
            "Microsoft.Compute/galleries/images/write".to_owned(),
        ),
        (
            VERSION,
            "Microsoft.Compute/galleries/images/versions/write".to_owned(),
        ),
        (
            VERSION,
            "Microsoft.Compute/galleries/share/action".to_owned(),
        ),
    ];
    for (lines, action) in cases {
        let lab = Lab::new().await;
        lab.azure.mood(|mood| mood.denied = [action.clone()].into());
        let mut publisher = lab.publisher(lines, &subject(1));
        let begun = Instant::now();
        let error = publish(&mut publisher).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5), "{action}");
        assert!(
            matches!(&error, Error::Denied { permission, .. } if *permission == action),
            "{error}"
        );
        // And before the first byte, by asking.
        let found = publisher.check().await.unwrap();
        assert!(
            found
                .iter()
                .any(|finding| finding.message.contains(&action)),
            "{action}: {found:?}"
        );
    }
}

#[tokio::test]
async fn every_wait_has_a_deadline_and_says_what_for() {
    for lines in [IMAGE, VERSION] {
        let lab = Lab::new().await;
        lab.azure.mood(|mood| mood.slow = u32::MAX - 1);
        let mut publisher = lab
            .publisher(lines, &subject(1))
            .with_patience(quick(Duration::from_millis(300)));
        let error = publish(&mut publisher).await.unwrap_err();
        let said = matches!(&error, Error::Deadline { what, .. } if what.contains("to be ready"));
        assert!(said, "{error}");
    }
}

#[tokio::test]
async fn what_fails_is_removed_and_made_anew() {
    for lines in [IMAGE, VERSION] {
        let lab = Lab::new().await;
        lab.azure.mood(|mood| mood.failing = 1);
        let subject = subject(1);
        let error = publish(&mut lab.publisher(lines, &subject))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::Refused { code, .. } if code == "InternalDiskManagementError"),
            "{error}"
        );
        publish(&mut lab.publisher(lines, &subject)).await.unwrap();
        assert!(lab.azure.blobs().is_empty());
    }
}

#[tokio::test]
async fn pages_that_were_lost_are_noticed() {
    let lab = Lab::new().await;
    lab.azure.mood(|mood| mood.losing = true);
    let error = publish(&mut lab.publisher(IMAGE, &subject(1)))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    lab.azure.mood(|mood| mood.losing = false);
    publish(&mut lab.publisher(IMAGE, &subject(1)))
        .await
        .unwrap();
}

#[tokio::test]
async fn throttling_cuts_and_broken_answers_pass() {
    let lab = Lab::new().await;
    lab.server.faults().rate = Some(("blob:PutPage".to_owned(), 20));
    let faults = [
        ("blob:PutPage", When::Before, Act::Cut),
        ("blob:PutPage", When::After, Act::Cut),
        ("arm:PUT images", When::After, Act::Cut),
        (
            "arm:PUT images",
            When::Before,
            Act::Answer(Reply::empty(503)),
        ),
        (
            "arm:GET images",
            When::Before,
            Act::Answer(Reply::empty(500)),
        ),
        ("blob:GetPageRanges", When::Before, Act::Cut),
    ];
    for (label, when, act) in faults {
        let label = Some(label.to_owned());
        lab.server.fault(Fault {
            label,
            skip: 0,
            times: 1,
            when,
            act,
        });
    }
    publish(&mut lab.publisher(IMAGE, &subject(1)))
        .await
        .unwrap();
    assert_eq!(lab.left().0.len(), 1);
}

#[tokio::test]
async fn what_is_somebody_elses_is_left_alone() {
    let version = cloud::azure::version(1_767_312_000, &subject(1).manifest);
    let cases = [
        (IMAGE, "images/host-20260102-1".to_owned()),
        (
            VERSION,
            format!("galleries/gallery/images/host-amd64/versions/{version}"),
        ),
    ];
    for (lines, path) in cases {
        let lab = Lab::new().await;
        let planted =
            json!({ "location": "westeurope", "tags": { "owner": "somebody" }, "properties": {} });
        lab.azure.plant(&format!("{COMPUTE}/{path}"), planted);
        let mut publisher = lab.publisher(lines, &subject(1));
        let error = publish(&mut publisher).await.unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
        assert_eq!(lab.server.changes(), 0);
    }
}
