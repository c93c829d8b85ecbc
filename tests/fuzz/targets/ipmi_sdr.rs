//! Any bytes as a sensor data record, and any as what its sensor says: a value is a number or is not there.
#![no_main]

use ipmi::sdr::{Record, reading};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (said, record) = bytes.split_at(bytes.len().min(4));
    if let Ok(Record::Sensor(sensor)) = Record::decode(record) {
        let value = reading(&sensor, said).value;
        assert!(value.is_none_or(f64::is_finite));
        let _unit = sensor.unit();
    }
});
