//! The bytes of one log entry (IPMI 2.0 §32.1).

use super::words;
use crate::bmc::{Health, LogEntry};
use crate::wire::{Malformed, Reader};

/// Times below this count seconds since the BMC started (IPMI 2.0 §37).
const INITIALISING: u32 = 0x2000_0000;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: u16,
    /// When, in seconds since 1970 by the BMC's clock; none where it had none.
    pub at: Option<u32>,
    /// What happened; none for entries that only their maker can read.
    pub event: Option<Event>,
    /// Its kind: 02h is a system event.
    pub kind: u8,
    /// The bytes after the time, or after the kind where there is no time.
    pub raw: [u8; 9],
}

/// A system event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What kind of sensor tells it (IPMI 2.0 Table 42-3).
    pub sensor_type: u8,
    /// The sensor's number.
    pub sensor: u8,
    /// The type of the event (IPMI 2.0 Table 42-1).
    pub event_type: u8,
    /// Whether it began or ended.
    pub direction: Direction,
    /// Three bytes about it; the low half of the first is the event's offset.
    pub data: [u8; 3],
}

/// Whether an event began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It began.
    Asserted,
    /// It ended.
    Deasserted,
}

impl Event {
    /// Which of the events of its type it is.
    #[must_use]
    pub fn offset(self) -> u8 {
        self.data[0] & 0x0f
    }
}

impl Entry {
    /// Decodes an entry.
    ///
    /// # Errors
    /// When it is shorter than 16 bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "log entry");
        let id = reader.u16()?;
        let kind = reader.u8()?;
        let time = reader.u32()?;
        let raw: [u8; 9] = reader.array()?;
        // OEM entries from E0h on have no time.
        let at = (kind < 0xe0 && (INITIALISING..u32::MAX).contains(&time)).then_some(time);
        let [_, _, _, sensor_type, sensor, direction, a, b, c] = raw;
        let event = (kind == 0x02).then_some(Event {
            sensor_type,
            sensor,
            event_type: direction & 0x7f,
            direction: if direction & 0x80 == 0 {
                Direction::Asserted
            } else {
                Direction::Deasserted
            },
            data: [a, b, c],
        });
        Ok(Self {
            id,
            at,
            event,
            kind,
            raw,
        })
    }

    /// The entry in words.
    #[must_use]
    pub fn into_words(self) -> LogEntry {
        let (subject, message, health) = if let Some(event) = self.event {
            (
                format!("{} (sensor {})", words::subject(event), event.sensor),
                words::message(event),
                words::health(event),
            )
        } else {
            let raw: Vec<_> = self.raw.iter().map(|byte| format!("{byte:02x}")).collect();
            let subject = format!("vendor's entry of kind {:02x}h", self.kind);
            (subject, raw.join(" "), Health::Unknown)
        };
        LogEntry {
            id: self.id.to_string(),
            at: self.at.map(i64::from),
            subject,
            message,
            health,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_told_in_words() {
        let cases: [(&str, [u8; 16], &str, &str, Health); 4] = [
            (
                "power",
                [
                    1, 0, 2, 0, 0, 0, 0x60, 0x20, 0, 4, 0x09, 3, 0x6f, 0x00, 0xff, 0xff,
                ],
                "power unit (sensor 3)",
                "power off",
                Health::Good,
            ),
            (
                "too hot",
                [
                    2, 0, 2, 0, 0, 0, 0x60, 0x20, 0, 4, 0x01, 1, 0x01, 0x59, 96, 95,
                ],
                "temperature (sensor 1)",
                "upper critical going high",
                Health::Critical,
            ),
            (
                "cool again",
                [
                    3, 0, 2, 0, 0, 0, 0x60, 0x20, 0, 4, 0x01, 1, 0x81, 0x59, 90, 95,
                ],
                "temperature (sensor 1)",
                "upper critical going high: over",
                Health::Good,
            ),
            (
                "a vendor's own",
                [4, 0, 0xe0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
                "vendor's entry of kind e0h",
                "05 06 07 08 09 0a 0b 0c 0d",
                Health::Unknown,
            ),
        ];
        for (name, bytes, subject, message, health) in cases {
            let told = Entry::decode(&bytes).unwrap().into_words();
            assert_eq!(
                (&*told.subject, &*told.message),
                (subject, message),
                "{name}"
            );
            assert_eq!(told.health, health, "{name}");
        }
    }

    #[test]
    fn a_clock_that_was_not_set_tells_no_time() {
        let mut bytes = [1, 0, 2, 9, 0, 0, 0, 0x20, 0, 4, 9, 3, 0x6f, 0, 0xff, 0xff];
        assert_eq!(Entry::decode(&bytes).unwrap().at, None);
        bytes[3..7].copy_from_slice(&0x6000_0000_u32.to_le_bytes());
        assert_eq!(Entry::decode(&bytes).unwrap().at, Some(0x6000_0000));
    }
}
