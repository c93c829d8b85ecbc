//! The boot override: where it is written, which properties are sent, and how `If-Match` is settled.
//!
//! It refuses to send what stays the same or what the service does not have; a vendor's row may ask for more.

use hyper::Method;
use hyper::header::{HeaderValue, IF_MATCH};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::chain::{Chain, refusal};
use super::link::{Answer, Lost};
use super::resource::{self, Resource};
use crate::bmc::{BootDevice, BootFirmware, BootOverride, Error, Persistence};
use crate::vendor::Rule;

/// How many forms of an offered `ETag` are tried.
const FRESH: usize = 3;

const TARGET: &str = "BootSourceOverrideTarget";
const ENABLED: &str = "BootSourceOverrideEnabled";
const MODE: &str = "BootSourceOverrideMode";
const URI: &str = "HttpBootUri";

/// What `If-Match` says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Absent,
    Matches(String),
}

impl Chain {
    /// Reads the override: that of the system, or one that waits in its settings.
    pub(super) async fn read_boot(&mut self) -> Result<Option<BootOverride>, Error> {
        let path = self.system.clone();
        let system = self.get(&path).await?.0;
        let mut boot = system.boot(self.set.as_ref());
        let is_none = |boot: &Option<BootOverride>| {
            boot.as_ref()
                .is_none_or(|boot| boot.device == BootDevice::None)
        };
        if is_none(&boot)
            && let Some(settings) = self.settings(&system).await?
        {
            boot = settings.1.boot(self.set.as_ref()).or(boot);
        }
        if let (Some(boot), Some(set)) = (boot.as_mut(), &self.set)
            && self.profile.has(Rule::OnceReadsContinuous)
            && boot.device == set.device
        {
            boot.persistence = set.persistence;
        }
        if let (Some(boot), Some(set)) = (boot.as_mut(), &self.set)
            && self.profile.http_uri().is_some()
            && let BootDevice::Http { uri } = &mut boot.device
            && matches!(set.device, BootDevice::Http { .. })
        {
            *uri = self.setup_uri(&system).await?;
        }
        Ok(boot)
    }

    /// Writes the override, unless it is so already.
    pub(super) async fn write_boot(&mut self, wanted: &BootOverride) -> Result<(), Error> {
        self.set = Some(wanted.clone());
        let path = self.system.clone();
        let system = self.get(&path).await?.0;
        self.check(&system, wanted)?;
        if let BootDevice::Http { uri: Some(uri) } = &wanted.device
            && let Some(attribute) = self.profile.http_uri()
        {
            self.write_setup(&system, attribute, uri).await?;
        }
        let place = match self.settings(&system).await? {
            Some((path, settings)) if settings.at("/Boot").is_some() => (path, settings),
            Some((path, _)) if self.profile.has(Rule::ToSettings) => (path, system.clone()),
            _ => (path, system.clone()),
        };
        let change = self.change(&place.1, wanted);
        if change.is_empty() {
            return Ok(());
        }
        let body = json!({ "Boot": change });
        let answer = self.patch(&place.0, &body).await?;
        if (200..300).contains(&answer.status) {
            return self.settle(&answer).await;
        }
        // Some services refuse in part what they did in full (bmc.md §2, 13): what counts is what can be read.
        match self.read_boot().await? {
            Some(found) if found == *wanted => Ok(()),
            _ => Err(refusal(&answer, &format!("boot from {wanted}"))),
        }
    }

    /// Checks that the service offers what is wanted, where it says what it offers.
    fn check(&self, system: &Resource, wanted: &BootOverride) -> Result<(), Error> {
        let target = resource::boot_target(&wanted.device);
        let offers = |property: &str, value: &str| {
            let pointer = format!("/Boot/{property}@Redfish.AllowableValues");
            let values = system.texts(&pointer);
            values.is_none_or(|values| values.contains(&value))
        };
        if system.at("/Boot").is_none() {
            return Err(Error::Unsupported {
                detail: "a boot override".to_owned(),
            });
        }
        if wanted.device != BootDevice::None && !offers(TARGET, target) {
            return Err(Error::Unsupported {
                detail: format!("boot from {target}"),
            });
        }
        if system.at(&format!("/Boot/{MODE}")).is_some() && !offers(MODE, mode(wanted)) {
            return Err(Error::Unsupported {
                detail: format!("boot with {}", mode(wanted)),
            });
        }
        if matches!(wanted.device, BootDevice::Http { uri: Some(_) })
            && self.profile.http_uri().is_none()
            && !has_uri(system)
        {
            return Err(Error::Unsupported {
                detail: "a URI for HTTP Boot".to_owned(),
            });
        }
        Ok(())
    }

    /// What has to be sent so that `now` becomes `wanted`.
    fn change(&self, now: &Resource, wanted: &BootOverride) -> Map<String, Value> {
        let mut change = Map::new();
        let is_set =
            |property: &str, value: &str| now.text(&format!("/Boot/{property}")) == Some(value);
        let target = resource::boot_target(&wanted.device);
        let enabled = match (&wanted.device, wanted.persistence) {
            (BootDevice::None, _) => "Disabled",
            (_, Persistence::Once) => "Once",
            (_, Persistence::Persistent) => "Continuous",
        };
        let mut put = |property: &str, value: &str| {
            change.insert(property.to_owned(), Value::from(value));
        };
        if !is_set(TARGET, target) {
            put(TARGET, target);
        }
        if !is_set(ENABLED, enabled) {
            put(ENABLED, enabled);
        }
        // A mode that the service does not have is refused by some; it has one if it shows one.
        let has_mode = now.at(&format!("/Boot/{MODE}")).is_some();
        if has_mode && !is_set(MODE, mode(wanted)) && wanted.device != BootDevice::None {
            put(MODE, mode(wanted));
        }
        if let BootDevice::Http { uri: Some(uri) } = &wanted.device
            && self.profile.http_uri().is_none()
            && !is_set(URI, uri)
        {
            put(URI, uri);
        }
        if change.is_empty() {
            return change;
        }
        let mut put = |property: &str, value: &str| {
            change.insert(property.to_owned(), Value::from(value));
        };
        if self.profile.has(Rule::SendEnabled) {
            put(TARGET, target);
            put(ENABLED, enabled);
        }
        if self.profile.has(Rule::SendMode) && has_mode {
            put(MODE, mode(wanted));
        }
        change
    }

    /// Reads the resource where a change waits for the next boot, if there is one.
    async fn settings(&mut self, of: &Resource) -> Result<Option<(String, Resource)>, Error> {
        let Some(path) = of.link("/@Redfish.Settings/SettingsObject") else {
            return Ok(None);
        };
        let settings = self.get(&path).await?.0;
        Ok(Some((path, settings)))
    }

    /// Changes a resource, settling with the service which `If-Match` it wants. Setting twice does no harm.
    pub(super) async fn patch(&mut self, path: &str, body: &Value) -> Result<Answer, Error> {
        let mut lost = None;
        let mut tried = Vec::new();
        loop {
            let offered = self.get(path).await?.1;
            let Some(condition) = self.next_condition(offered, &tried) else {
                return Err(lost.unwrap_or(Error::Protocol {
                    detail: format!("it takes no form of `If-Match` for {path}"),
                }));
            };
            let header = match &condition {
                Condition::Absent => None,
                Condition::Matches(etag) => HeaderValue::from_str(etag).ok(),
            };
            let header = header.map(|etag| (IF_MATCH, etag));
            let answer = self
                .send(Method::PATCH, path, Some(body.clone()), header)
                .await;
            match answer {
                Ok(answer) if matches!(answer.status, 412 | 428) => {
                    lost = Some(refusal(&answer, &format!("PATCH {path}")));
                    tried.push(condition);
                }
                Ok(answer) if (200..300).contains(&answer.status) => return Ok(answer),
                Ok(answer) if answer.status == 400 && self.wait(&answer).is_none() => {
                    return Ok(answer);
                }
                Ok(answer) => self.outlast(&answer, &format!("PATCH {path}")).await?,
                Err(Lost::Before(error)) => return Err(error),
                Err(after) => {
                    if lost.is_some() || Instant::now() >= self.deadline() {
                        return Err(after.error());
                    }
                    lost = Some(after.error());
                }
            }
        }
    }

    fn wait(&self, answer: &Answer) -> Option<std::time::Duration> {
        self.profile.passes(&answer.resource().message_ids())
    }

    /// The next form of `If-Match` to try: as offered, without its `W/`, none, any.
    fn next_condition(&self, offered: Option<String>, tried: &[Condition]) -> Option<Condition> {
        let mut forms = Vec::new();
        if !self.profile.has(Rule::NoIfMatch) {
            // An ETag that changes on every read would be tried for ever.
            if let Some(etag) = offered.filter(|_| tried.len() < FRESH) {
                let stripped = etag.strip_prefix("W/").map(str::to_owned);
                forms.push(Condition::Matches(etag));
                forms.extend(stripped.map(Condition::Matches));
            }
            if !tried.is_empty() {
                forms.push(Condition::Absent);
                forms.push(Condition::Matches("*".to_owned()));
            }
        }
        if forms.is_empty() {
            forms.push(Condition::Absent);
        }
        forms.into_iter().find(|form| !tried.contains(form))
    }

    /// Writes one attribute of the firmware's setup, which takes effect at the next boot.
    async fn write_setup(
        &mut self,
        system: &Resource,
        attribute: &str,
        value: &str,
    ) -> Result<(), Error> {
        let (path, _) = self.setup(system).await?;
        let body = json!({ "Attributes": { attribute: value } });
        let answer = self.patch(&path, &body).await?;
        if (200..300).contains(&answer.status) {
            return self.settle(&answer).await;
        }
        Err(refusal(&answer, &format!("set {attribute}")))
    }

    /// Reads the URI of HTTP Boot where this vendor keeps it.
    async fn setup_uri(&mut self, system: &Resource) -> Result<Option<String>, Error> {
        let Some(attribute) = self.profile.http_uri() else {
            return Ok(None);
        };
        let pointer = format!("/Attributes/{attribute}");
        let (_, pending) = self.setup(system).await?;
        if let Some(uri) = pending.text(&pointer) {
            return Ok(Some(uri.to_owned()));
        }
        let Some(path) = system.link("/Bios") else {
            return Ok(None);
        };
        Ok(self.get(&path).await?.0.text(&pointer).map(str::to_owned))
    }

    /// Finds where the firmware's setup is changed.
    async fn setup(&mut self, system: &Resource) -> Result<(String, Resource), Error> {
        let path = system.link("/Bios").ok_or_else(|| Error::Unsupported {
            detail: "the firmware's setup".to_owned(),
        })?;
        let bios = self.get(&path).await?.0;
        Ok(self.settings(&bios).await?.unwrap_or((path, bios)))
    }
}

fn mode(wanted: &BootOverride) -> &'static str {
    match wanted.firmware {
        BootFirmware::Bios => "Legacy",
        BootFirmware::Uefi => "UEFI",
    }
}

/// Whether the service has a property for the URI, if only an unset one.
fn has_uri(system: &Resource) -> bool {
    system.has(&format!("/Boot/{URI}"))
}
