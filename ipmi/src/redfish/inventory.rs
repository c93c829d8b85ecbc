//! Parts, sensors and the event log, as far as the service tells.
//!
//! It refuses to write, and to give up on the whole for a resource that cannot be read.

use super::chain::Chain;
use super::resource::{Resource, printable};
use crate::bmc::{Conversation as _, Depth, Error, Inventory, LogEntry, Part, Sensor};

/// How many members of one collection are read.
const MEMBERS: usize = 64;
/// How many lines of the log are read, the newest.
const LINES: usize = 256;

/// Reads parts, sensors and the event log.
///
/// # Errors
/// When the system itself cannot be read.
pub async fn inventory(chain: &mut Chain) -> Result<Inventory, Error> {
    let identity = chain.identity(Depth::Whole).await?;
    let path = chain.system.clone();
    let system = chain.get(&path).await?.0;
    let mut inventory = Inventory {
        identity,
        ..Inventory::default()
    };
    inventory.parts.push(part(&system));
    for collection in ["/Processors", "/Memory"] {
        for member in chain.readable(system.link(collection)).await {
            inventory.parts.push(part(&member));
        }
    }
    let mut chassis = system.members("/Links/Chassis");
    if chassis.is_empty()
        && let Some(collection) = chain.root.link("/Chassis")
    {
        chassis = chain.members(&collection).await.unwrap_or_default();
    }
    for path in chassis.into_iter().take(MEMBERS) {
        chain.read_chassis(&path, &mut inventory).await;
    }
    for manager in chain.managers(&system).await.unwrap_or_default() {
        inventory.parts.push(part(&manager));
    }
    inventory.events = chain.events(&system).await;
    Ok(inventory)
}

impl Chain {
    /// Reads the members of a collection that can be read.
    async fn readable(&mut self, collection: Option<String>) -> Vec<Resource> {
        let Some(collection) = collection else {
            return Vec::new();
        };
        let members = self.members(&collection).await.unwrap_or_default();
        let mut found = Vec::new();
        for path in members.into_iter().take(MEMBERS) {
            if let Ok((member, _)) = self.get(&path).await {
                found.push(member);
            }
        }
        found
    }

    async fn read_chassis(&mut self, path: &str, inventory: &mut Inventory) {
        let Ok((chassis, _)) = self.get(path).await else {
            return;
        };
        inventory.parts.push(part(&chassis));
        if let Some(path) = chassis.link("/Thermal")
            && let Ok((thermal, _)) = self.get(&path).await
        {
            let measured = [
                ("/Temperatures", "/ReadingCelsius", "Cel"),
                ("/Fans", "/Reading", "RPM"),
            ];
            for (list, value, unit) in measured {
                let found = thermal.list(list);
                inventory
                    .sensors
                    .extend(found.iter().map(|item| sensor(item, value, unit)));
            }
        }
        if let Some(path) = chassis.link("/Power")
            && let Ok((power, _)) = self.get(&path).await
        {
            let measured = [
                ("/PowerControl", "/PowerConsumedWatts", "W"),
                ("/Voltages", "/ReadingVolts", "V"),
            ];
            for (list, value, unit) in measured {
                let found = power.list(list);
                inventory
                    .sensors
                    .extend(found.iter().map(|item| sensor(item, value, unit)));
            }
            let supplies = power.list("/PowerSupplies");
            inventory.parts.extend(supplies.iter().map(part));
        }
        // What replaces both in newer services.
        for member in self.readable(chassis.link("/Sensors")).await {
            let unit = member.text("/ReadingUnits").unwrap_or_default().to_owned();
            inventory.sensors.push(sensor(&member, "/Reading", &unit));
        }
    }

    async fn events(&mut self, system: &Resource) -> Vec<LogEntry> {
        let mut lines = Vec::new();
        for service in self.readable(system.link("/LogServices")).await {
            let Some(path) = service.link("/Entries") else {
                continue;
            };
            if let Ok((entries, _)) = self.get(&path).await {
                lines.extend(entries.list("/Members").iter().filter_map(line));
            }
        }
        lines.sort_by_key(|line| line.at);
        let surplus = lines.len().saturating_sub(LINES);
        lines.split_off(surplus)
    }
}

fn part(of: &Resource) -> Part {
    let text = |pointer: &str| of.text(pointer).map(printable);
    Part {
        name: text("/Name").or(text("/Id")).unwrap_or_default(),
        manufacturer: text("/Manufacturer"),
        model: text("/Model"),
        serial: text("/SerialNumber"),
        number: text("/PartNumber"),
    }
}

fn sensor(of: &Resource, value: &str, unit: &str) -> Sensor {
    let name = of.text("/Name").or(of.text("/FanName"));
    let unit = match of.text("/ReadingUnits") {
        Some("Percent") => "%",
        _ => unit,
    };
    Sensor {
        name: name.map(printable).unwrap_or_default(),
        value: of.number(value),
        unit: unit.to_owned(),
        health: of.health(),
    }
}

/// Reads a line of the log. Collections of entries carry the entries themselves.
fn line(of: &Resource) -> Option<LogEntry> {
    Some(LogEntry {
        id: of.text("/Id").map(printable)?,
        at: of.text("/Created").and_then(seconds),
        subject: of
            .text("/SensorType")
            .or(of.text("/EntryType"))
            .map(printable)
            .unwrap_or_default(),
        message: of.text("/Message").map(printable).unwrap_or_default(),
        health: match of.text("/Severity") {
            Some("OK") => crate::bmc::Health::Good,
            Some("Warning") => crate::bmc::Health::Warning,
            Some("Critical") => crate::bmc::Health::Critical,
            _ => crate::bmc::Health::Unknown,
        },
    })
}

/// Reads a time such as `2026-01-31T10:11:12+01:00` as seconds since 1970.
fn seconds(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) {
        return None;
    }
    // Days from the civil calendar, counting years from March so that a leap day comes last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 719_469;
    let zone = text
        .get(19..)?
        .trim_start_matches(['.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    let offset = match zone.as_bytes().first() {
        Some(sign @ (b'+' | b'-')) => {
            let hours: i64 = zone.get(1..3)?.parse().ok()?;
            let minutes: i64 = zone.get(4..6)?.parse().ok()?;
            let minutes = hours * 60 + minutes;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => 0,
    };
    Some(days * 86_400 + hour * 3600 + minute * 60 + second - offset * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_zone() {
        let cases = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-03-01T00:00:00Z", Some(951_868_800)),
            ("2026-11-21T11:33:00+01:00", Some(1_795_257_180)),
            ("2024-02-29T12:00:00.123-05:30", Some(1_709_227_800)),
            ("2024-13-01T00:00:00Z", None),
            ("yesterday", None),
        ];
        for (text, expected) in cases {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
