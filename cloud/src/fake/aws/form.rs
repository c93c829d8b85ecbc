//! The parameters of a call, of which none may be left unread: EC2 refuses what it does not know.

use std::collections::{BTreeMap, BTreeSet};

use super::{Refused, refused};

/// Parameters that were not read yet.
#[derive(Debug)]
pub(super) struct Form {
    left: BTreeMap<String, String>,
}

impl Form {
    pub(super) fn new(pairs: Vec<(String, String)>) -> Self {
        let mut left: BTreeMap<_, _> = pairs.into_iter().collect();
        left.remove("Action");
        left.remove("Version");
        Self { left }
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.left.remove(name)
    }

    /// As if it had been asked with this, unless it was.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        let set = self.left.entry(name.to_owned());
        set.or_insert_with(|| value.to_owned());
    }

    pub(super) fn need(&mut self, name: &str) -> Result<String, Refused> {
        let value = self.take(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| {
            refused(
                "MissingParameter",
                format!("The request must contain the parameter {name}"),
            )
        })
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Refused> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(refused("InvalidParameterValue", format!("{name}: {other}"))),
        }
    }

    /// Values such as `Owner.1`, `Owner.2`; numbers begin at 1 and leave none out.
    pub(super) fn list(&mut self, name: &str) -> Vec<String> {
        (1..)
            .map_while(|number| self.take(&format!("{name}.{number}")))
            .collect()
    }

    /// How many groups such as `Filter.1.Name` there are.
    pub(super) fn groups(&self, name: &str) -> usize {
        let prefix = format!("{name}.");
        let numbers = self
            .left
            .keys()
            .filter_map(|key| key.strip_prefix(&prefix)?.split('.').next()?.parse().ok());
        numbers.max().unwrap_or(0)
    }

    pub(super) fn filters(&mut self) -> Result<Vec<(String, BTreeSet<String>)>, Refused> {
        (1..=self.groups("Filter"))
            .map(|number| {
                let name = self.need(&format!("Filter.{number}.Name"))?;
                let values = self.list(&format!("Filter.{number}.Value"));
                if values.is_empty() {
                    return Err(refused(
                        "InvalidParameterValue",
                        format!("filter {name} has no value"),
                    ));
                }
                Ok((name, values.into_iter().collect()))
            })
            .collect()
    }

    /// Tags for one kind of object that is made.
    pub(super) fn tags(
        &mut self,
        kinds: &[&str],
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, Refused> {
        let mut found = BTreeMap::new();
        for number in 1..=self.groups("TagSpecification") {
            let prefix = format!("TagSpecification.{number}");
            let kind = self.need(&format!("{prefix}.ResourceType"))?;
            if !kinds.contains(&kind.as_str()) {
                return Err(refused(
                    "InvalidParameterValue",
                    format!("'{kind}' is not a valid taggable resource type for this operation"),
                ));
            }
            let tags = self.pairs(&prefix)?;
            found.insert(kind, tags);
        }
        Ok(found)
    }

    pub(super) fn pairs(&mut self, prefix: &str) -> Result<BTreeMap<String, String>, Refused> {
        let prefix = if prefix.is_empty() {
            "Tag".to_owned()
        } else {
            format!("{prefix}.Tag")
        };
        let mut tags = BTreeMap::new();
        for number in 1..=self.groups(&prefix) {
            let key = self.need(&format!("{prefix}.{number}.Key"))?;
            let value = self
                .take(&format!("{prefix}.{number}.Value"))
                .unwrap_or_default();
            check_tag(&key, &value)?;
            if tags.insert(key.clone(), value).is_some() {
                return Err(refused(
                    "InvalidParameterValue",
                    format!("Duplicate tag key '{key}' specified."),
                ));
            }
        }
        if tags.len() > 50 {
            return Err(refused("TagLimitExceeded", "more than 50 tags"));
        }
        Ok(tags)
    }

    /// Refuses what was not read.
    pub(super) fn done(self) -> Result<(), Refused> {
        match self.left.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(refused(
                "UnknownParameter",
                format!("The parameter {name} is not recognized"),
            )),
        }
    }
}

pub(super) fn check_tag(key: &str, value: &str) -> Result<(), Refused> {
    if key.is_empty()
        || key.chars().count() > 128
        || key.starts_with("aws:")
        || value.chars().count() > 256
    {
        return Err(refused(
            "InvalidParameterValue",
            format!("Tag key or value is not valid: {key}"),
        ));
    }
    Ok(())
}

/// Escapes text for XML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
