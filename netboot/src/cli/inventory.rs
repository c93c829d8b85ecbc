//! `netboot inventory`: what a host's BMC knows of its parts, sensors and past.
//!
//! It refuses to remember: the BMC is asked.

use clap::Args;
use netboot_core::Timestamp;

use super::table::Table;
use super::{Exit, Failure, Format, print};
use crate::api::InventoryAnswer;
use crate::api::client::{Client, Target, block_on};

/// Show the parts, sensors and event log of a host, as its BMC says now.
#[derive(Debug, Args)]
pub(super) struct Inventory {
    /// Name of the host.
    host: String,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
}

impl Inventory {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let client = Client::open(&self.target)?;
        let path = format!("/v1/hosts/{}/inventory", super::query(&self.host));
        let found: InventoryAnswer = block_on(async { Ok(client.get(&path).await?) })?;
        if self.format.json {
            let json = serde_json::to_string(&found).map_err(Failure::new)?;
            print(&(json + "\n"))?;
        } else {
            print(&text(found))?;
        }
        Ok(Exit::Done)
    }
}

fn text(found: InventoryAnswer) -> String {
    let mut parts = Table::new(["part", "manufacturer", "model", "serial", "number"]);
    for part in found.parts {
        let rest = [part.manufacturer, part.model, part.serial, part.number];
        let [manufacturer, model, serial, number] = rest.map(Option::unwrap_or_default);
        parts.row([part.name, manufacturer, model, serial, number]);
    }
    let mut sensors = Table::new(["sensor", "value", "unit", "health"]);
    for sensor in found.sensors {
        let value = sensor.value.map(|value| value.to_string());
        sensors.row([
            sensor.name,
            value.unwrap_or_default(),
            sensor.unit,
            sensor.health,
        ]);
    }
    let mut log = Table::new(["logged", "about", "health", "message"]);
    for line in found.log {
        let at = line.at_seconds.and_then(|at| u64::try_from(at).ok());
        let at = at.map(|at| Timestamp(at.saturating_mul(1_000)).utc());
        log.row([
            at.unwrap_or_default(),
            line.subject,
            line.health,
            line.message,
        ]);
    }
    format!("{parts}\n{sensors}\n{log}")
}
