//! What breaks on the way: kills, cut connections, denials, old tokens, other publishers.

use std::time::{Duration, Instant};

use cloud::fake::{Act, Fault, Reply, When};
use cloud::{Error, Provider as _, Stage};
use image_manifest::FormKind;

use crate::forms;
use crate::shop::{Shop, archive};

async fn kill(number: u64, when: When) -> bool {
    let shop = Shop::open().await;
    let killed = forms::kill(&shop.server, (number, when), || shop.publisher("1")).await;
    shop.is_published("1");
    // An upload whose URL was lost with its answer ends by itself after a week, and is all that may be left.
    let lost = usize::from(killed && number == 0 && when == When::After);
    assert_eq!(shop.cloud.unfinished(), lost, "{number} {when:?}");
    killed
}

#[tokio::test]
async fn killed_at_any_change_the_next_run_finishes() {
    for when in [When::Before, When::After] {
        let mut number = 0;
        while kill(number, when).await {
            number += 1;
        }
        // Begin, four pieces, insert, delete, share, activate, family.
        assert!(number >= 9, "{number}");
    }
}

#[tokio::test]
async fn a_killed_upload_is_taken_up_where_the_bucket_has_it() {
    let shop = Shop::open().await;
    shop.server.fault(Fault {
        label: Some("storage:piece".to_owned()),
        skip: 2,
        times: 1,
        when: When::Before,
        act: Act::Hang,
    });
    let mut publisher = shop.publisher("1");
    tokio::select! {
        _ = forms::publish(&mut publisher) => panic!("it was not stopped"),
        () = shop.server.stopped() => {}
    }
    drop(publisher);
    let notes = std::fs::read_dir(shop.directory.path().join("journal")).unwrap();
    for notes in notes {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = notes.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(
            mode & 0o777,
            0o600,
            "whoever reads the notes may go on with the upload"
        );
    }
    shop.server.reset();
    forms::publish(&mut shop.publisher("1")).await.unwrap();
    let calls = shop.server.calls();
    let count = |label: &str| {
        calls
            .iter()
            .filter(|(called, _)| called.label == label)
            .map(|(_, count)| *count)
            .sum::<u64>()
    };
    let pieces = archive().len().div_ceil(8 << 20) as u64;
    assert_eq!(
        (count("storage:begin"), count("storage:piece")),
        (0, pieces - 2)
    );
    shop.is_published("1");
}

#[tokio::test]
async fn pieces_that_are_cut_or_kept_in_part_are_sent_again() {
    let shop = Shop::open().await;
    shop.cloud.state().forgetful = 2;
    for (skip, when) in [(1, When::Before), (2, When::After)] {
        shop.server.fault(Fault {
            label: Some("storage:piece".to_owned()),
            skip,
            times: 1,
            when,
            act: Act::Cut,
        });
    }
    forms::publish(&mut shop.publisher("1")).await.unwrap();
    shop.is_published("1");
}

#[tokio::test]
async fn an_object_with_other_bytes_is_found_out() {
    let shop = Shop::open().await;
    let mut publisher = shop.publisher("1");
    publisher.observe().await.unwrap();
    let name = publisher.plan()[0].object.clone();
    let mut bytes = archive().to_vec();
    bytes[1 << 20] ^= 1;
    shop.cloud.put_object(&name, bytes);
    let error = forms::publish(&mut publisher).await.unwrap_err();
    assert!(error.to_string().starts_with("CRC32C of object"), "{error}");
    assert_eq!(shop.cloud.images().len(), 0);
    forms::publish(&mut publisher).await.unwrap();
    shop.is_published("1");
}

#[tokio::test]
async fn an_archive_that_is_no_disk_is_refused_by_the_cloud_and_nothing_hangs() {
    let shop = Shop::open().await;
    let disk = forms::disk(1 << 30, &[(FormKind::Gce, b"no archive at all")]);
    let options = forms::options(shop.directory.path());
    let subject = forms::subject("1", disk);
    let mut publisher = cloud::gce::Publisher::new(&shop.target, &subject, &options).unwrap();
    for _ in 0..2 {
        let error = forms::publish(&mut publisher).await.unwrap_err();
        assert!(
            error.to_string().contains("not compressed by gzip"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_image_that_failed_is_made_again() {
    for (slow, expected) in [
        (0, "status of image `host-1-amd64` is FAILED"),
        (1, "INTERNAL_ERROR"),
    ] {
        let shop = Shop::open().await;
        {
            let mut state = shop.cloud.state();
            (state.slow, state.failing) = (slow, 1);
        }
        let error = forms::publish(&mut shop.publisher("1")).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        let mut publisher = shop.publisher("1");
        publisher.observe().await.unwrap();
        assert_eq!(publisher.plan()[0].action, "remove-image");
        forms::publish(&mut publisher).await.unwrap();
        shop.is_published("1");
    }
}

#[tokio::test]
async fn what_the_cloud_says_again_and_again_is_repeated() {
    let shop = Shop::open().await;
    shop.server.fault(Fault {
        label: Some("compute:insert".to_owned()),
        skip: 0,
        times: u64::MAX,
        when: When::Before,
        act: Act::Answer(Reply::json(
            404,
            &serde_json::json!({ "error": { "message": "The bucket is not seen." } }),
        )),
    });
    let error = forms::publish(&mut shop.publisher("1")).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("for the private stage") && text.ends_with("The bucket is not seen."),
        "{text}"
    );
}

#[tokio::test]
async fn two_publishers_at_once_end_with_one_image() {
    for slow in [0, 2] {
        let shop = Shop::open().await;
        shop.cloud.state().slow = slow;
        let mut one = shop.publisher_at(&shop.target, "1", "one");
        let mut two = shop.publisher_at(&shop.target, "1", "two");
        let (one, two) = tokio::join!(forms::publish(&mut one), forms::publish(&mut two));
        one.unwrap();
        two.unwrap();
        shop.is_published("1");
        assert_eq!(shop.cloud.unfinished(), 0);
    }
}

#[tokio::test]
async fn a_missing_permission_ends_it_at_once_and_is_named() {
    let cases = [
        "storage.objects.get",
        "storage.objects.create",
        "storage.objects.delete",
        "storage.objects.list",
        "compute.images.get",
        "compute.images.create",
        "compute.images.list",
        "compute.images.getIamPolicy",
        "compute.images.setIamPolicy",
        "compute.images.deprecate",
        "compute.images.update",
    ];
    for permission in cases {
        let shop = Shop::open().await;
        shop.cloud.state().denied.insert(permission.to_owned());
        let begun = Instant::now();
        let error = forms::publish(&mut shop.publisher("1")).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5), "{permission}");
        match error {
            Error::Denied {
                permission: named, ..
            } => assert_eq!(named, permission),
            other => panic!("{permission}: {other}"),
        }
    }
}

#[tokio::test]
async fn a_token_that_ends_on_the_way_is_replaced() {
    let shop = Shop::open().await;
    let mut publisher = shop.publisher("1");
    publisher
        .advance(Stage::Private, &forms::Quiet)
        .await
        .unwrap();
    assert_eq!(shop.cloud.tokens(), 1);
    shop.cloud.expire_tokens();
    forms::publish(&mut publisher).await.unwrap();
    assert_eq!(shop.cloud.tokens(), 2);
    shop.is_published("1");
}

#[tokio::test]
async fn a_busy_or_broken_cloud_is_asked_again() {
    let shop = Shop::open().await;
    for (label, reply) in [
        ("compute:insert", Reply::empty(503)),
        ("compute:patch", Reply::empty(429)),
        ("storage:piece", Reply::empty(500)),
        ("storage:begin", Reply::empty(502)),
    ] {
        for when in [When::Before, When::After] {
            shop.server.fault(Fault {
                label: Some(label.to_owned()),
                skip: 0,
                times: 1,
                when,
                act: Act::Answer(reply.clone()),
            });
        }
    }
    forms::publish(&mut shop.publisher("1")).await.unwrap();
    shop.is_published("1");
}
