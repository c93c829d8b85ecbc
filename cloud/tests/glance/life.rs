//! After the publish: the tag that moves, images that are withdrawn, removed, kept.

use cloud::{Error, Provider as _};
use serde_json::json;

use crate::forms;
use crate::shop::Shop;

#[tokio::test]
async fn the_tag_moves_to_the_image_that_was_published_last() {
    let shop = Shop::open().await;
    let mut target = shop.target.clone();
    target.hide_older = true;
    for version in ["1", "2", "1"] {
        forms::publish(&mut shop.publisher_of(&target, version))
            .await
            .unwrap();
        shop.is_published(version);
        for other in shop
            .cloud
            .images()
            .iter()
            .filter(|image| image["firstboot_version"] != version)
        {
            assert_eq!(other["tags"], json!(["boot"]));
            assert_eq!(other["os_hidden"], true);
        }
        shop.server.reset();
        forms::publish(&mut shop.publisher_of(&target, version))
            .await
            .unwrap();
        assert_eq!(shop.server.changes(), 0);
    }
}

#[tokio::test]
async fn a_withdrawn_image_stays_withdrawn() {
    let shop = Shop::open().await;
    let mut publisher = shop.publisher("1");
    forms::publish(&mut publisher).await.unwrap();
    let found = publisher.inventory().await.unwrap().remove(0);
    assert_eq!(found.kept_by, ["tagged `current`"]);
    publisher.deprecate(&found, 1_767_312_000).await.unwrap();
    shop.server.reset();
    let mut again = shop.publisher("1");
    forms::publish(&mut again).await.unwrap();
    assert_eq!(shop.server.changes(), 0);
    let findings = again.check().await.unwrap();
    assert!(
        findings[0].message.contains("was withdrawn"),
        "{findings:?}"
    );
    let found = again.inventory().await.unwrap().remove(0);
    assert_eq!(
        found.deprecated.as_deref(),
        Some("from 2026-01-02T00:00:00Z on")
    );
    assert_eq!(found.kept_by, [""; 0]);
}

#[tokio::test]
async fn what_drifted_is_set_again() {
    let shop = Shop::open().await;
    forms::publish(&mut shop.publisher("1")).await.unwrap();
    let id = shop.image("1")["id"].as_str().unwrap().to_owned();
    for (field, value) in [
        ("hw_disk_bus", json!("ide")),
        ("min_disk", json!(1)),
        ("tags", json!(["other", "current"])),
    ] {
        shop.cloud.put_field(&id, field, value);
    }
    let mut target = shop.target.clone();
    target.protected = true;
    forms::publish(&mut shop.publisher_of(&target, "1"))
        .await
        .unwrap();
    let image = shop.image("1");
    let found = ["hw_disk_bus", "min_disk", "tags", "protected"].map(|field| image[field].clone());
    assert_eq!(
        found,
        [
            json!("scsi"),
            json!(2),
            json!(["boot", "current", "other"]),
            json!(true)
        ]
    );
}

#[tokio::test]
async fn what_nobody_keeps_is_removed() {
    let shop = Shop::open().await;
    for version in ["1", "2", "3", "4", "5"] {
        forms::publish(&mut shop.publisher(version)).await.unwrap();
    }
    let id = |version: &str| shop.image(version)["id"].as_str().unwrap().to_owned();
    shop.cloud.put_member(&id("2"), "stranger");
    shop.cloud.put_field(&id("3"), "protected", json!(true));
    shop.cloud
        .put_field(&id("4"), "visibility", json!("public"));
    let mut publisher = shop.publisher("5");
    let all = publisher.inventory().await.unwrap();
    let kept: Vec<_> = all
        .iter()
        .map(|one| (one.name.as_str(), one.kept_by.concat()))
        .collect();
    let expected = [
        ("host-1-amd64", ""),
        ("host-2-amd64", "shared with project `stranger`"),
        ("host-3-amd64", "it is protected"),
        ("host-4-amd64", "it is public"),
        ("host-5-amd64", "tagged `current`"),
    ];
    assert_eq!(kept, expected.map(|(name, kept)| (name, kept.to_owned())));
    let subject = forms::subject("1", forms::disk(1 << 30, &[]));
    assert_eq!(all[0].manifest, subject.manifest.to_string());
    publisher.remove(&all[0]).await.unwrap();
    publisher.remove(&all[0]).await.unwrap();
    for kept in &all[1..] {
        let error = publisher.remove(kept).await.unwrap_err();
        assert!(matches!(error, Error::Kept { .. }), "{error}");
    }
    assert_eq!(publisher.inventory().await.unwrap().len(), 4);
}
