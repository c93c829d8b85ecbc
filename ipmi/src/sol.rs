//! Serial over LAN.
