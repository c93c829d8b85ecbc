//! The policy in the README allows what the code calls, and nothing else but what one of those calls needs.

use std::collections::BTreeSet;

use cloud::Provider as _;
use cloud::fake::aws::Rules;
use serde_json::Value;

use crate::bench::{Bench, advance};
use crate::publish::FULL;

/// What is asked for beside the calls themselves: tags are set by other permissions than what they are set on.
const IMPLIED: [&str; 1] = ["ssm:AddTagsToResource"];

/// What `ec2:DescribeImageReferences` looks at with the caller's permissions, as `AmazonEC2ImageReferencesAccessPolicy` has it.
const LOOKED_AT: [&str; 8] = [
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeLaunchTemplates",
    "imagebuilder:GetContainerRecipe",
    "imagebuilder:ListContainerRecipes",
    "imagebuilder:ListImageRecipes",
    "ssm:DescribeParameters",
    "ssm:GetParameters",
];

#[tokio::test]
async fn the_policy_allows_what_is_called_and_nothing_else() {
    let mut bench = Bench::new(Rules::default(), FULL).await;
    let mut publisher = bench.publisher();
    publisher.check().await.unwrap();
    advance(&mut publisher).await.unwrap();
    let there = publisher.inventory().await.unwrap();
    publisher.deprecate(&there[0], 0).await.unwrap();
    // What only some runs do: another set of tags, a copy that is there twice, a public image.
    bench.target = bench.target.replace("team = 'boot'", "team = 'base'");
    bench.target.push_str("\npublic = true");
    let home = bench.aws.images("eu-west-1").remove(0);
    bench.aws.put_image(cloud::fake::aws::Image {
        id: "ami-twice".to_owned(),
        created: home.created + 1,
        protected: false,
        grants: BTreeSet::new(),
        ..home
    });
    let mut publisher = bench.publisher();
    publisher.check().await.unwrap();
    advance(&mut publisher).await.unwrap();
    let called = bench.server.calls().into_keys().map(|called| called.label);
    let mut called: BTreeSet<String> = called.collect();
    called.extend(IMPLIED.map(str::to_owned));
    // The fake is asked for this where snapshots are lost; here none is.
    called.insert("ec2:DeleteSnapshot".to_owned());
    let readme = include_str!("../../README.md");
    let section = readme.split("## Amazon").nth(1).expect("a section");
    let policy = section
        .split("```json\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let policy: Value = serde_json::from_str(policy.expect("a policy")).expect("JSON");
    let statements = policy["Statement"].as_array().expect("statements");
    let actions = statements
        .iter()
        .flat_map(|statement| statement["Action"].as_array().expect("actions"));
    let allowed: BTreeSet<String> = actions
        .map(|action| action.as_str().expect("a name").to_owned())
        .collect();
    assert!(called.contains("ec2:DescribeImageReferences"));
    called.extend(LOOKED_AT.map(str::to_owned));
    assert_eq!(allowed, called);
}
