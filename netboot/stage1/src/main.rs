//! The program in the initrd and the agent on the running host.

fn main() {}
