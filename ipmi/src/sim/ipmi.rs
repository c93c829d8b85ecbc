//! A simulated IPMI 2.0 BMC.
