//! The example for Terraform: its language is read by a parser of others, and what it takes from a record is in a true one.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use cloud::fake::oci::Registry;
use e2e::need;
use e2e::rig::{printed, run};
use e2e::shop;
use lab::python::Environment;
use serde_json::Value;

use super::desk::{Desk, json, listen};

#[test]
fn the_example_reads_what_records_have() {
    let python = Environment::of(&shop::state());
    let Some(program) = python.program("hcl2tojson") else {
        assert!(!need::is_ci(), "no python-hcl2");
        eprintln!("SKIPPED for want of python-hcl2: `cargo lab test --install`");
        return;
    };
    let example = shop::workspace()
        .root
        .join("cloud/examples/terraform/main.tf");
    let read = printed(&run(Command::new(program).arg(&example)));
    let read: Value = serde_json::from_str(&read).expect("JSON");
    for (kind, name) in [
        ("data", "aws_ssm_parameter"),
        ("data", "aws_ami"),
        ("resource", "aws_instance"),
    ] {
        let blocks = read[kind].as_array().expect("blocks").iter();
        let mut blocks = blocks.filter(|block| block.to_string().contains(name));
        assert!(blocks.next().is_some(), "{kind} {name} in {read}");
    }

    let desk = Desk::of("base");
    let server = listen(Arc::new(Registry::open()));
    let host = server.url().replace("http://", "");
    desk.targets(&format!(
        "[[oci]]\nname = \"registry\"\nrepository = \"{host}/base\"\n"
    ));
    desk.publish(&[]);
    let mut find = Command::new(shop::workspace().binary("imagebuild"));
    find.current_dir(desk.path(""))
        .args(["where", "base", "--store", "store", "--json"]);
    let found = json(&mut find);
    let receipt = &found[0]["record"]["receipts"][0];
    let text = fs::read_to_string(&example).expect("the example");
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_');
    let used: Vec<_> = words
        .filter_map(|word| word.strip_prefix("receipt."))
        .collect();
    assert!(used.len() >= 3, "{used:?}");
    for key in used {
        assert!(receipt[key].is_string(), "`{key}` in {receipt}");
    }
}
