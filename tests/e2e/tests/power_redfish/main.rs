//! Redfish: DMTF's validator and curl judge the simulated service; sushy-emulator and openssl judge the client.
//!
//! It refuses to count a skipped peer as one that agreed: in CI a missing peer is a failure.

mod client;
mod service;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Child;

use e2e::{need, shop};
use lab::python::Environment;

const USER: &str = "operator";
const PASSWORD: &str = "canary-S3cret";

/// Returns a program of the Python peers; in CI it must be there.
fn peer(name: &str) -> Option<PathBuf> {
    let found = Environment::of(&shop::state()).program(name);
    if found.is_none() {
        assert!(
            !need::is_ci(),
            "{name} is missing: run `cargo lab test --install`"
        );
        eprintln!("SKIPPED for want of {name}: `cargo lab test --install` installs it");
    }
    found
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn free_port() -> u16 {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    port.local_addr().expect("an address").port()
}
