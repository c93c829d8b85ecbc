//! The interface that the host booted from: found by hardware address, set up, given the address
//! of the boot script.
//!
//! It asks no DHCP server: the host has one address from firmware to the running system.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use std::os::fd::AsRawFd as _;

use crate::cmdline::{Mac, Parameters};
use crate::coldplug::Coldplug;
use crate::modules::Scope;
use crate::{console, netlink};

/// Drivers of USB and of converged adapters take tens of seconds to bring their interface.
const APPEARS: Duration = Duration::from_mins(1);
/// Spanning tree and slow optics: the link itself is up well within a minute.
const CARRIER: Duration = Duration::from_mins(1);
/// How often what the kernel tells is looked at: less than a tenth of the time of any step.
const LOOK: Duration = Duration::from_millis(10);
/// How long a person sees nothing before being told what is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the host has no network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no interface has the address {mac}; there are {}", list(.seen))]
    NoInterface { mac: String, seen: Vec<String> },
    #[error("failed to {step} on `{interface}`")]
    Setup {
        step: &'static str,
        interface: String,
        source: io::Error,
    },
    #[error("`{interface}` has no carrier after {} s: is the cable in?", CARRIER.as_secs())]
    NoCarrier { interface: String },
}

/// Finds the interface, loading drivers while it waits, and brings it up.
pub(crate) fn bring_up(parameters: &Parameters, coldplug: &mut Coldplug) -> Result<(), Error> {
    let interface = find(parameters.mac, coldplug)?;
    let index = fs::read_to_string(interface.join("ifindex"))
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .unwrap_or(0);
    let name = interface
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let setup = |step, message: Vec<u8>| {
        ask(&message).map_err(|source| Error::Setup {
            step,
            interface: name.clone(),
            source,
        })
    };
    setup("set the link up", netlink::link_up(index))?;
    let (address, prefix) = (parameters.address, parameters.prefix);
    setup("set the address", netlink::address(index, address, prefix))?;
    if let Some(router) = parameters.router {
        setup(
            "set the default route",
            netlink::default_route(index, router),
        )?;
    }
    wait_for_carrier(&interface, &name)?;
    console::info(&format!("`{name}` is up with {address}/{prefix}"));
    Ok(())
}

fn find(mac: Mac, coldplug: &mut Coldplug) -> Result<PathBuf, Error> {
    let started = Instant::now();
    let mut told = false;
    coldplug.look_for(Scope::WithoutStorage);
    loop {
        coldplug.devices();
        let interfaces = interfaces();
        if let Some((path, _)) = interfaces.iter().find(|(_, found)| *found == Some(mac)) {
            return Ok(path.clone());
        }
        if started.elapsed() > APPEARS {
            let seen = interfaces.iter().map(|(path, mac)| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                mac.map_or(name.to_string(), |mac| format!("{name} {mac}"))
            });
            let seen = seen.collect();
            let mac = mac.to_string();
            return Err(Error::NoInterface { mac, seen });
        }
        if !told && started.elapsed() > PATIENCE {
            console::info(&format!("waiting for an interface with the address {mac}"));
            told = true;
            // It may hang on something that nobody thought of.
            coldplug.look_for(Scope::All);
        }
        thread::sleep(LOOK);
    }
}

/// Lists the interfaces that are devices: bridges and VLANs repeat the address of their port.
fn interfaces() -> Vec<(PathBuf, Option<Mac>)> {
    let Ok(entries) = fs::read_dir("/sys/class/net") else {
        return Vec::new();
    };
    let devices = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("device").exists());
    devices
        .map(|path| {
            let mac = fs::read_to_string(path.join("address"));
            let mac = mac.ok().and_then(|text| text.trim().parse().ok());
            (path, mac)
        })
        .collect()
}

fn wait_for_carrier(interface: &std::path::Path, name: &str) -> Result<(), Error> {
    let started = Instant::now();
    let mut told = false;
    // The file is not readable before the interface is up.
    while fs::read_to_string(interface.join("carrier")).is_ok_and(|text| text.trim() != "1") {
        if started.elapsed() > CARRIER {
            let interface = name.to_owned();
            return Err(Error::NoCarrier { interface });
        }
        if !told && started.elapsed() > PATIENCE {
            console::info(&format!("waiting for the carrier of `{name}`"));
            told = true;
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Sends one request to the kernel and reads its acknowledgement.
fn ask(message: &[u8]) -> Result<(), io::Error> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    send(netlink.as_raw_fd(), message, MsgFlags::empty())?;
    let mut answer = [0; 512];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let error = netlink::acknowledgement(&answer[..length.min(512)]).map_err(io::Error::other)?;
    match Errno::from_raw(error) {
        _ if error == 0 => Ok(()),
        Errno::EEXIST => Ok(()),
        errno => Err(errno.into()),
    }
}

fn list(seen: &[String]) -> String {
    match seen {
        [] => "none: is its driver in the initrd?".to_owned(),
        seen => seen.join(", "),
    }
}
