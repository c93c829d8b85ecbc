//! What stands in the way, found before the first byte is sent.
//!
//! It refuses to change anything, and to fail where one may not ask: that is a finding too.

use serde_json::Value;

use super::Publisher;
use super::names::{AUTHORIZATION, GALLERY, Kind, RESOURCES, STORAGE};
use super::observed::{Object, region};
use super::permissions::{self, ACCOUNT, DATA, Grant};
use crate::error::Error;
use crate::provider::{Finding, Severity};

/// Findings while they are gathered.
struct Findings {
    target: String,
    place: String,
    found: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, severity: Severity, message: String) {
        self.found.push(Finding {
            target: self.target.clone(),
            place: self.place.clone(),
            severity,
            message,
        });
    }

    fn error(&mut self, message: String) {
        self.add(Severity::Error, message);
    }

    /// Takes an answer; that one may not ask is a warning, everything else an error of the call.
    fn asked<T>(&mut self, answer: Result<T, Error>) -> Result<Option<T>, Error> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error @ Error::Denied { .. }) => {
                self.add(Severity::Warning, error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Publisher {
    /// Asks for everything that a publish needs.
    pub(super) async fn findings(&mut self) -> Result<Vec<Finding>, Error> {
        let mut findings = Findings {
            target: self.desired.target.name.clone(),
            place: self.desired.target.location.clone(),
            found: Vec::new(),
        };
        if self.check_group(&mut findings).await? {
            self.check_permissions(&mut findings).await?;
            self.check_provider(&mut findings).await?;
            self.check_account(&mut findings).await?;
            self.check_gallery(&mut findings).await?;
        }
        Ok(findings.found)
    }

    /// Whether the resource group is there: without it nothing else is.
    async fn check_group(&self, findings: &mut Findings) -> Result<bool, Error> {
        let query = format!("api-version={RESOURCES}");
        let path = self.desired.group();
        let read = self.arm.read("the resource group", &path, &query).await;
        match findings.asked(read)? {
            Some(None) => {
                let name = &self.desired.target.resource_group;
                findings.error(format!("the resource group `{name}` does not exist"));
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    async fn check_permissions(&self, findings: &mut Findings) -> Result<(), Error> {
        let mut account = ACCOUNT.to_vec();
        if !self.keyed {
            account.extend(DATA);
        }
        let scopes = [
            (self.desired.group(), permissions::needed(&self.desired)),
            (self.desired.account(), account),
        ];
        for (scope, needed) in scopes {
            let Some(grants) = findings.asked(self.grants(&scope).await)? else {
                continue;
            };
            for action in permissions::missing(&needed, &grants) {
                findings.error(format!("the credentials lack `{action}` at `{scope}`"));
            }
        }
        Ok(())
    }

    /// What the credentials may do at a scope; nothing when the cloud does not know it.
    pub(super) async fn grants(&self, scope: &str) -> Result<Vec<Grant>, Error> {
        let path = format!("{scope}/providers/Microsoft.Authorization/permissions");
        let query = format!("api-version={AUTHORIZATION}");
        let listed = self.arm.list("the permissions", &path, &query).await?;
        let grants = listed.into_iter().map(serde_json::from_value::<Grant>);
        Ok(grants.filter_map(Result::ok).collect())
    }

    async fn check_provider(&self, findings: &mut Findings) -> Result<(), Error> {
        let target = &self.desired.target;
        let path = format!(
            "/subscriptions/{}/providers/Microsoft.Compute",
            target.subscription
        );
        let query = format!("api-version={RESOURCES}");
        let read = self.arm.read("the resource provider", &path, &query).await;
        let Some(Some(provider)) = findings.asked(read)? else {
            return Ok(());
        };
        if provider["registrationState"] != "Registered" {
            findings.error(
                "the resource provider `Microsoft.Compute` is not registered in the subscription"
                    .to_owned(),
            );
        }
        let (kind, places) = match &self.desired.kind {
            Kind::Image { .. } => ("images", vec![&target.location]),
            Kind::Version { gallery, .. } => (
                "galleries/images/versions",
                gallery.regions.iter().map(|region| &region.name).collect(),
            ),
        };
        let Some(known) = locations(&provider, kind) else {
            return Ok(());
        };
        for place in places.into_iter().filter(|place| !known.contains(place)) {
            findings.error(format!("the cloud has no `{kind}` in `{place}`"));
        }
        Ok(())
    }

    async fn check_account(&self, findings: &mut Findings) -> Result<(), Error> {
        let target = &self.desired.target;
        let name = &target.storage_account;
        let query = format!("api-version={STORAGE}");
        let path = self.desired.account();
        let read = self.arm.read("the storage account", &path, &query).await;
        match findings.asked(read)? {
            None => {}
            Some(None) => findings.error(format!("the storage account `{name}` does not exist")),
            Some(Some(account)) => {
                let place = region(account["location"].as_str().unwrap_or_default());
                if place != target.location {
                    findings.error(format!(
                        "the storage account `{name}` is in `{place}`: images are made where their disk is"
                    ));
                }
                let kind = account["kind"].as_str().unwrap_or_default();
                if ["BlockBlobStorage", "BlobStorage", "FileStorage"].contains(&kind) {
                    findings.error(format!(
                        "the storage account `{name}` is of kind `{kind}`, which has no page blobs"
                    ));
                }
                if account["properties"]["isHnsEnabled"] == true {
                    findings.error(format!("the storage account `{name}` has a hierarchical namespace, in which there are no page blobs"));
                }
            }
        }
        // One may ask for a blob that is not there: the container is what answers.
        match self.blob.look().await {
            Err(error @ (Error::Denied { .. } | Error::Refused { .. })) => {
                findings.error(error.to_string());
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        Ok(())
    }

    async fn check_gallery(&self, findings: &mut Findings) -> Result<(), Error> {
        let Kind::Version {
            gallery,
            architecture,
            ..
        } = &self.desired.kind
        else {
            return Ok(());
        };
        let path = self.desired.gallery_path().unwrap_or_default();
        let query = format!("api-version={GALLERY}&$select=Permissions");
        let read = self.arm.read("the gallery", &path, &query).await;
        let Some(read) = findings.asked(read)? else {
            return Ok(());
        };
        let Some(read) = read else {
            findings.error(format!("the gallery `{}` does not exist", gallery.name));
            return Ok(());
        };
        let allowed = read["properties"]["sharingProfile"]["permissions"].as_str();
        let share = &gallery.share;
        let wanted = match share {
            _ if share.community => Some("Community"),
            _ if !share.subscriptions.is_empty() || !share.tenants.is_empty() => Some("Groups"),
            _ => None,
        };
        if let Some(wanted) = wanted.filter(|wanted| Some(*wanted) != allowed) {
            findings.error(format!(
                "the gallery `{}` was not made to be shared so: its sharing permission is `{}`, not `{wanted}`",
                gallery.name,
                allowed.unwrap_or("Private")
            ));
        }
        self.check_definition(architecture, findings).await
    }

    async fn check_definition(
        &self,
        architecture: &str,
        findings: &mut Findings,
    ) -> Result<(), Error> {
        let path = self.desired.definition_path().unwrap_or_default();
        let query = format!("api-version={GALLERY}");
        let read = self.arm.read("the image definition", &path, &query).await;
        let Some(Some(read)) = findings.asked(read)? else {
            return Ok(());
        };
        let properties = &read["properties"];
        let wanted = [
            ("osType", "Linux"),
            ("osState", "Generalized"),
            ("architecture", architecture),
            (
                "hyperVGeneration",
                self.desired.target.hyper_v_generation.label(),
            ),
        ];
        for (key, wanted) in wanted {
            let found = properties[key].as_str();
            // What is not said is what it was before there was a choice.
            let found = found.unwrap_or(if key == "architecture" { "x64" } else { wanted });
            if found != wanted {
                findings.error(format!(
                    "the definition `{path}` has `{key}` {found}, not {wanted}"
                ));
            }
        }
        let listed = findings.asked(self.versions().await)?;
        let others = listed.unwrap_or_default().into_iter();
        let (image, target) = (&self.desired.image, &self.desired.target.name);
        let foreign = |other: &Object| !other.excluded && !other.is_of(image, target);
        for other in others.filter(foreign) {
            findings.add(
                Severity::Warning,
                format!(
                    "version `{}` is not of this image and target, and stays a candidate for the latest",
                    other.name
                ),
            );
        }
        Ok(())
    }
}

fn locations(provider: &Value, kind: &str) -> Option<Vec<String>> {
    let types = provider["resourceTypes"].as_array()?;
    let found = types.iter().find(|entry| {
        let name = entry["resourceType"].as_str();
        name.is_some_and(|name| name.eq_ignore_ascii_case(kind))
    })?;
    let names = found["locations"].as_array()?.iter();
    Some(names.filter_map(|name| name.as_str().map(region)).collect())
}
