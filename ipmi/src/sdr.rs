//! Sensor data records.
