//! What a test about containers and registries works with: definitions, stores, and an image of one file over `base`.
//!
//! It refuses to fetch: the lab's build has filled the cache.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use e2e::rig::{printed, run};
use e2e::shop;
use image_manifest::Digest;
use serde_json::Value;
use tempfile::TempDir;

use super::server::Registry;

/// An image of one file over `base`, whose packages it shares: the lock is the parent's.
const WEB: &str = r#"
name = "web"
description = "What the container of a site is made from"
extends = "../base"
outputs = ["oci"]

[[file]]
path = "etc/web.conf"
content = "listen 80\n"
"#;

/// Definitions, a cache and stores of a test's own.
pub(crate) struct Desk {
    folder: TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        // Its build has filled the cache with the packages.
        shop::image("base");
        let desk = Self {
            folder: tempfile::tempdir().expect("a temporary directory"),
        };
        let images = shop::workspace().root.join("images");
        shop::copy_tree(&images, &desk.path("images")).expect("a copy of the definitions");
        let web = desk.path("images/web");
        fs::create_dir(&web).expect("a definition");
        fs::write(web.join("image.toml"), WEB).expect("a definition");
        fs::copy(images.join("base/image.lock"), web.join("image.lock")).expect("a lock");
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn imagebuild(&self) -> Command {
        let mut imagebuild = Command::new(shop::workspace().binary("imagebuild"));
        imagebuild.current_dir(self.folder.path());
        imagebuild
    }

    pub(crate) fn build(&self, more: &[&str]) -> Value {
        let mut build = self.imagebuild();
        build
            .args([
                "build",
                "images/web",
                "--store",
                "store",
                "--offline",
                "--json",
            ])
            .args(more);
        json(&mut build)
    }

    pub(crate) fn push(&self, registry: &Registry, more: &[&str]) -> Value {
        let mut push = self.imagebuild();
        push.args([
            "push",
            "web",
            &registry.at("team/web:v1"),
            "--store",
            "store",
            "--json",
            "--cache",
            "journal",
        ]);
        json(push.args(more))
    }

    /// Changes the one file of the image.
    pub(crate) fn edit(&self, port: &str) {
        let path = self.path("images/web/image.toml");
        let text = fs::read_to_string(&path).expect("the definition");
        fs::write(&path, text.replace("listen 80", &format!("listen {port}")))
            .expect("the definition");
    }

    /// Digests of the layers of the container image, under gzip and under zstd, lowest first.
    pub(crate) fn layers(&self) -> [Vec<String>; 2] {
        let store = self.path("store");
        let manifest = shop::manifest(&store, "web");
        let of = |pick: fn(&image_manifest::Layer) -> Digest| {
            manifest
                .layers
                .iter()
                .map(|layer| pick(layer).to_string())
                .collect()
        };
        [of(|layer| layer.gzip.digest), of(|layer| layer.zstd.digest)]
    }
}

/// Runs a command that must end well, and returns what it printed.
pub(crate) fn ok(command: &mut Command) -> String {
    printed(&run(command))
}

pub(crate) fn json(command: &mut Command) -> Value {
    serde_json::from_str(&ok(command)).expect("one line of JSON")
}
