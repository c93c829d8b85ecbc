//! Publishing to Google's cloud, against the strict fake.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

#[path = "gce/breaks.rs"]
mod breaks;
mod forms;
#[path = "gce/life.rs"]
mod life;
#[path = "gce/shop.rs"]
mod shop;

use cloud::{Provider as _, Severity, Stage};
use serde_json::json;
use shop::{Shop, image};

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
        (Stage::Private, "upload"),
        (Stage::Private, "insert-image"),
        (Stage::Private, "remove-object"),
        (Stage::Shared, "share-image"),
        (Stage::Current, "activate-image"),
        (Stage::Current, "set-family"),
    ];
    assert_eq!(steps, expected);
    assert_eq!(shop.server.changes(), 0);
    forms::publish(&mut publisher).await.unwrap();
    shop.is_published("1");
    assert_eq!(publisher.plan(), []);
    let receipts = publisher.receipts();
    assert_eq!(receipts.len(), 1);
    assert_eq!(receipts[0].id, "projects/acme/global/images/host-1-amd64");
    assert_eq!(receipts[0].stage, Stage::Current);

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
    let found = image(&shop.cloud, "host-1-amd64");
    assert!(found["family"].is_null() && found["deprecated"].is_null());
    assert!(shop.cloud.policy("host-1-amd64")["bindings"].is_null());
    publisher
        .advance(Stage::Shared, &forms::Quiet)
        .await
        .unwrap();
    assert!(image(&shop.cloud, "host-1-amd64")["family"].is_null());
    assert_eq!(publisher.receipts()[0].stage, Stage::Shared);
}

#[tokio::test]
async fn a_slow_cloud_is_waited_for() {
    let shop = Shop::open().await;
    {
        let mut state = shop.cloud.state();
        (state.slow, state.unseen) = (1, 2);
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
    {
        let mut state = shop.cloud.state();
        state.quota = Some(0);
        let denied = [
            "compute.images.create",
            "storage.objects.create",
            "compute.images.delete",
        ];
        state.denied.extend(denied.map(str::to_owned));
    }
    let findings = publisher.check().await.unwrap();
    let found: Vec<_> = findings
        .iter()
        .map(|one| (one.severity, one.message.as_str()))
        .collect();
    let expected = [
        (
            Severity::Error,
            "the credentials lack `storage.objects.create`",
        ),
        (
            Severity::Error,
            "the credentials lack `compute.images.create`",
        ),
        (
            Severity::Warning,
            "the credentials lack `compute.images.delete`",
        ),
        (Severity::Error, "quota `IMAGES` is used up: 0 of 0"),
    ];
    assert_eq!(found, expected);
    assert_eq!(shop.server.changes(), 0);

    let mut target = shop.target.clone();
    target.bucket = "elsewhere".to_owned();
    let mut publisher = shop.publisher_of(&target, "1");
    let findings = publisher.check().await.unwrap();
    assert!(
        findings
            .iter()
            .any(|one| one.message == "there is no such bucket"),
        "{findings:?}"
    );
}

#[tokio::test]
async fn an_image_of_somebody_else_is_left_alone() {
    let shop = Shop::open().await;
    shop.cloud
        .put_image(json!({ "name": "host-1-amd64", "labels": { "team": "other" } }));
    let mut publisher = shop.publisher("1");
    let error = forms::publish(&mut publisher).await.unwrap_err();
    assert!(matches!(error, cloud::Error::Foreign { .. }), "{error}");
    let findings = publisher.check().await.unwrap();
    assert!(
        findings[0].message.contains("is not of this build"),
        "{findings:?}"
    );
    assert_eq!(shop.server.changes(), 0);
    assert_eq!(publisher.plan(), []);
}

#[tokio::test]
async fn what_the_cloud_set_is_compared_with_what_was_asked() {
    let cases = [
        ("architecture", json!("ARM64"), "architecture of image"),
        ("diskSizeGb", json!("2"), "disk size in GiB"),
        (
            "guestOsFeatures",
            json!([{ "type": "GVNIC" }]),
            "features of image",
        ),
    ];
    for (field, value, expected) in cases {
        let shop = Shop::open().await;
        forms::publish(&mut shop.publisher("1")).await.unwrap();
        let mut changed = image(&shop.cloud, "host-1-amd64");
        changed[field] = value;
        shop.cloud.put_image(changed);
        let error = forms::publish(&mut shop.publisher("1")).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{field}: {error}");
    }
}
