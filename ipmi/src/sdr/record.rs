//! The bytes of sensor data records.

use crate::wire::{Malformed, Reader};

/// A record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A sensor.
    Sensor(SensorRecord),
    /// Where another FRU inventory is to be found.
    Fru {
        /// Its device number; none for one that is not behind this BMC.
        device: Option<u8>,
        /// What it is called.
        name: String,
    },
    /// One that tells nothing about a sensor or an inventory.
    Other(u8),
}

/// What a sensor measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value, compared with thresholds.
    Analog,
    /// States.
    Discrete,
}

/// A sensor, as its record describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct SensorRecord {
    /// The address of the controller that owns it.
    pub owner: u8,
    /// Its logical unit there, and its channel.
    pub lun: u8,
    /// Its number.
    pub number: u8,
    /// The type of what it senses (IPMI 2.0 Table 42-3).
    pub sensor_type: u8,
    /// The type of its events and readings (IPMI 2.0 Table 42-1).
    pub event_type: u8,
    /// Its unit (IPMI 2.0 Table 43-15), and whether it is a percentage.
    pub unit: (u8, bool),
    /// How its raw reading becomes a value; none for states.
    pub scale: Option<Scale>,
    /// Its name.
    pub name: String,
}

/// How a raw reading becomes a value: `L((M·x + B·10^K1)·10^K2)` (IPMI 2.0 §36.3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// How the raw byte is signed: 0 not, 1 by one's complement, 2 by two's complement.
    pub format: u8,
    /// L.
    pub linearisation: Linearisation,
    /// M, ten bits signed.
    pub factor: i16,
    /// B, ten bits signed.
    pub offset: i16,
    /// K1, four bits signed.
    pub offset_exponent: i8,
    /// K2, four bits signed.
    pub exponent: i8,
}

/// The last step from a raw reading to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the functions are named as mathematics names them"
)]
pub enum Linearisation {
    Linear,
    Ln,
    Log10,
    Log2,
    E,
    Exp10,
    Exp2,
    Reciprocal,
    Square,
    Cube,
    SquareRoot,
    CubeRoot,
    /// Only the sensor itself knows, for each reading.
    NonLinear,
}

impl Linearisation {
    fn from_number(number: u8) -> Self {
        match number & 0x7f {
            0 => Self::Linear,
            1 => Self::Ln,
            2 => Self::Log10,
            3 => Self::Log2,
            4 => Self::E,
            5 => Self::Exp10,
            6 => Self::Exp2,
            7 => Self::Reciprocal,
            8 => Self::Square,
            9 => Self::Cube,
            10 => Self::SquareRoot,
            11 => Self::CubeRoot,
            _ => Self::NonLinear,
        }
    }
}

/// The BMC's own address.
const BMC: u8 = 0x20;

impl Record {
    /// Decodes a whole record.
    ///
    /// # Errors
    /// When it is shorter than its type.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "sensor data record");
        let [_, _, _, kind, length] = reader.array()?;
        let body = reader.take(usize::from(length))?;
        match kind {
            0x01 => full(body).map(Self::Sensor),
            0x02 => compact(body).map(Self::Sensor),
            0x11 => fru(body),
            other => Ok(Self::Other(other)),
        }
    }
}

/// What full and compact records begin with.
fn head(reader: &mut Reader<'_>) -> Result<(SensorRecord, u8), Malformed> {
    let [owner, lun, number, _, _, _, _, sensor_type, event_type] = reader.array()?;
    reader.take(6)?;
    let [units, base, _] = reader.array()?;
    let record = SensorRecord {
        owner,
        lun,
        number,
        sensor_type,
        event_type,
        unit: (base, units & 1 != 0),
        scale: None,
        name: String::new(),
    };
    Ok((record, units >> 6))
}

/// A full sensor record (IPMI 2.0 Table 43-1).
fn full(body: &[u8]) -> Result<SensorRecord, Malformed> {
    let mut reader = Reader::new(body, "full sensor record");
    let (mut record, format) = head(&mut reader)?;
    let [linearisation, m, m_high, b, b_high, _, exponents] = reader.array()?;
    // Direction, characteristics, nominal and extreme readings, thresholds, hysteresis, OEM.
    reader.take(17)?;
    // Format 3 is no analog reading at all.
    if format != 3 && record.kind() == Kind::Analog {
        record.scale = Some(Scale {
            format,
            linearisation: Linearisation::from_number(linearisation),
            factor: ten_bits(m, m_high),
            offset: ten_bits(b, b_high),
            offset_exponent: four_bits(exponents),
            exponent: four_bits(exponents >> 4),
        });
    }
    record.name = name(reader)?;
    Ok(record)
}

/// A compact sensor record (IPMI 2.0 Table 43-2).
fn compact(body: &[u8]) -> Result<SensorRecord, Malformed> {
    let mut reader = Reader::new(body, "compact sensor record");
    let (mut record, _) = head(&mut reader)?;
    // Sharing, hysteresis, reserved, OEM.
    reader.take(8)?;
    record.name = name(reader)?;
    Ok(record)
}

/// A FRU device locator (IPMI 2.0 Table 43-7).
fn fru(body: &[u8]) -> Result<Record, Malformed> {
    let mut reader = Reader::new(body, "fru device locator");
    let [owner, device, access, _, _, _, _, _, _, _] = reader.array()?;
    let is_local = owner == BMC && access & 0x80 != 0;
    Ok(Record::Fru {
        device: is_local.then_some(device),
        name: name(reader)?,
    })
}

fn name(mut reader: Reader<'_>) -> Result<String, Malformed> {
    let kind = reader.u8()?;
    // Some records promise more of a name than they hold.
    let rest = reader.rest();
    let length = usize::from(kind & 0x1f).min(rest.len());
    let text = crate::fru::text(kind >> 6, rest.get(..length).unwrap_or_default());
    Ok(text.unwrap_or_default())
}

/// Ten bits in two's complement; the upper two stand on top of the second byte.
fn ten_bits(low: u8, high: u8) -> i16 {
    let bits = i16::from(low) | i16::from(high >> 6) << 8;
    if bits >= 512 { bits - 1024 } else { bits }
}

fn four_bits(bits: u8) -> i8 {
    let bits = (bits & 0x0f).cast_signed();
    if bits >= 8 { bits - 16 } else { bits }
}

impl SensorRecord {
    /// What it measures.
    #[must_use]
    pub fn kind(&self) -> Kind {
        if self.event_type == 0x01 {
            Kind::Analog
        } else {
            Kind::Discrete
        }
    }

    /// Whether the BMC itself reads it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.owner == BMC && self.lun.trailing_zeros() >= 2
    }

    /// The name of its unit; empty for states.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        const UNITS: [&str; 23] = [
            "", "°C", "°F", "K", "V", "A", "W", "J", "C", "VA", "nit", "lm", "lx", "cd", "kPa",
            "psi", "N", "ft³/min", "rpm", "Hz", "µs", "ms", "s",
        ];
        match self.unit {
            (_, true) => "%",
            (unit, false) => UNITS.get(usize::from(unit)).copied().unwrap_or_default(),
        }
    }
}
