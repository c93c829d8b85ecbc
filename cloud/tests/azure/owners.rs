//! Whose an image is, and who may use it: what the cloud does not tell is taken for a user.

use cloud::fake::{Act, Fault, Reply, When};
use cloud::{Error, Provider as _, Published};
use image_manifest::Digest;
use serde_json::{Value, json};

use crate::world::{COMPUTE, Drive, IMAGE, Lab, PRIVATE, VERSION, publish, subject};

const MACHINES: &str = "Microsoft.Compute/virtualMachines/read";
const KEPT: &str = "keep-blob = true";

fn missing(label: &str) -> Fault {
    Fault {
        label: Some(label.to_owned()),
        skip: 0,
        times: 1,
        when: When::Before,
        act: Act::Answer(Reply::json(404, &json!({}))),
    }
}

fn is_kept(result: Result<(), Error>, why: &str) {
    let error = result.unwrap_err();
    let Error::Kept { by, .. } = &error else {
        panic!("{error}");
    };
    assert!(by.iter().any(|by| by.contains(why)), "{by:?}");
}

#[tokio::test]
async fn a_list_that_may_lack_something_is_not_believed() {
    let lab = Lab::new().await;
    let mut publisher = lab.publisher(IMAGE, &subject(1));
    publish(&mut publisher).await.unwrap();
    let path = lab.azure.resources().remove(0);
    let machine = COMPUTE.replace("resourceGroups/images", "resourceGroups/others");
    let machine = format!("{machine}/virtualMachines/web");
    let profile = json!({ "imageReference": { "id": path } });
    let value = json!({ "location": "westeurope", "properties": { "storageProfile": profile } });
    lab.azure.plant(&machine, value);
    let all = publisher.inventory().await.unwrap();
    assert_eq!(all[0].kept_by, ["virtualMachines/web"]);

    // The role is given at the resource group of the image: the cloud lists nothing of others, and says nothing.
    lab.azure
        .mood(|mood| mood.narrow = [MACHINES.to_owned()].into());
    let all = publisher.inventory().await.unwrap();
    let wanted = format!("maybe somebody: asking needs `{MACHINES}` at the subscription");
    assert_eq!(all[0].kept_by, [wanted]);
    is_kept(publisher.remove(&all[0]).await, MACHINES);
    lab.azure.mood(|mood| mood.narrow.clear());

    for (label, why) in [
        (
            "arm:GET virtualMachines",
            "the cloud has no list of `virtualMachines`",
        ),
        ("arm:GET other", MACHINES),
    ] {
        lab.server.fault(missing(label));
        let all = publisher.inventory().await.unwrap();
        let told = all[0].kept_by.iter().any(|by| by.contains(why));
        assert!(told, "{label}: {all:?}");
    }
}

#[tokio::test]
async fn versions_of_a_shared_gallery_are_kept() {
    const SHARED: &str = "the gallery is shared: users elsewhere cannot be asked";
    let denied = "Microsoft.Compute/galleries/read";
    let asking = format!("maybe somebody: asking needs `{denied}` at the gallery");
    let cases = [
        ("nobody", Lab::private().await, PRIVATE, None),
        ("the cloud", Lab::new().await, PRIVATE, Some(SHARED)),
        ("the target", Lab::private().await, VERSION, Some(SHARED)),
        ("unknown", Lab::private().await, PRIVATE, Some(&*asking)),
    ];
    for (name, lab, lines, expected) in cases {
        for salt in [1, 2] {
            let mut publisher = lab.publisher(PRIVATE, &subject(salt));
            publish(&mut publisher).await.unwrap();
        }
        if name == "unknown" {
            lab.azure
                .mood(|mood| mood.denied = [denied.to_owned()].into());
        }
        let mut publisher = lab.publisher(lines, &subject(2));
        let all = publisher.inventory().await.unwrap();
        assert_eq!(all.len(), 2, "{name}");
        let old = subject(1).manifest.to_string();
        let old = all.iter().find(|one| one.manifest == old).unwrap();
        let found = old.kept_by.iter().map(String::as_str);
        assert!(found.eq(expected), "{name}: {:?}", old.kept_by);
        match expected {
            None => publisher.remove(old).await.unwrap(),
            Some(why) => is_kept(publisher.remove(old).await, why),
        }
    }
}

#[tokio::test]
async fn targets_of_one_group_do_not_take_each_others_objects() {
    let lab = Lab::new().await;
    let subject = subject(1);
    let (ours, theirs) = (
        format!("{IMAGE}\n{KEPT}"),
        format!("image-name = \"b-{{image}}\"\n{KEPT}"),
    );
    let mut first = lab.publisher(&ours, &subject);
    publish(&mut first).await.unwrap();
    // Its name begins with the other's.
    let mut second = lab.publisher_of("azure-b", &theirs, &subject);
    publish(&mut second).await.unwrap();
    assert_eq!(lab.left().1.len(), 2);
    let names =
        |all: &[Published]| -> Vec<String> { all.iter().map(|one| one.name.clone()).collect() };
    let (mine, others) = (
        first.inventory().await.unwrap(),
        second.inventory().await.unwrap(),
    );
    let blobs = lab.azure.blobs();
    let of = |target: &str| format!("{target}-{}.vhd", Digest::of(Drive::new(1).vhd()).hex());
    assert_eq!(names(&mine), ["host-20260102-1".to_owned(), of("azure")]);
    assert_eq!(names(&others), ["b-host".to_owned(), of("azure-b")]);
    let error = first.remove(&others[0]).await.unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    first.remove(&others[1]).await.unwrap();
    assert_eq!(lab.azure.blobs(), blobs);
    let error = publish(&mut lab.publisher_of("azure-b", &ours, &subject)).await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");

    // What was made before there was a tag is found, and gets it.
    let path = &mine[0].id;
    let untagged = |path: &str| {
        let mut value = lab.azure.resource(path).unwrap();
        let tags = value["tags"].as_object_mut().unwrap();
        assert_eq!(tags.remove("firstboot:target"), Some(json!("azure")));
        lab.azure.plant(path, value);
    };
    untagged(path);
    assert_eq!(names(&first.inventory().await.unwrap()), names(&mine));
    publish(&mut first).await.unwrap();
    untagged(path);
}

#[tokio::test]
async fn a_disk_that_the_target_keeps_goes_after_its_image() {
    let lab = Lab::new().await;
    let mut publisher = lab.publisher(&format!("{IMAGE}\n{KEPT}"), &subject(1));
    publish(&mut publisher).await.unwrap();
    let all = publisher.inventory().await.unwrap();
    let places: Vec<_> = all.iter().map(|one| one.place.as_str()).collect();
    assert_eq!(places, ["westeurope", "disks (upload)"]);
    assert_eq!(all[1].kept_by, ["`keep-blob` of the target"]);
    is_kept(publisher.remove(&all[1]).await, "keep-blob");
    assert_eq!(lab.azure.blobs().len(), 1);
    publisher.remove(&all[0]).await.unwrap();
    publisher.remove(&all[1]).await.unwrap();
    assert!(lab.azure.blobs().is_empty());
}

#[tokio::test]
async fn what_is_of_an_unknown_age_is_kept() {
    for told in [Value::Null, json!("long ago")] {
        let lab = Lab::new().await;
        let mut publisher = lab.publisher(IMAGE, &subject(1));
        publish(&mut publisher).await.unwrap();
        let path = lab.azure.resources().remove(0);
        let mut value = lab.azure.resource(&path).unwrap();
        value["tags"]["firstboot:published"] = told;
        lab.azure.plant(&path, value);
        let all = publisher.inventory().await.unwrap();
        assert_eq!(all[0].kept_by, ["its age is not known"]);
        is_kept(publisher.remove(&all[0]).await, "age");
    }
}
