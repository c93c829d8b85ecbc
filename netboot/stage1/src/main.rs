//! The program in the initrd and the agent on the running host: one static binary.
//!
//! It trusts nothing that arrives over the network but what hashes to the digests in its own
//! initrd, and what the authority answers for that its boot script named, and nothing on a disk but what leads to
//! the root hash on its command line; it refuses to boot anything else. It has no DHCP client and no async runtime: its address comes from the boot script, and every
//! byte counts in the initrd.

mod agent;
mod alias;
mod backoff;
mod checks;
mod cmdline;
mod coldplug;
mod console;
mod devicemapper;
mod disk;
mod disks;
mod drift;
mod errors;
mod fetch;
mod gpt;
mod handover;
mod host;
mod http;
mod init;
mod link;
mod loopdev;
mod memory;
mod modules;
mod netlink;
mod pieces;
mod report;
mod rootfs;
mod secrets;
mod session;
mod signature;
mod systemd;
mod tls;
mod uptime;
mod verity;

use std::env;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [verb, config] if verb == "agent" => agent::run(Path::new(config)),
        [flag] if flag == "--version" => {
            println!("stage1 {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: stage1 agent CONFIG (or as process 1 of an initrd)");
            ExitCode::from(2)
        }
    }
}
