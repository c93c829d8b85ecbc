//! A virtual rack on one Linux machine.

fn main() {}
