//! What a host's BMC knows of its parts, sensors and past.
//!
//! It refuses to keep it: it is read when it is asked for.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use ipmi::bmc::{Health, Inventory};
use serde::{Deserialize, Serialize};

use super::hosts::find;
use super::openapi::Refusals;
use super::order::{Answer, Caller};
use super::{Api, Problem};
use crate::operate::Refusal;

/// How long it may take: a BMC with three hundred sensors takes half of it.
const LONGEST: Duration = Duration::from_mins(1);

/// What a BMC knows of its host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct InventoryAnswer {
    /// Its parts.
    pub(crate) parts: Vec<PartAnswer>,
    /// What is measured.
    pub(crate) sensors: Vec<SensorAnswer>,
    /// Its event log, oldest first.
    pub(crate) log: Vec<LogAnswer>,
}

/// One part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct PartAnswer {
    /// What it is.
    pub(crate) name: String,
    /// Who made it.
    pub(crate) manufacturer: Option<String>,
    /// What its maker calls it.
    pub(crate) model: Option<String>,
    /// Its serial number.
    pub(crate) serial: Option<String>,
    /// Its part number.
    pub(crate) number: Option<String>,
}

/// One thing that is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SensorAnswer {
    /// Its name.
    pub(crate) name: String,
    /// Its value; none where it cannot be read now.
    pub(crate) value: Option<f64>,
    /// The unit of the value.
    pub(crate) unit: String,
    /// What the BMC thinks of it: `good`, `warning`, `critical` or `unknown`.
    pub(crate) health: String,
}

/// One line of the event log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct LogAnswer {
    /// Its id in the log.
    pub(crate) id: String,
    /// When, in seconds since 1970 by the BMC's clock; none where it had no clock.
    pub(crate) at_seconds: Option<i64>,
    /// What it is about.
    pub(crate) subject: String,
    /// What happened.
    pub(crate) message: String,
    /// How bad it is: `good`, `warning`, `critical` or `unknown`.
    pub(crate) health: String,
}

/// Reads what a host's BMC knows of its parts, sensors and past.
#[utoipa::path(get, path = "/v1/hosts/{name}/inventory", operation_id = "show_inventory", tag = "hosts", security(("token" = ["viewer"])),
    params(("name" = String, Path, description = "Its name.")),
    responses((status = 200, description = "What it said.", body = InventoryAnswer), Refusals))]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Caller(who): Caller,
    Path(name): Path<String>,
) -> Result<Answer<InventoryAnswer>, Problem> {
    let host = find(&api.site(), &who, &name)?;
    let _turn = Turn::take(&api, &host.name)?;
    let reading = api.parts.operator.inventory(&host.name);
    let inventory = match tokio::time::timeout(LONGEST, reading).await {
        Ok(read) => read?,
        Err(_) => {
            return Err(Refusal::Bmc {
                host: name,
                reason: format!("it did not answer in {} s", LONGEST.as_secs()),
            }
            .into());
        }
    };
    Ok(Answer::of(answer(inventory)))
}

/// The one reading of a BMC: it answers one question at a time, and readers must not stand in the way of orders.
struct Turn {
    api: Arc<Api>,
    host: Arc<str>,
}

impl Turn {
    fn take(api: &Arc<Api>, host: &Arc<str>) -> Result<Self, Refusal> {
        let mut taken = api
            .inventories
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !taken.insert(Arc::clone(host)) {
            return Err(Refusal::Conflict {
                reason: format!("the BMC of `{host}` is being read; ask again in a moment"),
            });
        }
        Ok(Self {
            api: Arc::clone(api),
            host: Arc::clone(host),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let taken = self.api.inventories.lock();
        taken
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.host);
    }
}

fn answer(inventory: Inventory) -> InventoryAnswer {
    let parts = inventory.parts.into_iter().map(|part| PartAnswer {
        name: part.name,
        manufacturer: part.manufacturer,
        model: part.model,
        serial: part.serial,
        number: part.number,
    });
    let sensors = inventory.sensors.into_iter().map(|sensor| SensorAnswer {
        name: sensor.name,
        value: sensor.value,
        unit: sensor.unit,
        health: health(sensor.health),
    });
    let log = inventory.events.into_iter().map(|line| LogAnswer {
        id: line.id,
        at_seconds: line.at,
        subject: line.subject,
        message: line.message,
        health: health(line.health),
    });
    InventoryAnswer {
        parts: parts.collect(),
        sensors: sensors.collect(),
        log: log.collect(),
    }
}

fn health(health: Health) -> String {
    match health {
        Health::Good => "good",
        Health::Warning => "warning",
        Health::Critical => "critical",
        Health::Unknown => "unknown",
    }
    .to_owned()
}
