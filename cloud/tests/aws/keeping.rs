//! Which images a target has, who keeps them, and how they go.

use cloud::fake::aws::Rules;
use cloud::{Provider as _, Subject};
use image_manifest::Digest;

use crate::bench::Bench;

const TARGET: &str = "regions = ['eu-west-1', 'eu-north-1']\nparameters = ['/newest']";

#[tokio::test]
async fn what_nobody_keeps_can_be_removed_with_its_snapshots() {
    let mut bench = Bench::new(
        Rules {
            hidden: 1,
            ..Rules::default()
        },
        TARGET,
    )
    .await;
    bench.publish().await.unwrap();
    let before = bench.aws.images("eu-north-1").remove(0);
    bench.aws.refer(
        &bench.aws.images("eu-west-1")[0].id.clone(),
        "arn:aws:ec2:eu-west-1:111122223333:instance/i-1",
    );
    bench.subject = Subject {
        manifest: Digest::of(b"another build"),
        version: "20260103-89abcdef".to_owned(),
        ..bench.subject
    };
    bench.publish().await.unwrap();
    let mut publisher = bench.publisher();
    let inventory = publisher.inventory().await.unwrap();
    assert_eq!(inventory.len(), 4);
    let find = |place: &str, version: &str| {
        let mut found = inventory
            .iter()
            .filter(|one| one.place == place && one.name.contains(version));
        found.next().unwrap()
    };
    let used = find("eu-west-1", "20260102");
    assert_eq!(
        used.kept_by,
        ["arn:aws:ec2:eu-west-1:111122223333:instance/i-1"]
    );
    let newest = find("eu-north-1", "20260103");
    assert_eq!(newest.kept_by, ["parameter /newest"]);
    assert_eq!(
        newest.bytes,
        7 << 19,
        "only blocks that were written are paid for"
    );
    let old = find("eu-north-1", "20260102");
    assert_eq!(
        (old.id.as_str(), old.kept_by.len()),
        (before.id.as_str(), 0)
    );
    publisher.deprecate(old, 0).await.unwrap();
    assert!(
        bench
            .aws
            .images("eu-north-1")
            .iter()
            .any(|image| image.id == old.id && image.deprecated.is_some())
    );
    for kept in [used, newest] {
        let error = publisher.remove(kept).await.unwrap_err().to_string();
        assert!(error.contains("is not removed"), "{error}");
    }
    publisher.remove(old).await.unwrap();
    assert!(
        !bench
            .aws
            .images("eu-north-1")
            .iter()
            .any(|image| image.id == old.id)
    );
    assert!(
        !bench
            .aws
            .snapshots("eu-north-1")
            .iter()
            .any(|snapshot| snapshot.id == before.snapshot)
    );
    publisher.remove(old).await.unwrap();
}
