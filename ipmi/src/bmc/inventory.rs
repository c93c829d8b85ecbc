//! What a BMC knows of its host's parts, sensors and past.

use super::Identity;

/// What a BMC knows of its host.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Inventory {
    /// Whose it is.
    pub identity: Identity,
    /// Parts that carry a name or a number.
    pub parts: Vec<Part>,
    /// What is measured.
    pub sensors: Vec<Sensor>,
    /// The event log, oldest first.
    pub events: Vec<LogEntry>,
}

/// One part with its names and numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// Who made it.
    pub manufacturer: Option<String>,
    /// What its maker calls it.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its part number.
    pub number: Option<String>,
}

/// One thing that is measured.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Sensor {
    /// Its name.
    pub name: String,
    /// Its value; none where it cannot be read now.
    pub value: Option<f64>,
    /// The unit of the value.
    pub unit: String,
    /// What the BMC thinks of it.
    pub health: Health,
}

/// What a BMC thinks of a part or a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Well.
    Good,
    /// Somebody should look.
    Warning,
    /// Broken.
    Critical,
    /// It does not say.
    Unknown,
}

/// One line of the event log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LogEntry {
    /// Its id in the log.
    pub id: String,
    /// When, in seconds since 1970 by the BMC's clock; none where it had no clock.
    pub at: Option<i64>,
    /// What it is about.
    pub subject: String,
    /// What happened.
    pub message: String,
    /// How bad it is.
    pub health: Health,
}
