//! What stands in the way, asked before the first byte is sent.

use super::client::{Client, Query};
use super::observe::observe;
use super::plan::{Region, Step, launch};
use super::publisher::Publisher;
use super::quota::needs;
use super::together::together;
use super::verify::difference;
use crate::error::Error;
use crate::provider::{Finding, Pending, Severity};

impl Publisher {
    /// Asks all that can be asked without changing anything.
    pub(super) async fn preflight(&mut self) -> Result<Vec<Finding>, Error> {
        let Some(home) = self.clients.first() else {
            return Ok(Vec::new());
        };
        let mut findings = Vec::new();
        if let Err(error) = home
            .sts(Query::new("ask who is asking", "GetCallerIdentity"))
            .await
        {
            findings.push(self.finding(home, crate::http::chain(&error)));
            return Ok(findings);
        }
        let known = home.regions().await;
        let mut enabled = Vec::new();
        for client in &self.clients {
            match known.as_ref().map(|known| known.get(&client.region)) {
                Ok(Some(true)) => enabled.push(client),
                Ok(Some(false)) => findings.push(self.finding(
                    client,
                    "the region is not enabled for the account".to_owned(),
                )),
                Ok(None) => {
                    findings.push(self.finding(client, "there is no such region".to_owned()));
                }
                Err(error) => {
                    findings.push(self.warning(client, crate::http::chain(error)));
                    enabled.push(client);
                }
            }
        }
        let asked = enabled
            .into_iter()
            .map(|client| -> Pending<'_, Vec<Finding>> {
                let this = &*self;
                Box::pin(async move { this.ask(client).await })
            });
        findings.extend(together(asked.collect()).await.into_iter().flatten());
        Ok(findings)
    }

    async fn ask(&self, client: &Client) -> Vec<Finding> {
        let mut findings = Vec::new();
        let region = match observe(client, &self.desired).await {
            Ok(region) => region,
            Err(error) => return vec![self.finding(client, crate::http::chain(&error))],
        };
        let image = region.image();
        if let Some(image) = image.filter(|image| image.is_disabled()) {
            let id = &image.id;
            let message =
                format!("{id} is this image, and somebody disabled it: enable or remove it");
            findings.push(self.finding(client, message));
        } else if let Some(image) = image
            && let Some((what, found, expected)) = difference(&self.desired, &client.region, image)
        {
            let image = &image.id;
            findings.push(self.finding(client, format!(
                "{what} of {image}, which is this image, is {found}, and the target says {expected}: remove the image, or change the target back"
            )));
        }
        if let Some(id) = &region.foreign {
            let name = &self.desired.name;
            findings.push(self.finding(
                client,
                format!("the name `{name}` is taken by {id}, which is not of this image"),
            ));
        }
        for (id, why) in &region.left {
            let message = format!("{id} has the tags of this image and is left alone: {why}");
            findings.push(self.warning(client, message));
        }
        findings.extend(self.ask_types(client).await);
        if region.image().is_none() {
            findings.extend(self.ask_encryption(client).await);
            let home = client.region == self.desired.home();
            let may = if home {
                self.may_register(client).await
            } else {
                self.may_copy(client).await
            };
            // Other refusals come of asking about what is not there yet.
            if let Err(
                error
                @ (Error::Denied { .. } | Error::Credentials { .. } | Error::Transport { .. }),
            ) = may
            {
                findings.push(self.finding(client, crate::http::chain(&error)));
            }
        }
        findings.extend(self.ask_launch(client, &region).await);
        findings.extend(self.ask_quotas(client, &region).await);
        if self.desired.grants.everybody && !region.grants.everybody {
            match client.blocks_public().await {
                Ok(true) => findings.push(self.finding(client, "the account blocks public images in this region (block public access for AMIs)".to_owned())),
                Ok(false) => {}
                Err(error) => findings.push(self.warning(client, crate::http::chain(&error))),
            }
        }
        findings
    }

    /// Whether an instance may be launched, when one is to be.
    async fn ask_launch(&self, client: &Client, region: &Region) -> Option<Finding> {
        if client.region != self.desired.home() {
            return None;
        }
        let Step::Launch { kind, .. } = launch(&self.desired, region)? else {
            return None;
        };
        let image = region.image().map(|image| image.id.as_str());
        match self.may_launch(client, image, &kind).await {
            // The image that is asked about is not there.
            Err(Error::Refused { code, .. }) if code.starts_with("InvalidAMIID") => None,
            Err(error) => Some(self.finding(client, crate::http::chain(&error))),
            Ok(()) => None,
        }
    }

    /// Whether what is to be made fits into what the account may have.
    async fn ask_quotas(&self, client: &Client, region: &Region) -> Vec<Finding> {
        // Without a change there is nothing to fit.
        if needs(&self.desired, region, &[]).is_empty() {
            return Vec::new();
        }
        let images = match client.images(&[]).await {
            Ok(images) => images,
            Err(error) => return vec![self.warning(client, crate::http::chain(&error))],
        };
        let mut findings = Vec::new();
        for need in needs(&self.desired, region, &images) {
            match client.quota(need.quota).await {
                Ok(limit) => findings.extend(
                    need.beyond(limit)
                        .map(|message| self.finding(client, message)),
                ),
                Err(error) => {
                    // The others are of the same interface: where that is not reached, each would take minutes.
                    findings.push(self.warning(client, crate::http::chain(&error)));
                    return findings;
                }
            }
        }
        findings
    }

    /// A parameter that is no image's: whether setting it again changes that is not known.
    async fn ask_types(&self, client: &Client) -> Vec<Finding> {
        let mistyped = match client.mistyped(&self.desired.parameters).await {
            Ok(mistyped) => mistyped,
            Err(error) => return vec![self.finding(client, crate::http::chain(&error))],
        };
        let told = mistyped.into_iter().map(|(name, data_type)| {
            let message = format!(
                "parameter `{name}` is of type `{data_type}` and must be of `aws:ec2:image`: remove it, or name another"
            );
            self.finding(client, message)
        });
        told.collect()
    }

    /// An account that encrypts every disk makes another image than is asked for.
    async fn ask_encryption(&self, client: &Client) -> Option<Finding> {
        if self.desired.keys.contains_key(&client.region) {
            return None;
        }
        match client.encrypts().await {
            Ok(false) => None,
            Ok(true) => Some(self.finding(
                client,
                "the account encrypts every new disk in this region (EBS encryption by default): name a key in `kms-keys`, or end that".to_owned(),
            )),
            Err(error) => Some(self.warning(client, crate::http::chain(&error))),
        }
    }

    fn warning(&self, client: &Client, message: String) -> Finding {
        Finding {
            severity: Severity::Warning,
            ..self.finding(client, message)
        }
    }

    fn finding(&self, client: &Client, message: String) -> Finding {
        Finding {
            target: self.desired.target.clone(),
            place: client.region.clone(),
            severity: Severity::Error,
            message,
        }
    }
}
