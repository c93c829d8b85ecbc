//! The system event log.
