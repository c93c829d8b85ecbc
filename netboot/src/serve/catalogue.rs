//! The files the appliance serves.
