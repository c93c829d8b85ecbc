//! The RMCP+ session as a machine without a socket or a clock.
