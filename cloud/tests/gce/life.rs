//! After the publish: pointers that move back, images that are withdrawn, removed, kept.

use cloud::{Error, Provider as _};
use serde_json::json;

use crate::forms;
use crate::shop::{Shop, image};

#[tokio::test]
async fn a_family_points_to_the_image_that_was_published_last_also_when_it_is_older() {
    let shop = Shop::open().await;
    forms::publish(&mut shop.publisher("1")).await.unwrap();
    forms::publish(&mut shop.publisher("2")).await.unwrap();
    assert!(image(&shop.cloud, "host-1-amd64")["deprecated"]["replacement"].is_null());
    // Back to the older one: the newer one steps aside.
    forms::publish(&mut shop.publisher("1")).await.unwrap();
    let newer = image(&shop.cloud, "host-2-amd64");
    assert_eq!(newer["deprecated"]["state"], "DEPRECATED");
    assert!(
        newer["deprecated"]["replacement"]
            .as_str()
            .unwrap()
            .ends_with("/host-1-amd64")
    );
    shop.server.reset();
    forms::publish(&mut shop.publisher("1")).await.unwrap();
    assert_eq!(shop.server.changes(), 0);
    // And forward again.
    forms::publish(&mut shop.publisher("2")).await.unwrap();
    shop.is_published("2");
}

#[tokio::test]
async fn a_family_is_not_taken_from_somebody_else() {
    let shop = Shop::open().await;
    forms::publish(&mut shop.publisher("1")).await.unwrap();
    shop.cloud
        .put_image(json!({ "name": "other", "family": "host", "labels": {} }));
    let error = forms::publish(&mut shop.publisher("1")).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("image `other`, which is newer in the family,"),
        "{error}"
    );
    assert!(image(&shop.cloud, "other")["deprecated"].is_null());
}

#[tokio::test]
async fn a_withdrawn_image_stays_withdrawn() {
    let shop = Shop::open().await;
    let mut publisher = shop.publisher("1");
    forms::publish(&mut publisher).await.unwrap();
    let found = publisher.inventory().await.unwrap().remove(0);
    publisher.deprecate(&found, 1_767_312_000).await.unwrap();
    shop.server.reset();
    let mut again = shop.publisher("1");
    forms::publish(&mut again).await.unwrap();
    assert_eq!(shop.server.changes(), 0);
    let findings = again.check().await.unwrap();
    assert!(
        findings[0].message.contains("was withdrawn (DEPRECATED)"),
        "{findings:?}"
    );
    let found = again.inventory().await.unwrap().remove(0);
    assert_eq!(
        found.deprecated.as_deref(),
        Some("DEPRECATED since 2026-01-02")
    );
    assert_eq!(found.kept_by, [""; 0]);
}

#[tokio::test]
async fn labels_that_drifted_are_set_again() {
    let shop = Shop::open().await;
    forms::publish(&mut shop.publisher("1")).await.unwrap();
    let mut target = shop.target.clone();
    target.labels.insert("cost".to_owned(), "other".to_owned());
    forms::publish(&mut shop.publisher_of(&target, "1"))
        .await
        .unwrap();
    assert_eq!(
        image(&shop.cloud, "host-1-amd64")["labels"]["cost"],
        "other"
    );
}

#[tokio::test]
async fn others_of_a_policy_stay() {
    let shop = Shop::open().await;
    let mut publisher = shop.publisher("1");
    forms::publish(&mut publisher).await.unwrap();
    let others = json!([
        { "role": "roles/compute.imageUser", "members": ["user:a@acme.example"] },
        { "role": "roles/owner", "members": ["user:b@acme.example"], "condition": { "expression": "true" } },
    ]);
    shop.cloud.put_policy(
        "host-1-amd64",
        json!({ "etag": "x", "version": 3, "bindings": others }),
    );
    forms::publish(&mut publisher).await.unwrap();
    let policy = shop.cloud.policy("host-1-amd64");
    let bindings = policy["bindings"].as_array().unwrap();
    assert!(bindings.contains(&others[1]));
    let members = json!(["group:hosts@acme.example", "user:a@acme.example"]);
    assert!(bindings.iter().any(|binding| binding["members"] == members));
    let found = publisher.inventory().await.unwrap().remove(0);
    let kept = [
        "family `host` points to it",
        "shared with `user:a@acme.example`",
        "shared with `user:b@acme.example`",
    ];
    assert_eq!(found.kept_by, kept);
}

#[tokio::test]
async fn what_a_template_names_or_may_name_stays() {
    let shop = Shop::open().await;
    for version in ["1", "2"] {
        forms::publish(&mut shop.publisher(version)).await.unwrap();
    }
    let mut publisher = shop.publisher("2");
    let all = publisher.inventory().await.unwrap();
    assert_eq!(all[0].kept_by, [""; 0]);
    shop.cloud.put_template("web", "host-1-amd64");
    let refused = publisher.remove(&all[0]).await.unwrap_err();
    let by = ["instance template `web`"];
    assert!(
        matches!(&refused, Error::Kept { by: found, .. } if *found == by),
        "{refused}"
    );
    shop.cloud
        .state()
        .denied
        .insert("compute.instanceTemplates.list".to_owned());
    let all = publisher.inventory().await.unwrap();
    assert!(all.iter().all(|one| !one.kept_by.is_empty()), "{all:?}");
}

#[tokio::test]
async fn what_nobody_keeps_is_removed() {
    let shop = Shop::open().await;
    for version in ["1", "2", "3"] {
        forms::publish(&mut shop.publisher(version)).await.unwrap();
    }
    shop.cloud.state().slow = 2;
    let mut publisher = shop.publisher("3");
    let all = publisher.inventory().await.unwrap();
    let names: Vec<_> = all
        .iter()
        .map(|one| (one.name.as_str(), one.kept_by.len()))
        .collect();
    assert_eq!(
        names,
        [
            ("host-1-amd64", 0),
            ("host-2-amd64", 0),
            ("host-3-amd64", 1)
        ]
    );
    let subject = forms::subject("1", forms::disk(1 << 30, &[]));
    assert_eq!(all[0].manifest, subject.manifest.to_string());
    assert!(all[0].bytes > 0 && all[0].created > 1_767_312_000);
    publisher.remove(&all[0]).await.unwrap();
    let error = publisher.remove(&all[2]).await.unwrap_err();
    assert!(matches!(error, Error::Kept { .. }), "{error}");
    // Twice is once.
    publisher.remove(&all[0]).await.unwrap();
    assert_eq!(publisher.inventory().await.unwrap().len(), 2);
}
