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
    let statements = statements();
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

fn statements() -> Vec<Value> {
    let readme = include_str!("../../README.md");
    let section = readme.split("## Amazon").nth(1).expect("a section");
    let policy = section
        .split("```json\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let policy: Value = serde_json::from_str(policy.expect("a policy")).expect("JSON");
    policy["Statement"].as_array().expect("statements").clone()
}

/// Whether one statement allows an action on a resource, when the call comes with this key of a condition.
fn allows(statement: &Value, action: &str, resource: &str, key: &str) -> bool {
    let words = |value: &Value| -> Vec<String> {
        let several = value.as_array().into_iter().flatten();
        let words = several
            .chain(std::iter::once(value))
            .filter_map(Value::as_str);
        words.map(str::to_owned).collect()
    };
    let ends = |pattern: &String| match pattern.rsplit_once(':') {
        Some((_, end)) => resource.starts_with(end.trim_end_matches('*')),
        None => pattern == "*",
    };
    let wanted = &statement["Condition"]["StringEquals"];
    let wanted = wanted.as_object().into_iter().flatten();
    words(&statement["Action"]).iter().any(|one| one == action)
        && words(&statement["Resource"]).iter().any(ends)
        && wanted
            .into_iter()
            .all(|(name, value)| format!("{name}={}", value.as_str().unwrap()) == key)
}

#[test]
fn the_policy_lets_nobody_touch_instances_of_others() {
    let ours = "aws:ResourceTag/firstboot:launch-check=prod";
    let made = "aws:RequestTag/firstboot:launch-check=prod";
    let cases = [
        ("RunInstances", "instance/i-1", "", false),
        ("RunInstances", "instance/i-1", made, true),
        ("RunInstances", "volume/vol-1", "", false),
        ("RunInstances", "volume/vol-1", made, true),
        ("RunInstances", "subnet/subnet-1", "", true),
        ("RunInstances", "security-group/sg-1", "", true),
        ("RunInstances", "network-interface/eni-1", "", true),
        ("RunInstances", "image/ami-1", "", true),
        // Who could tag any instance could terminate it then.
        ("CreateTags", "instance/i-1", "", false),
        (
            "CreateTags",
            "instance/i-1",
            "ec2:CreateAction=RunInstances",
            true,
        ),
        (
            "CreateTags",
            "volume/vol-1",
            "ec2:CreateAction=RunInstances",
            true,
        ),
        ("CreateTags", "image/ami-1", "", true),
        ("CreateTags", "snapshot/snap-1", "", true),
        ("TerminateInstances", "instance/i-1", "", false),
        ("TerminateInstances", "instance/i-1", ours, true),
        ("GetConsoleOutput", "instance/i-1", ours, true),
    ];
    let statements = statements();
    for (action, resource, key, expected) in cases {
        let action = format!("ec2:{action}");
        let found = statements
            .iter()
            .any(|one| allows(one, &action, resource, key));
        assert_eq!(found, expected, "{action} {resource} {key}");
    }
}
