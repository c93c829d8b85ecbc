//! The first-boot appliance and the operator's command line.

fn main() {}
