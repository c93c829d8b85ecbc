//! Any text as a site: all its problems are told, each with a place in the text; a good one does
//! not differ from itself, and answers for each of its hosts.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use netboot_core::difference::{Version, difference};
use netboot_core::selector::Selector;
use netboot_core::site::{Site, SourceFile};

fuzz_target!(|text: &str| {
    let file = SourceFile {
        path: "site.toml".into(),
        text: text.into(),
    };
    let site = match Site::check(&[file]) {
        Ok(site) => site,
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal has a reason");
            return;
        }
    };
    let files = BTreeMap::new();
    let version = Version {
        site: &site,
        files: &files,
    };
    assert!(difference(version, version).is_empty());
    assert_eq!(site.select(&Selector::all()).len(), site.hosts().len());
    for host in site.hosts() {
        assert!(site.image_of(host).is_some(), "a host has an image");
        let words = Selector::host(&host.name).to_string();
        let selected = site.select(&words.parse().expect("it reads what it writes"));
        assert_eq!(selected, [host]);
        let _ = (site.parameters_of(host), site.deploy_policy(host));
    }
});
