//! What is made, and that it is made once.

use bytes::Bytes;
use cloud::Provider as _;
use cloud::azure::version;
use cloud::fake::{Request, Service as _};
use cloud::{Severity, Stage};
use hyper::{HeaderMap, Method};
use serde_json::json;

use crate::world::{COMPUTE, Drive, IMAGE, Lab, VERSION, publish, subject};

#[tokio::test]
async fn a_managed_image_is_made_once() {
    let lab = Lab::new().await;
    let subject = subject(1);
    let mut publisher = lab.publisher(&format!("{IMAGE}\nkeep-blob = true"), &subject);
    publisher.observe().await.unwrap();
    let planned: Vec<_> = publisher.plan().iter().map(|step| step.action).collect();
    assert_eq!(planned, ["upload-page-blob", "create-image"]);
    assert!(publisher.check().await.unwrap().is_empty());
    assert_eq!(lab.server.changes(), 0, "looking changes nothing");
    publish(&mut publisher).await.unwrap();

    let (paths, blobs) = lab.left();
    assert_eq!(paths, ["images/host-20260102-1"]);
    let drive = Drive::new(1);
    let vhd = drive.vhd();
    let mut stored = vec![0; vhd.len()];
    lab.azure.read_blob(&blobs[0], 0, &mut stored).unwrap();
    assert!(stored == *vhd, "the page blob is the VHD, byte for byte");
    let written = lab.azure.blob_size(&blobs[0]).unwrap();
    assert_eq!(
        written,
        (vhd.len() as u64, drive.data()),
        "only data was sent"
    );
    let image = lab
        .azure
        .resource(&format!("{COMPUTE}/{}", paths[0]))
        .unwrap();
    assert_eq!(
        image["tags"]["firstboot:manifest"],
        subject.manifest.to_string()
    );
    assert_eq!(image["tags"]["team"], "racks");
    assert_eq!(image["tags"]["firstboot:target"], "azure");
    assert_eq!(image["properties"]["hyperVGeneration"], "V2");

    lab.server.reset();
    let mut again = lab.publisher(&format!("{IMAGE}\nkeep-blob = true"), &subject);
    publish(&mut again).await.unwrap();
    assert_eq!(lab.server.changes(), 0);
    let kinds: Vec<_> = again
        .receipts()
        .into_iter()
        .map(|receipt| (receipt.kind, receipt.stage))
        .collect();
    assert_eq!(
        kinds,
        [
            ("image".to_owned(), Stage::Current),
            ("page-blob".to_owned(), Stage::Current)
        ]
    );

    // Without `keep-blob` the disk goes, and then nothing is left to do.
    let mut third = lab.publisher(IMAGE, &subject);
    publish(&mut third).await.unwrap();
    assert!(lab.azure.blobs().is_empty());
    assert_eq!(lab.server.changes(), 1);
}

#[tokio::test]
async fn a_part_of_a_blob_says_which_it_is() {
    let lab = Lab::new().await;
    let mut publisher = lab.publisher(&format!("{IMAGE}\nkeep-blob = true"), &subject(1));
    publish(&mut publisher).await.unwrap();
    let token = lab.azure.issue("https://storage.azure.com");
    let size = Drive::new(1).vhd().len();
    let cases = [
        ("bytes=512-1023", 206, format!("bytes 512-1023/{size}")),
        (
            "bytes=33554432-99999999",
            206,
            format!("bytes 33554432-{}/{size}", size - 1),
        ),
        ("bytes=9-8", 416, String::new()),
    ];
    for (range, status, shown) in cases {
        let mut headers = HeaderMap::new();
        let mut add =
            |name: &'static str, value: &str| headers.insert(name, value.parse().unwrap());
        add("authorization", &format!("Bearer {token}"));
        add("x-ms-version", "2023-11-03");
        add("x-ms-date", "Fri, 02 Jan 2026 00:00:00 GMT");
        add("range", range);
        let reply = lab.azure.answer(&Request {
            method: Method::GET,
            path: format!("/firstboot/disks/{}", lab.azure.blobs()[0]),
            query: Vec::new(),
            raw_query: String::new(),
            headers,
            body: Bytes::new(),
        });
        let found = reply
            .headers
            .iter()
            .find(|(name, _)| name == "content-range");
        let found = found.map_or("", |(_, value)| value.as_str());
        assert_eq!((reply.status.as_u16(), found), (status, shown.as_str()));
    }
}

#[tokio::test]
async fn a_version_is_replicated_shared_and_then_the_latest() {
    let lab = Lab::new().await;
    lab.azure.mood(|mood| (mood.slow, mood.hidden) = (2, 2));
    let old = subject(1);
    publish(&mut lab.publisher(VERSION, &old)).await.unwrap();
    let new = subject(2);
    let mut publisher = lab.publisher(VERSION, &new);
    publisher
        .advance(Stage::Private, &crate::world::Quiet)
        .await
        .unwrap();
    let path = |subject: &cloud::Subject| {
        let version = version(subject.source_date, &subject.manifest);
        format!("{COMPUTE}/galleries/gallery/images/host-amd64/versions/{version}")
    };
    let excluded = |path: &str| {
        lab.azure.resource(path).unwrap()["properties"]["publishingProfile"]["excludeFromLatest"]
            .clone()
    };
    assert_eq!(
        (excluded(&path(&old)), excluded(&path(&new))),
        (json!(false), json!(true))
    );
    assert_eq!(publisher.receipts()[0].stage, Stage::Shared);
    publish(&mut publisher).await.unwrap();
    assert_eq!(
        (excluded(&path(&old)), excluded(&path(&new))),
        (json!(true), json!(false))
    );
    let shared = lab.azure.shared("gallery");
    assert_eq!(shared.len(), 1);
    assert_eq!(shared[0].0, "Subscriptions");
    let made = lab.azure.resource(&path(&new)).unwrap();
    let regions = &made["properties"]["publishingProfile"]["targetRegions"];
    assert_eq!(regions[0]["name"], "eastus");
    assert_eq!(
        (
            &regions[0]["regionalReplicaCount"],
            &regions[0]["storageAccountType"]
        ),
        (&json!(2), &json!("Premium_LRS"))
    );
    assert!(made["properties"]["publishingProfile"]["endOfLifeDate"].is_string());
    assert!(lab.azure.blobs().is_empty());
    let places: Vec<_> = publisher
        .receipts()
        .into_iter()
        .map(|receipt| receipt.place)
        .collect();
    assert_eq!(places, ["eastus", "westeurope"]);

    lab.server.reset();
    let mut again = lab.publisher(VERSION, &new);
    publish(&mut again).await.unwrap();
    assert_eq!(lab.server.changes(), 0);
    assert!(
        again
            .check()
            .await
            .unwrap()
            .iter()
            .all(|finding| finding.severity == Severity::Warning)
    );
}
