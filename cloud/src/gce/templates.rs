//! Instance templates: what names an image for machines that are made later, by a group that heals or grows.
//!
//! It refuses to take what may not be asked for an answer.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::compute::{Compute, PAGES};
use crate::error::Error;
use crate::escape::escape;

/// The permission that this needs, beside those of publishing: without it nothing is pruned.
pub const PERMISSION: &str = "compute.instanceTemplates.list";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    items: BTreeMap<String, Scope>,
    next_page_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scope {
    #[serde(default)]
    instance_templates: Vec<Template>,
}

#[derive(Deserialize)]
struct Template {
    name: String,
    #[serde(default)]
    properties: Properties,
}

#[derive(Default, Deserialize)]
struct Properties {
    #[serde(default)]
    disks: Vec<Disk>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Disk {
    #[serde(default)]
    initialize_params: Params,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Params {
    #[serde(default)]
    source_image: String,
}

/// Which images the templates of a project name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Templates {
    /// Pairs of an image, as it was named, and the template.
    named: Vec<(String, String)>,
    /// Whether all of them were seen.
    whole: bool,
}

impl Templates {
    /// Who of them keeps an image of a project.
    pub(super) fn keepers(&self, project: &str, image: &str) -> Vec<String> {
        if !self.whole {
            return vec![format!(
                "instance templates cannot be asked: `{PERMISSION}` is missing"
            )];
        }
        let path = format!("projects/{project}/global/images/{image}");
        let short = format!("global/images/{image}");
        let names = |source: &str| {
            source == short || source == path || source.ends_with(&format!("/{path}"))
        };
        let templates = self.named.iter().filter(|(source, _)| names(source));
        templates
            .map(|(_, template)| format!("instance template `{template}`"))
            .collect()
    }
}

impl Compute {
    /// Looks which images the templates name.
    pub(super) async fn templates(&self) -> Result<Templates, Error> {
        let mut templates = Templates::default();
        let mut token = String::new();
        for _ in 0..PAGES {
            let rest = format!("/aggregated/instanceTemplates?maxResults=500{token}");
            let page = self.read("list instance templates".to_owned(), &rest).await;
            let page: Page = match page {
                Ok(Some(page)) => page,
                Ok(None) | Err(Error::Denied { .. }) => return Ok(templates),
                Err(error) => return Err(error),
            };
            for one in page
                .items
                .into_values()
                .flat_map(|scope| scope.instance_templates)
            {
                let sources = one.properties.disks.into_iter();
                let sources = sources.map(|disk| disk.initialize_params.source_image);
                let named = sources.map(|source| (source, one.name.clone()));
                templates.named.extend(named);
            }
            let Some(next) = page.next_page_token.filter(|next| !next.is_empty()) else {
                templates.whole = true;
                return Ok(templates);
            };
            token = format!("&pageToken={}", escape(&next));
        }
        Ok(templates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_kept_by_templates_that_name_it_however_they_do() {
        let named = [
            "https://www.googleapis.com/compute/v1/projects/acme/global/images/host-1",
            "projects/acme/global/images/host-2",
            "global/images/host-3",
            "projects/other/global/images/host-4",
            "projects/acme/global/images/family/host-5",
        ];
        let templates = Templates {
            named: named
                .map(|source| (source.to_owned(), "web".to_owned()))
                .into(),
            whole: true,
        };
        let cases = [
            ("host-1", 1),
            ("host-2", 1),
            ("host-3", 1),
            ("host-4", 0),
            ("host-5", 0),
            ("host", 0),
        ];
        for (image, expected) in cases {
            assert_eq!(templates.keepers("acme", image).len(), expected, "{image}");
        }
        let unseen = Templates::default();
        assert_eq!(unseen.keepers("acme", "host-1").len(), 1, "nobody knows");
    }
}
