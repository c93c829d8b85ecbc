//! From the raw reply to Get Sensor Reading to a value (IPMI 2.0 §35.14 and §36.3).

use super::{Kind, Linearisation, Scale, SensorRecord};
use crate::bmc::Health;

/// What a sensor measures now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Its value; none for states, and where nothing is measured now.
    pub value: Option<f64>,
    /// What the BMC thinks of it.
    pub health: Health,
}

/// Reads the data of a reply to Get Sensor Reading.
#[must_use]
pub fn reading(record: &SensorRecord, data: &[u8]) -> Reading {
    let nothing = Reading {
        value: None,
        health: Health::Unknown,
    };
    let Some((&[raw, status], rest)) = data.split_first_chunk() else {
        return nothing;
    };
    // Scanning is off, or the reading is not available.
    if status & 0x40 == 0 || status & 0x20 != 0 {
        return nothing;
    }
    let said = rest.first().copied();
    match record.kind() {
        Kind::Analog => Reading {
            value: record.scale.as_ref().and_then(|scale| scale.value(raw)),
            health: said.map_or(Health::Unknown, thresholds),
        },
        Kind::Discrete => Reading {
            value: None,
            health: said.map_or(Health::Unknown, |states| discrete(record, states)),
        },
    }
}

/// The worst threshold that is passed.
fn thresholds(states: u8) -> Health {
    match states & 0x3f {
        0 => Health::Good,
        // Only non-critical ones.
        passed if passed & !0x09 == 0 => Health::Warning,
        _ => Health::Critical,
    }
}

/// States that say of themselves how bad they are; of most, nobody but the vendor knows.
fn discrete(record: &SensorRecord, states: u8) -> Health {
    let (critical, warning, good) = match (record.event_type, record.sensor_type) {
        // Severity (Table 42-2, 07h): to critical or worse, to non-critical, to OK.
        (0x07, _) => (0x6c, 0x12, 0x01),
        // A power supply: failed or without input, predicted to fail, present.
        (0x6f, 0x08) => (0x0a, 0x04, 0x01),
        // A drive: faulty, predicted to fail, present.
        (0x6f, 0x0d) => (0x02, 0x04, 0x01),
        _ => return Health::Unknown,
    };
    match states {
        states if states & critical != 0 => Health::Critical,
        states if states & warning != 0 => Health::Warning,
        states if states & good != 0 => Health::Good,
        _ => Health::Unknown,
    }
}

impl Scale {
    /// The value of a raw reading; none where only the sensor knows, or where it is no number.
    #[must_use]
    pub fn value(&self, raw: u8) -> Option<f64> {
        let x = match self.format {
            // One's complement has two zeros.
            1 if raw & 0x80 != 0 => -f64::from(!raw),
            0 | 1 => f64::from(raw),
            _ => f64::from(raw.cast_signed()),
        };
        let offset = f64::from(self.offset) * power_of_ten(self.offset_exponent);
        // Dividing by an exact power rounds once: 201 × 6 ÷ 100 is 12.06.
        let sum = f64::from(self.factor) * x + offset;
        let y = if self.exponent < 0 {
            sum / power_of_ten(-self.exponent)
        } else {
            sum * power_of_ten(self.exponent)
        };
        let value = match self.linearisation {
            Linearisation::Linear => y,
            Linearisation::Ln => y.ln(),
            Linearisation::Log10 => y.log10(),
            Linearisation::Log2 => y.log2(),
            Linearisation::E => y.exp(),
            Linearisation::Exp10 => 10_f64.powf(y),
            Linearisation::Exp2 => y.exp2(),
            Linearisation::Reciprocal => y.recip(),
            Linearisation::Square => y * y,
            Linearisation::Cube => y * y * y,
            Linearisation::SquareRoot => y.sqrt(),
            Linearisation::CubeRoot => y.cbrt(),
            Linearisation::NonLinear => return None,
        };
        value.is_finite().then_some(value)
    }
}

fn power_of_ten(exponent: i8) -> f64 {
    10_f64.powi(i32::from(exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(format: u8, factor: i16, offset: i16, exponent: i8) -> Scale {
        Scale {
            format,
            linearisation: Linearisation::Linear,
            factor,
            offset,
            offset_exponent: 0,
            exponent,
        }
    }

    #[test]
    fn raw_readings_become_values() {
        let cases = [
            ("a fan", scale(0, 60, 0, 0), 100, Some(6000.0)),
            ("volts", scale(0, 6, 0, -2), 201, Some(12.06)),
            ("below zero", scale(2, 1, 0, 0), 0xf6, Some(-10.0)),
            (
                "below zero, one's complement",
                scale(1, 1, 0, 0),
                0xf5,
                Some(-10.0),
            ),
            ("an offset", scale(0, 1, -128, 0), 150, Some(22.0)),
        ];
        for (name, scale, raw, expected) in cases {
            assert_eq!(scale.value(raw), expected, "{name}");
        }
        let inverse = Scale {
            linearisation: Linearisation::Reciprocal,
            ..scale(0, 1, 0, 0)
        };
        assert_eq!(inverse.value(4), Some(0.25));
        assert_eq!(inverse.value(0), None);
    }
}
