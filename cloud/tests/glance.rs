//! Publishing to OpenStack's image service, against the strict fake.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

#[path = "glance/breaks.rs"]
mod breaks;
mod forms;
#[path = "glance/life.rs"]
mod life;
#[path = "glance/shop.rs"]
mod shop;

use cloud::fake::glance::PROJECT;
use cloud::{Provider as _, Severity, Stage};
use serde_json::json;
use shop::Shop;

#[tokio::test]
async fn an_image_is_published_and_a_second_run_changes_nothing() {
    let shop = Shop::open().await;
    let mut publisher = shop.publisher("1");
    publisher.observe().await.unwrap();
    let steps: Vec<_> = publisher
        .plan()
        .iter()
        .map(|step| (step.stage, step.action))
        .collect();
    let expected = [
        (Stage::Private, "create-image"),
        (Stage::Private, "upload"),
        (Stage::Private, "compare-hash"),
        (Stage::Shared, "set-visibility"),
        (Stage::Shared, "share-image"),
        (Stage::Current, "tag-image"),
    ];
    assert_eq!(steps, expected);
    assert_eq!(shop.server.changes(), 0);
    forms::publish(&mut publisher).await.unwrap();
    shop.is_published("1");
    assert_eq!(publisher.plan(), []);
    let receipts = publisher.receipts();
    assert_eq!(receipts.len(), 1);
    assert_eq!(
        (receipts[0].place.as_str(), receipts[0].stage),
        (PROJECT, Stage::Current)
    );

    shop.server.reset();
    let mut again = shop.publisher("1");
    forms::publish(&mut again).await.unwrap();
    assert_eq!(shop.server.changes(), 0, "{:?}", shop.server.calls());
    assert_eq!(again.receipts(), receipts);
}

#[tokio::test]
async fn nobody_sees_an_image_before_its_stage() {
    let shop = Shop::open().await;
    let mut publisher = shop.publisher("1");
    publisher
        .advance(Stage::Private, &forms::Quiet)
        .await
        .unwrap();
    let image = &shop.cloud.images()[0];
    assert_eq!(
        (&image["visibility"], &image["tags"]),
        (&json!("private"), &json!(["boot"]))
    );
    publisher
        .advance(Stage::Shared, &forms::Quiet)
        .await
        .unwrap();
    let image = &shop.cloud.images()[0];
    assert_eq!(
        (&image["visibility"], &image["tags"]),
        (&json!("shared"), &json!(["boot"]))
    );
    assert_eq!(publisher.receipts()[0].stage, Stage::Shared);
}

#[tokio::test]
async fn a_slow_cloud_is_waited_for() {
    let shop = Shop::open().await;
    {
        let mut state = shop.cloud.state();
        (state.slow, state.unseen) = (5, 5);
    }
    forms::publish(&mut shop.publisher("1")).await.unwrap();
    shop.is_published("1");
}

#[tokio::test]
async fn what_stands_in_the_way_is_found_before_anything_is_sent() {
    let shop = Shop::open().await;
    let mut publisher = shop.publisher("1");
    publisher.observe().await.unwrap();
    assert_eq!(publisher.check().await.unwrap(), []);
    shop.cloud.state().quota = Some(0);
    let findings = publisher.check().await.unwrap();
    let found: Vec<_> = findings
        .iter()
        .map(|one| (one.severity, one.message.as_str()))
        .collect();
    assert_eq!(
        found,
        [(
            Severity::Error,
            "quota `image_count_total` is used up: 0 and 1 of 0"
        )]
    );
    assert_eq!(shop.server.changes(), 0);
    let error = forms::publish(&mut publisher).await.unwrap_err();
    assert!(
        error.to_string().ends_with(
            "413 Payload Too Large: 413 Request is too large: the quota of images is used up."
        ),
        "{error}"
    );
}
