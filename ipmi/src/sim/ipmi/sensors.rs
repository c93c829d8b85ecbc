//! The sensors of a simulated BMC, as records (IPMI 2.0 §43) and as readings.

use crate::PowerState;

/// A sensor.
#[derive(Debug)]
struct Sensor {
    name: &'static str,
    kind: u8,
    unit: u8,
    /// One step of the raw reading is `factor * 10^exponent` units.
    factor: u8,
    exponent: i8,
    /// The raw reading of a host that is off; none where nothing is measured then.
    off: Option<u8>,
    on: u8,
    /// Raw thresholds: lower critical, upper non-critical, upper critical; 0 is none.
    thresholds: [u8; 3],
}

/// Temperatures, a fan, a voltage, what the host draws.
const ANALOG: [Sensor; 5] = [
    Sensor {
        name: "Inlet Temp",
        kind: 0x01,
        unit: 1,
        factor: 1,
        exponent: 0,
        off: Some(22),
        on: 24,
        thresholds: [0, 40, 45],
    },
    Sensor {
        name: "CPU Temp",
        kind: 0x01,
        unit: 1,
        factor: 1,
        exponent: 0,
        off: Some(24),
        on: 52,
        thresholds: [0, 85, 95],
    },
    Sensor {
        name: "Fan 1",
        kind: 0x04,
        unit: 18,
        factor: 60,
        exponent: 0,
        off: None,
        on: 100,
        thresholds: [10, 0, 0],
    },
    Sensor {
        name: "12V",
        kind: 0x02,
        unit: 4,
        factor: 6,
        exponent: -2,
        off: None,
        on: 201,
        thresholds: [180, 215, 220],
    },
    Sensor {
        name: "Power Draw",
        kind: 0x0b,
        unit: 6,
        factor: 2,
        exponent: 0,
        off: Some(3),
        on: 90,
        thresholds: [0, 180, 200],
    },
];

/// The number of the one discrete sensor, a power supply.
const SUPPLY: u8 = 6;
const SUPPLY_NAME: &str = "PSU 1";

/// All records, each with its id: 1, 2, …
pub(super) fn records() -> Vec<Vec<u8>> {
    let numbers = 1_u8..;
    let mut records: Vec<_> = numbers
        .zip(&ANALOG)
        .map(|(number, sensor)| full(number, sensor))
        .collect();
    records.push(compact());
    records
}

fn header(number: u8, kind: u8, body: Vec<u8>) -> Vec<u8> {
    let length = u8::try_from(body.len()).unwrap_or(u8::MAX);
    let mut record = vec![number, 0x00, 0x51, kind, length];
    record.extend(body);
    record
}

fn name(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(0);
    [&[0xc0 | length][..], text.as_bytes()].concat()
}

/// A full sensor record (IPMI 2.0 Table 43-1).
fn full(number: u8, sensor: &Sensor) -> Vec<u8> {
    let [lower, upper, critical] = sensor.thresholds;
    let bit = |threshold: u8, bit: u8| if threshold == 0 { 0 } else { bit };
    let readable = bit(lower, 0x02) | bit(upper, 0x08) | bit(critical, 0x10);
    let exponents = (sensor.exponent << 4).cast_unsigned();
    let mut body = vec![
        // Owner, LUN, number, entity (the system board), initialisation, capabilities, type, threshold events.
        0x20,
        0x00,
        number,
        0x07,
        0x01,
        0x7f,
        0x68,
        sensor.kind,
        0x01,
        // Event masks: none. Readable thresholds.
        0x00,
        0x00,
        0x00,
        0x00,
        readable,
        0x00,
        // Unsigned; the unit; linear.
        0x00,
        sensor.unit,
        0x00,
        0x00,
        // M, tolerance, B, accuracy, exponents.
        sensor.factor,
        0x00,
        0x00,
        0x00,
        0x00,
        exponents,
        // Nominal reading given; maximum and minimum of the scale.
        0x01,
        sensor.on,
        0x00,
        0x00,
        0xff,
        0x00,
    ];
    body.extend_from_slice(&[0x00, critical, upper, 0x00, lower, 0x00]);
    // Hysteresis, reserved, OEM.
    body.extend_from_slice(&[0x01, 0x01, 0x00, 0x00, 0x00]);
    body.extend(name(sensor.name));
    header(number, 0x01, body)
}

/// A compact sensor record (IPMI 2.0 Table 43-2): a power supply, present or not.
fn compact() -> Vec<u8> {
    let mut body = vec![
        0x20, 0x00, SUPPLY, 0x0a, 0x01, 0x67, 0x40, 0x08, 0x6f,
        // States that it can tell: present, failed.
        0x03, 0x00, 0x03, 0x00, 0x03, 0x00,
        // No analog reading, no unit; no sharing, hysteresis, OEM.
        0xc0, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    ];
    body.extend(name(SUPPLY_NAME));
    header(SUPPLY, 0x02, body)
}

fn find(number: u8) -> Option<&'static Sensor> {
    ANALOG.get(usize::from(number).checked_sub(1)?)
}

/// The reply to Get Sensor Reading; none for a sensor that does not exist.
pub(super) fn reading(number: u8, power: &PowerState) -> Option<Vec<u8>> {
    if number == SUPPLY {
        return Some(vec![0x00, 0xc0, 0x01, 0x80]);
    }
    let sensor = find(number)?;
    let raw = match power {
        PowerState::Off => sensor.off,
        _ => Some(sensor.on),
    };
    let Some(raw) = raw else {
        // Reading unavailable.
        return Some(vec![0x00, 0xe0, 0x00]);
    };
    let [lower, upper, critical] = sensor.thresholds;
    let mut states = 0xc0;
    for (bit, passed) in [
        (0x02, lower != 0 && raw <= lower),
        (0x08, upper != 0 && raw >= upper),
        (0x10, critical != 0 && raw >= critical),
    ] {
        if passed {
            states |= bit;
        }
    }
    Some(vec![raw, 0xc0, states])
}

/// The reply to Get Sensor Thresholds.
pub(super) fn thresholds(number: u8) -> Option<Vec<u8>> {
    let sensor = find(number)?;
    let [lower, upper, critical] = sensor.thresholds;
    let bit = |threshold: u8, bit: u8| if threshold == 0 { 0 } else { bit };
    let readable = bit(lower, 0x02) | bit(upper, 0x08) | bit(critical, 0x10);
    Some(vec![readable, 0, lower, 0, upper, critical, 0])
}
