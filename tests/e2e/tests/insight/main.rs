//! What people and other tools learn about images: judged by validators, by openssl, and by what was asked for.
//!
//! It refuses to change the lab's store: what is signed, damaged or swept is a copy.

mod collect;
mod documents;
mod keys;
mod update;

use std::process::{Command, Output};

use e2e::rig::{printed, run};
use e2e::shop;
use serde_json::Value;
use tempfile::TempDir;

fn imagebuild(words: &[&str]) -> Output {
    run(Command::new(shop::workspace().binary("imagebuild")).args(words))
}

fn json(words: &[&str]) -> Value {
    let text = printed(&imagebuild(&[words, &["--json"]].concat()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks that a command was refused with a code and in these words.
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` in {said}");
    }
}

/// A store of a test's own, with copies of the committed definitions.
struct Bench {
    folder: TempDir,
}

impl Bench {
    /// With one image, built anew from the cache that the lab's build has filled.
    fn with(image: &str) -> Self {
        shop::image(image);
        let bench = Self {
            folder: tempfile::tempdir().expect("a temporary directory"),
        };
        let images = shop::workspace().root.join("images");
        shop::copy_tree(&images, bench.folder.path().join("images").as_path())
            .expect("a copy of the definitions");
        bench.build(image);
        bench
    }

    fn build(&self, image: &str) -> Value {
        let definition = self.path(&format!("images/{image}"));
        json(&[
            "build",
            &definition,
            "--store",
            &self.path("store"),
            "--offline",
        ])
    }

    fn path(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("a plain path").to_owned()
    }
}
