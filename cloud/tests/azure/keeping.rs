//! What there is, who keeps it, and how it ends; and what is found before anything begins.

use cloud::Provider as _;
use cloud::fake::azure::{Azure, World};
use cloud::fake::{Act, Fault, Server, When};
use cloud::{Error, Kind, Published};
use serde_json::json;
use std::sync::Arc;

use crate::world::{COMPUTE, IMAGE, Lab, PRIVATE, VERSION, publish, subject};

fn of<'a>(all: &'a [Published], subject: &cloud::Subject) -> &'a Published {
    let manifest = subject.manifest.to_string();
    all.iter().find(|one| one.manifest == manifest).unwrap()
}

#[tokio::test]
async fn the_latest_and_what_is_used_is_kept() {
    let lab = Lab::private().await;
    let (old, new) = (subject(1), subject(2));
    publish(&mut lab.publisher(PRIVATE, &old)).await.unwrap();
    let mut publisher = lab.publisher(PRIVATE, &new);
    publish(&mut publisher).await.unwrap();
    let all = publisher.inventory().await.unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(of(&all, &new).kept_by, ["the latest of its definition"]);
    assert!(of(&all, &old).kept_by.is_empty() && of(&all, &old).created > 1_700_000_000);
    assert!(publisher.remove(of(&all, &new)).await.is_err());

    let user = format!("{COMPUTE}/virtualMachineScaleSets/web");
    let image = json!({ "imageReference": { "id": of(&all, &old).id.to_uppercase() } });
    let profile = json!({ "virtualMachineProfile": { "storageProfile": image } });
    lab.azure.plant(
        &user,
        json!({ "location": "westeurope", "properties": profile }),
    );
    let all = publisher.inventory().await.unwrap();
    assert_eq!(of(&all, &old).kept_by, ["virtualMachineScaleSets/web"]);
    let error = publisher.remove(of(&all, &old)).await.unwrap_err();
    assert!(
        error.to_string().contains("virtualMachineScaleSets/web"),
        "{error}"
    );
}

#[tokio::test]
async fn what_may_not_be_asked_about_is_kept() {
    let lab = Lab::new().await;
    let subject = subject(1);
    let mut publisher = lab.publisher(IMAGE, &subject);
    publish(&mut publisher).await.unwrap();
    let action = "Microsoft.Compute/virtualMachineScaleSets/read";
    lab.azure
        .mood(|mood| mood.denied = [action.to_owned()].into());
    let all = publisher.inventory().await.unwrap();
    assert!(of(&all, &subject).created > 1_700_000_000 && of(&all, &subject).bytes > 32 << 20);
    assert!(of(&all, &subject).kept_by[0].contains(action), "{all:?}");
    assert!(publisher.remove(of(&all, &subject)).await.is_err());
    lab.azure.mood(|mood| mood.denied.clear());
    publisher.remove(of(&all, &subject)).await.unwrap();
    assert!(lab.azure.resources().is_empty());
}

#[tokio::test]
async fn an_image_is_deprecated_and_removed() {
    for lines in [IMAGE, PRIVATE] {
        let lab = Lab::private().await;
        let (old, new) = (subject(1), subject(2));
        publish(&mut lab.publisher(lines, &old)).await.unwrap();
        let mut publisher = lab.publisher(lines, &new);
        publish(&mut publisher).await.unwrap();
        let before = lab.azure.resources().len();
        let all = publisher.inventory().await.unwrap();
        publisher
            .deprecate(of(&all, &old), 1_900_000_000)
            .await
            .unwrap();
        let all = publisher.inventory().await.unwrap();
        let end = of(&all, &old).deprecated.as_deref();
        assert_eq!(end, Some("2030-03-17T17:46:40Z"));
        publisher.remove(of(&all, &old)).await.unwrap();
        assert_eq!(lab.azure.resources().len(), before - 1);
        publisher.remove(of(&all, &old)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_protected_is_kept_until_its_end() {
    let lab = Lab::private().await;
    let protect = PRIVATE.replace("end-of-life-after", "protect = true, end-of-life-after");
    let (old, new) = (subject(1), subject(2));
    publish(&mut lab.publisher(&protect, &old)).await.unwrap();
    let mut publisher = lab.publisher(&protect, &new);
    publish(&mut publisher).await.unwrap();
    let all = publisher.inventory().await.unwrap();
    assert!(
        of(&all, &old).kept_by[0].starts_with("protection until"),
        "{all:?}"
    );
    assert!(publisher.remove(of(&all, &old)).await.is_err());
}

#[tokio::test]
async fn a_disk_that_nobody_finished_is_found_and_removed() {
    let lab = Lab::new().await;
    let label = Some("blob:SetMetadata".to_owned());
    lab.server.fault(Fault {
        label,
        skip: 0,
        times: 1,
        when: When::Before,
        act: Act::Hang,
    });
    let mut publisher = lab.publisher(IMAGE, &subject(1));
    tokio::select! {
        _ = publish(&mut publisher) => panic!("it was to be killed"),
        () = lab.server.stopped() => {}
    }
    drop(publisher);
    let mut later = lab.publisher(IMAGE, &subject(2));
    let all = later.inventory().await.unwrap();
    assert_eq!((all.len(), all[0].created), (1, 1_767_312_000));
    assert_eq!(all[0].place, "disks (upload)");
    later.remove(&all[0]).await.unwrap();
    assert!(lab.azure.blobs().is_empty());
}

#[tokio::test]
async fn another_definition_of_the_same_target_is_not_touched() {
    let lab = Lab::new().await;
    let planted = json!({ "location": "westeurope", "tags": { "firstboot:image": "other", "firstboot:manifest": "m" }, "properties": {} });
    let path = format!("{COMPUTE}/images/other");
    lab.azure.plant(&path, planted);
    let mut publisher = lab.publisher(IMAGE, &subject(1));
    assert!(publisher.inventory().await.unwrap().is_empty());
    let stranger = Published {
        target: "azure".to_owned(),
        place: String::new(),
        id: path,
        name: "other".to_owned(),
        kind: Kind::Image,
        architecture: "amd64".to_owned(),
        manifest: "another".to_owned(),
        created: 0,
        bytes: 0,
        kept_by: Vec::new(),
        deprecated: None,
        deprecated_from: None,
    };
    let error = publisher.remove(&stranger).await.unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn what_stands_in_the_way_is_found_before_the_first_byte() {
    let gallery = |permissions: &str| vec![("gallery".to_owned(), permissions.to_owned())];
    let base = World::default;
    let cases = [
        ("nothing", VERSION, base(), None),
        (
            "group",
            IMAGE,
            World {
                group: "others".to_owned(),
                ..base()
            },
            Some("resource group `images` does not exist"),
        ),
        (
            "account",
            IMAGE,
            World {
                account: "other".to_owned(),
                ..base()
            },
            Some("storage account `firstboot` does not exist"),
        ),
        (
            "place",
            IMAGE,
            World {
                location: "eastus".to_owned(),
                ..base()
            },
            Some("is in `eastus`"),
        ),
        (
            "container",
            IMAGE,
            World {
                container: "other".to_owned(),
                ..base()
            },
            Some("ContainerNotFound"),
        ),
        (
            "gallery",
            VERSION,
            World {
                galleries: Vec::new(),
                ..base()
            },
            Some("gallery `gallery` does not exist"),
        ),
        (
            "sharing",
            VERSION,
            World {
                galleries: gallery("Private"),
                ..base()
            },
            Some("`Private`, not `Groups`"),
        ),
        (
            "region",
            VERSION,
            World {
                regions: vec!["westeurope".to_owned()],
                ..base()
            },
            Some("in `eastus`"),
        ),
    ];
    for (name, lines, world, expected) in cases {
        let mut lab = Lab::new().await;
        lab.azure = Arc::new(Azure::new(world));
        lab.server = Server::start(lab.azure.clone()).await.unwrap();
        let found = lab.publisher(lines, &subject(1)).check().await.unwrap();
        let said: Vec<_> = found
            .iter()
            .map(|finding| finding.message.as_str())
            .collect();
        match expected {
            None => assert!(said.is_empty(), "{name}: {said:?}"),
            Some(text) => assert!(
                said.iter().any(|said| said.contains(text)),
                "{name}: {said:?}"
            ),
        }
        assert_eq!(lab.server.changes(), 0, "{name}");
    }
}

#[tokio::test]
async fn a_definition_of_another_kind_is_found() {
    let lab = Lab::new().await;
    publish(&mut lab.publisher(VERSION, &subject(1)))
        .await
        .unwrap();
    let other = format!("{VERSION}\nhyper-v-generation = \"V1\"")
        .replace("security-type = \"TrustedLaunchSupported\",", "");
    let found = lab.publisher(&other, &subject(2)).check().await.unwrap();
    assert!(
        found
            .iter()
            .any(|finding| finding.message.contains("hyperVGeneration")),
        "{found:?}"
    );
}
