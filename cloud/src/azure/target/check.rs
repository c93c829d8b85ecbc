//! What is wrong with a target, all of it at once.

use std::collections::BTreeSet;

use super::{Gallery, Generation, Target};
use crate::http::private;

impl Target {
    /// What is wrong with it.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.check_names(&mut problems);
        match (&self.image_name, &self.gallery) {
            (Some(_), None) => {}
            (None, Some(gallery)) => self.check_gallery(gallery, &mut problems),
            _ => problems.push(
                "either `image-name` (a managed image) or `gallery` (a version in one) is wanted"
                    .to_owned(),
            ),
        }
        for (name, value) in &self.tags {
            let bad = |c: char| "<>%&\\?/".contains(c) || c.is_control();
            if name.is_empty() || name.len() > 512 || name.contains(bad) || value.len() > 256 {
                problems.push(format!(
                    "tag `{name}`: 1 to 512 characters without `<>%&\\?/`, its value at most 256"
                ));
            }
            if name.to_ascii_lowercase().starts_with("firstboot:") {
                problems.push(format!("tag `{name}`: names of `firstboot:` are taken"));
            }
        }
        if self.tags.len() > 40 {
            problems.push("more than 40 tags: the cloud takes 50 with ours".to_owned());
        }
        if self.timeout_minutes == 0 {
            problems.push("`timeout-minutes` is 0".to_owned());
        }
        let endpoints = [
            ("storage", &self.endpoints.storage),
            ("arm", &self.endpoints.arm),
            ("login", &self.endpoints.login),
        ];
        for (name, url) in endpoints {
            if let Some(Err(problem)) = url.as_deref().map(private::check) {
                problems.push(format!("endpoint `{name}`: {problem}"));
            }
        }
        problems
    }

    fn check_names(&self, problems: &mut Vec<String>) {
        if !is_guid(&self.subscription) {
            problems.push("`subscription` is no id such as `01234567-89ab-…`".to_owned());
        }
        let groups = [
            Some(&self.resource_group),
            self.storage_resource_group.as_ref(),
        ];
        for group in groups.into_iter().flatten() {
            let letters = |c: char| c.is_alphanumeric() || "-_.()".contains(c);
            if !(1..=90).contains(&group.len()) || !group.chars().all(letters) {
                problems.push(format!("resource group `{group}` is no name of one"));
            }
        }
        if !is_location(&self.location) {
            problems.push("`location` is a name such as `westeurope`".to_owned());
        }
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let account = &self.storage_account;
        if !(3..=24).contains(&account.len()) || !account.chars().all(lower) {
            problems.push("`storage-account` is 3 to 24 of `a-z` and `0-9`".to_owned());
        }
        let container = &self.container;
        let dashed = |c: char| lower(c) || c == '-';
        if !(3..=63).contains(&container.len())
            || !container.chars().all(dashed)
            || container.starts_with('-')
            || container.ends_with('-')
            || container.contains("--")
        {
            problems.push("`container` is 3 to 63 of `a-z`, `0-9` and single `-`".to_owned());
        }
    }

    fn check_gallery(&self, gallery: &Gallery, problems: &mut Vec<String>) {
        let letters = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
        if !(1..=80).contains(&gallery.name.len()) || !gallery.name.chars().all(letters) {
            problems.push("a gallery's name is 1 to 80 letters, digits, `_` and `.`".to_owned());
        }
        for (key, text) in [
            ("publisher", &gallery.publisher),
            ("offer", &gallery.offer),
            ("sku", &gallery.sku),
        ] {
            if text.is_empty() || text.len() > 128 {
                problems.push(format!("`{key}` is 1 to 128 characters"));
            }
        }
        let mut seen = BTreeSet::new();
        for region in &gallery.regions {
            if !is_location(&region.name) || !seen.insert(&region.name) {
                problems.push(format!("region `{}` is no region, or twice", region.name));
            }
            if !(1..=100).contains(&region.replicas) {
                problems.push(format!("region `{}`: 1 to 100 replicas", region.name));
            }
        }
        if !seen.contains(&self.location) {
            problems.push(format!(
                "`regions` lack `{}`, where the image is made",
                self.location
            ));
        }
        if gallery.disk_controllers.is_empty() {
            problems.push("`disk-controllers` is empty".to_owned());
        }
        if gallery.end_of_life_after.is_some_and(|days| days == 0) {
            problems.push("`end-of-life-after` is 0 days".to_owned());
        }
        if gallery.protect && gallery.end_of_life_after.is_none() {
            problems.push(
                "`protect` needs `end-of-life-after`: without an end it has no effect".to_owned(),
            );
        }
        if gallery.security_type.is_some() && self.hyper_v_generation == Generation::V1 {
            problems.push("`security-type` needs `hyper-v-generation = \"V2\"`".to_owned());
        }
        let share = &gallery.share;
        let ids = share.subscriptions.iter().chain(&share.tenants);
        for id in ids.filter(|id| !is_guid(id)) {
            problems.push(format!(
                "`share`: `{id}` is no id such as `01234567-89ab-…`"
            ));
        }
        if share.community && !(share.subscriptions.is_empty() && share.tenants.is_empty()) {
            problems.push("`share`: a gallery is the community's or of some, not both".to_owned());
        }
    }
}

fn is_guid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &&str| part.chars().all(|c| c.is_ascii_hexdigit());
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(hex)
}

fn is_location(text: &str) -> bool {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !text.is_empty() && text.len() <= 40 && text.chars().all(letters)
}
