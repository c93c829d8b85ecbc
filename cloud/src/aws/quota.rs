//! How many images an account may have, and what a publish would need: asked before the first byte.
//!
//! It refuses to count on the defaults: what an account may have is asked of its region.

use serde::Deserialize;
use serde_json::json;

use super::client::Client;
use super::desired::Desired;
use super::ec2::Image;
use super::plan::Region;
use crate::error::Error;

/// A limit of EC2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quota {
    /// Images of a region.
    Images,
    /// Those that everybody may use.
    Public,
    /// Accounts, organisations and units that one image is shared with.
    Sharing,
}

impl Quota {
    /// What it is called, and its code.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Images => ("AMIs", "L-B665C33B"),
            Self::Public => ("Public AMIs", "L-0E3CBAB9"),
            Self::Sharing => ("AMI sharing", "L-70015FFA"),
        }
    }
}

/// A limit that has to be so high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub quota: Quota,
    pub count: usize,
}

impl Need {
    /// What to say when the limit is lower.
    pub(super) fn beyond(&self, limit: f64) -> Option<String> {
        let (name, code) = self.quota.names();
        #[expect(clippy::cast_precision_loss, reason = "some thousands")]
        let fits = self.count as f64 <= limit;
        (!fits).then(|| {
            format!(
                "the quota `{name}` ({code}) of the account in this region is {limit}, and {} are needed: prune, or have it raised",
                self.count
            )
        })
    }
}

/// What the steps that are left need, in a region with these images of the account.
pub(super) fn needs(desired: &Desired, region: &Region, images: &[Image]) -> Vec<Need> {
    let more = desired.grants.without(&region.grants);
    let mut needs = Vec::new();
    let mut add = |quota, count| needs.push(Need { quota, count });
    if region.image().is_none() {
        add(Quota::Images, images.len() + 1);
    }
    if more.everybody {
        let public = images.iter().filter(|image| image.public);
        add(Quota::Public, public.count() + 1);
    }
    let shared = [&more.accounts, &more.organisations, &more.units];
    if shared.iter().any(|list| !list.is_empty()) {
        let all = &desired.grants;
        let count = all.accounts.len() + all.organisations.len() + all.units.len();
        add(Quota::Sharing, count);
    }
    needs
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    quota: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Value {
    value: f64,
}

impl Client {
    /// How high a limit of the account is.
    pub(super) async fn quota(&self, quota: Quota) -> Result<f64, Error> {
        let (name, code) = quota.names();
        let what = format!("ask for the quota `{name}`");
        let body = json!({ "ServiceCode": "ec2", "QuotaCode": code });
        let answer = match self.quotas(&what, "GetServiceQuota", &body).await {
            // Nobody ever changed it.
            Err(Error::Refused { code, .. }) if code == "NoSuchResourceException" => {
                self.quotas(&what, "GetAWSDefaultServiceQuota", &body).await
            }
            answer => answer,
        };
        let answer: Answer = answer?.json(&what)?;
        Ok(answer.quota.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_fit_is_told() {
        let need = Need {
            quota: Quota::Public,
            count: 6,
        };
        assert_eq!(need.beyond(6.0), None);
        let told = need.beyond(5.0).unwrap();
        assert!(
            told.contains("`Public AMIs` (L-0E3CBAB9)") && told.contains("is 5, and 6 are needed"),
            "{told}"
        );
    }
}
