//! What events are called (IPMI 2.0 Tables 42-2 and 42-3), as far as operators meet them.

use super::entry::{Direction, Event};
use crate::bmc::Health;

const SUBJECTS: [&str; 45] = [
    "reserved",
    "temperature",
    "voltage",
    "current",
    "fan",
    "physical security",
    "platform security",
    "processor",
    "power supply",
    "power unit",
    "cooling device",
    "other units",
    "memory",
    "drive bay",
    "post memory resize",
    "firmware progress",
    "event logging",
    "watchdog",
    "system event",
    "critical interrupt",
    "button",
    "module or board",
    "microcontroller",
    "add-in card",
    "chassis",
    "chip set",
    "other fru",
    "cable",
    "terminator",
    "system boot",
    "boot error",
    "os boot",
    "os stop",
    "slot or connector",
    "acpi power state",
    "watchdog",
    "platform alert",
    "entity presence",
    "monitor",
    "lan",
    "management subsystem",
    "battery",
    "session audit",
    "version change",
    "fru state",
];

const THRESHOLDS: [&str; 12] = [
    "lower non-critical going low",
    "lower non-critical going high",
    "lower critical going low",
    "lower critical going high",
    "lower non-recoverable going low",
    "lower non-recoverable going high",
    "upper non-critical going low",
    "upper non-critical going high",
    "upper critical going low",
    "upper critical going high",
    "upper non-recoverable going low",
    "upper non-recoverable going high",
];

/// What an event is about.
pub(super) fn subject(event: Event) -> &'static str {
    let known = SUBJECTS.get(usize::from(event.sensor_type)).copied();
    known.unwrap_or(if event.sensor_type >= 0xc0 {
        "vendor's sensor"
    } else {
        "unknown sensor"
    })
}

/// What happened.
pub(super) fn message(event: Event) -> String {
    let offset = usize::from(event.offset());
    let known = match event.event_type {
        0x01 => THRESHOLDS.get(offset).copied(),
        0x6f => specific(event.sensor_type).get(offset).copied(),
        kind => generic(kind).get(offset).copied(),
    };
    let message = known.map_or_else(
        || {
            let [a, b, c] = event.data;
            format!("event {:02x}h: {a:02x} {b:02x} {c:02x}", event.event_type)
        },
        str::to_owned,
    );
    match event.direction {
        Direction::Asserted => message,
        Direction::Deasserted => format!("{message}: over"),
    }
}

/// Events that belong to one type of sensor.
fn specific(sensor_type: u8) -> &'static [&'static str] {
    match sensor_type {
        0x07 => &[
            "internal error",
            "too hot: throttled or stopped",
            "self test failed",
            "hung in post",
            "did not start",
            "configuration error",
            "uncorrectable error",
            "present",
            "disabled",
            "terminator present",
            "throttled",
        ],
        0x08 => &[
            "present",
            "failed",
            "failure predicted",
            "input lost",
            "input lost or out of range",
            "input out of range",
            "configuration error",
        ],
        0x09 => &[
            "power off",
            "power cycle",
            "power down for 240 VA",
            "interlock power down",
            "input power lost",
            "soft power control failed",
            "power unit failed",
            "failure predicted",
        ],
        0x0c => &[
            "correctable error",
            "uncorrectable error",
            "parity error",
            "scrub failed",
            "disabled",
            "too many correctable errors",
            "present",
            "configuration error",
            "spare",
            "throttled",
            "too hot",
        ],
        0x0d => &["present", "fault", "failure predicted", "hot spare"],
        0x10 => &[
            "correctable memory error logging disabled",
            "event logging disabled",
            "log cleared",
            "all event logging disabled",
            "log full",
            "log almost full",
        ],
        0x13 => &[
            "front panel nmi",
            "bus timeout",
            "i/o channel check",
            "software nmi",
            "pci parity error",
            "pci system error",
        ],
        0x14 => &["power button", "sleep button", "reset button"],
        0x1d => &[
            "started by power on",
            "started by hard reset",
            "started by warm reset",
            "started for pxe",
            "started for diagnostics",
            "restarted by software",
            "restarted by software",
        ],
        0x1e => &[
            "no bootable media",
            "no bootable disk in the drive",
            "no pxe server found",
            "invalid boot sector",
            "timeout of the boot choice",
        ],
        0x1f => &[
            "booted from a",
            "booted from disk",
            "booted from pxe",
            "booted for diagnostics",
            "booted from cd",
            "booted from rom",
            "booted",
        ],
        0x20 => &[
            "stopped while loading",
            "stopped at run time",
            "stopped gracefully for power down",
            "shut down gracefully",
            "shut down by a platform event",
            "agent not responding",
        ],
        0x23 => &["expired", "hard reset", "power down", "power cycle"],
        _ => &[],
    }
}

/// Events of any sensor that tells states of a common kind.
fn generic(event_type: u8) -> &'static [&'static str] {
    match event_type {
        0x03 => &["state not given", "state given"],
        0x04 => &["no failure predicted", "failure predicted"],
        0x05 => &["limit not exceeded", "limit exceeded"],
        0x06 => &["performance met", "performance lags"],
        0x07 => &[
            "back to good",
            "non-critical, was good",
            "critical, was less",
            "non-recoverable, was less",
            "non-critical, was worse",
            "critical, was non-recoverable",
            "non-recoverable",
        ],
        0x08 => &["absent", "present"],
        0x09 => &["disabled", "enabled"],
        0x0b => &["fully redundant", "redundancy lost", "redundancy degraded"],
        _ => &[],
    }
}

/// How bad it is; what ended is good news.
pub(super) fn health(event: Event) -> Health {
    if event.direction == Direction::Deasserted {
        return Health::Good;
    }
    match (event.event_type, event.sensor_type, event.offset()) {
        (0x01, _, 0 | 1 | 6 | 7)
        | (0x07, _, 1 | 4)
        | (0x04 | 0x0b, _, 1)
        | (0x6f, 0x0c, 0 | 3..=5 | 10)
        | (0x6f, 0x08 | 0x0d, 2) => Health::Warning,
        (0x01, ..)
        | (0x07, _, 2 | 3 | 5 | 6)
        | (0x6f, 0x1e, _)
        | (0x6f, 0x07, 0..=6)
        | (0x6f, 0x08, 1 | 3 | 4)
        | (0x6f, 0x09, 4..=6)
        | (0x6f, 0x0c, 1 | 2)
        | (0x6f, 0x0d | 0x13 | 0x20, 1) => Health::Critical,
        (0x6f, 0x09 | 0x14 | 0x1d | 0x1f, _) | (0x6f, 0x20, 2..=4) => Health::Good,
        _ => Health::Unknown,
    }
}
