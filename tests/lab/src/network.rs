//! Cables and switches inside a namespace, made with `ip`.
//!
//! It refuses to assign anything but what it is told: addresses come from the site.

use crate::namespace::{Error, Namespace};

/// The switch of the rack.
pub const BRIDGE: &str = "rack0";

/// Makes the rack's switch and gives the appliance its address on it.
///
/// # Errors
/// When `ip` fails.
pub fn bridge(namespace: &Namespace, address: &str) -> Result<(), Error> {
    namespace.run(["ip", "link", "add", BRIDGE, "type", "bridge"])?;
    namespace.run(["ip", "address", "add", address, "dev", BRIDGE])?;
    namespace.run(["ip", "link", "set", BRIDGE, "up"])?;
    Ok(())
}

/// Gives one more address to the rack's switch, for a BMC.
///
/// # Errors
/// When `ip` fails.
pub fn address(namespace: &Namespace, address: &str) -> Result<(), Error> {
    let address = format!("{address}/32");
    namespace.run(["ip", "address", "add", &address, "dev", BRIDGE])?;
    Ok(())
}

/// Adds a port for one host and returns its name.
///
/// # Errors
/// When `ip` fails.
pub fn tap(namespace: &Namespace, host: &str) -> Result<String, Error> {
    let port = format!("tap-{}", host.chars().take(11).collect::<String>());
    namespace.run(["ip", "tuntap", "add", &port, "mode", "tap"])?;
    namespace.run(["ip", "link", "set", &port, "master", BRIDGE, "up"])?;
    Ok(port)
}

/// Lays a cable from the rack's switch to the interface `name` of another namespace.
///
/// # Errors
/// When `ip` fails.
pub fn cable(rack: &Namespace, other: &Namespace, name: &str) -> Result<(), Error> {
    let port = format!("port-{}", name.chars().take(10).collect::<String>());
    let target = other.holder.pid.to_string();
    rack.run([
        "ip", "link", "add", &port, "type", "veth", "peer", "name", name, "netns", &target,
    ])?;
    rack.run(["ip", "link", "set", &port, "master", BRIDGE, "up"])?;
    other.run(["ip", "link", "set", name, "up"])?;
    Ok(())
}
