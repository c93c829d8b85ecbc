//! The power state of a fleet, read from one socket.
