//! What breaks on the way: kills, cut connections, denials, old tokens, other publishers.

use std::time::{Duration, Instant};

use cloud::fake::{Act, Fault, Reply, When};
use cloud::{Error, Provider as _, Stage};

use crate::forms;
use crate::shop::Shop;

async fn kill(number: u64, when: When) -> bool {
    let shop = Shop::open().await;
    let killed = forms::kill(&shop.server, (number, when), || shop.publisher("1")).await;
    shop.is_published("1");
    assert_eq!(shop.cloud.images().len(), 1);
    killed
}

#[tokio::test]
async fn killed_at_any_change_the_next_run_finishes() {
    for when in [When::Before, When::After] {
        let mut number = 0;
        while kill(number, when).await {
            number += 1;
        }
        // Create, upload, compare, visibility, member, tag.
        assert_eq!(number, 6);
    }
}

#[tokio::test]
async fn two_publishers_at_once_end_with_one_image() {
    for slow in [0, 4] {
        let shop = Shop::open().await;
        shop.cloud.state().slow = slow;
        let (mut one, mut two) = (shop.publisher("1"), shop.publisher("1"));
        let (one, two) = tokio::join!(forms::publish(&mut one), forms::publish(&mut two));
        one.unwrap();
        two.unwrap();
        shop.is_published("1");
        assert_eq!(shop.cloud.images().len(), 1);
    }
}

#[tokio::test]
async fn bytes_that_were_stored_wrong_are_found_out_and_sent_again_under_another_id() {
    let shop = Shop::open().await;
    shop.cloud.state().damaging = 1;
    let error = forms::publish(&mut shop.publisher("1")).await.unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    assert_eq!(shop.cloud.images().len(), 0);
    forms::publish(&mut shop.publisher("1")).await.unwrap();
    shop.is_published("1");
}

#[tokio::test]
async fn a_failed_image_is_replaced() {
    let shop = Shop::open().await;
    shop.server.fault(Fault {
        label: Some("glance:upload".to_owned()),
        skip: 0,
        times: 1,
        when: When::Before,
        act: Act::Hang,
    });
    let mut publisher = shop.publisher("1");
    tokio::select! {
        _ = forms::publish(&mut publisher) => panic!("it was not stopped"),
        () = shop.server.stopped() => {}
    }
    let id = shop.image("1")["id"].as_str().unwrap().to_owned();
    shop.cloud.put_field(&id, "status", "killed".into());
    forms::publish(&mut shop.publisher("1")).await.unwrap();
    shop.is_published("1");
    assert_ne!(shop.image("1")["id"], id.as_str());
}

#[tokio::test]
async fn a_missing_right_ends_it_at_once_and_is_named() {
    let cases = [
        "get_image",
        "add_image",
        "upload_image",
        "modify_image",
        "add_member",
    ];
    for rule in cases {
        let shop = Shop::open().await;
        shop.cloud.state().denied.insert(rule.to_owned());
        let begun = Instant::now();
        let error = forms::publish(&mut shop.publisher("1")).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5), "{rule}");
        match error {
            Error::Denied { permission, .. } => assert_eq!(permission, rule),
            other => panic!("{rule}: {other}"),
        }
    }
    let shop = Shop::open().await;
    shop.cloud
        .state()
        .denied
        .insert("publicize_image".to_owned());
    let mut target = shop.target.clone();
    (target.visibility, target.members) = (
        cloud::glance::Visibility::Public,
        std::collections::BTreeSet::new(),
    );
    let error = forms::publish(&mut shop.publisher_of(&target, "1"))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the credentials lack `publicize_image`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_token_that_ends_on_the_way_is_replaced_and_a_wrong_password_is_said() {
    let shop = Shop::open().await;
    let mut publisher = shop.publisher("1");
    publisher
        .advance(Stage::Private, &forms::Quiet)
        .await
        .unwrap();
    shop.cloud.expire_tokens();
    forms::publish(&mut publisher).await.unwrap();
    assert_eq!(shop.cloud.tokens(), 2);
    shop.is_published("1");

    let openrc = shop.directory.path().join("openrc.sh");
    let text = std::fs::read_to_string(&openrc).unwrap();
    std::fs::write(&openrc, text.replace("not-a-secret", "wrong-secret")).unwrap();
    let error = forms::publish(&mut shop.publisher("2")).await.unwrap_err();
    assert!(matches!(error, Error::Credentials { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("wrong-secret"));
}

#[tokio::test]
async fn a_busy_or_broken_cloud_is_asked_again() {
    let shop = Shop::open().await;
    for (label, reply) in [
        ("glance:create", Reply::empty(503)),
        ("glance:patch", Reply::empty(429)),
        ("glance:tag", Reply::empty(502)),
        ("keystone:token", Reply::empty(500)),
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
    for when in [When::Before, When::After] {
        shop.server.fault(Fault {
            label: Some("glance:upload".to_owned()),
            skip: 0,
            times: 1,
            when,
            act: Act::Cut,
        });
    }
    forms::publish(&mut shop.publisher("1")).await.unwrap();
    shop.is_published("1");
}
