//! Decisions in words, for the operator who asks why.
//!
//! It refuses to decide again: it shows what `dhcp::decide` returned.

use std::fmt::{self, Display, Write as _};

use crate::dhcp::{
    Change, Decision, Destination, Lease, LeaseState, Profile, Reply, Request, Value, option_name,
};

/// Says in lines what was asked and what is done about it.
#[must_use]
pub fn explain(request: &Request, decision: &Decision) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    write_all(&mut text, request, decision).ok();
    text
}

fn write_all(out: &mut String, request: &Request, decision: &Decision) -> fmt::Result {
    write_request(out, request)?;
    match decision {
        Decision::Send { reply, change } => {
            write_reply(out, reply)?;
            change
                .as_ref()
                .map_or(Ok(()), |change| write_change(out, change))
        }
        Decision::Note { note, change } => {
            line(
                out,
                "answer",
                format_args!("none is expected ({})", note.label()),
            )?;
            write_change(out, change)
        }
        Decision::Ignore(silence) => line(
            out,
            "answer",
            format_args!("none ({}): {silence}", silence.label()),
        ),
    }
}

fn line(out: &mut String, key: &str, value: impl Display) -> fmt::Result {
    writeln!(out, "{key:<10}{value}")
}

fn write_request(out: &mut String, request: &Request) -> fmt::Result {
    let profile = Profile::of(request);
    let hardware = hex(request.hardware());
    let who = request.mac().map_or(hardware, |mac| mac.to_string());
    let kind = request.kind.label();
    line(
        out,
        "asked",
        format_args!("{kind} by {who}, xid {:08x}", request.xid),
    )?;
    line(
        out,
        "firmware",
        format_args!("{} ({})", profile.firmware.label(), profile.name),
    )?;
    if let Some(class) = &request.vendor_class {
        line(out, "class", text(class))?;
    }
    if let Some(guid) = request.guid {
        line(out, "guid", guid)?;
    }
    if !request.giaddr.is_unspecified() {
        line(out, "relay", request.giaddr)?;
    }
    if let Some(relay) = &request.relay {
        line(out, "option 82", hex(&relay.raw))?;
    }
    let addresses = [
        ("wants", request.requested),
        (
            "has",
            Some(request.ciaddr).filter(|address| !address.is_unspecified()),
        ),
        ("server", request.server),
    ];
    for (key, address) in addresses {
        if let Some(address) = address {
            line(out, key, address)?;
        }
    }
    Ok(())
}

fn write_reply(out: &mut String, reply: &Reply) -> fmt::Result {
    let about = &reply.about;
    let whom = about.host.as_deref().unwrap_or("a stranger");
    let kind = reply.kind.label();
    line(
        out,
        "answer",
        format_args!("{kind} to {whom} in network {}", about.network),
    )?;
    match reply.destination {
        Destination::Relay(to) => line(out, "to", format_args!("relay {to}, port 67")),
        Destination::Client(to) => line(out, "to", format_args!("{to}, port 68")),
        Destination::Hardware { mac, address } => line(
            out,
            "to",
            format_args!("{address}, port 68, in a frame to {mac}"),
        ),
        Destination::Broadcast => line(out, "to", "255.255.255.255, port 68"),
        Destination::Peer(to) => line(out, "to", to),
    }?;
    if !reply.yiaddr.is_unspecified() {
        line(out, "address", reply.yiaddr)?;
    }
    if let Some(form) = about.form {
        line(out, "form", form.text())?;
    }
    if let Some(next) = about.next {
        line(out, "next form", next.text())?;
    }
    if !reply.siaddr.is_unspecified() {
        line(out, "siaddr", reply.siaddr)?;
    }
    if let Some(file) = &reply.file {
        line(out, "file", file)?;
    }
    for (code, value) in &reply.options {
        let name = option_name(*code);
        line(
            out,
            "option",
            format_args!("{code:>3} {name}: {}", Shown(value)),
        )?;
    }
    if let Some(relay) = &reply.relay {
        line(
            out,
            "option",
            format_args!(" 82 relay information: {}", hex(relay)),
        )?;
    }
    Ok(())
}

fn write_change(out: &mut String, change: &Change) -> fmt::Result {
    match change {
        Change::Put(lease) => line(out, "stored", Kept(lease)),
        Change::Withdraw(lease) => line(out, "forgotten", Kept(lease)),
    }
}

struct Kept<'a>(&'a Lease);

impl Display for Kept<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lease {
            address,
            client,
            state,
            until,
            ..
        } = self.0;
        write!(f, "{address} {state} by {client}")?;
        match state {
            LeaseState::Released => Ok(()),
            _ => write!(f, " until {}", until.utc()),
        }
    }
}

struct Shown<'a>(&'a Value);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Address(address) => write!(f, "{address}"),
            Value::Addresses(list) => {
                let list: Vec<_> = list.iter().map(ToString::to_string).collect();
                f.write_str(&list.join(", "))
            }
            Value::Seconds(seconds) => write!(f, "{seconds} s"),
            Value::Text(text) => f.write_str(text),
            Value::Ended(text) => f.write_str(text),
            Value::Bytes(bytes) => f.write_str(&text(bytes)),
        }
    }
}

/// Shows bytes as text when they are, and as digits when not.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.contains(char::is_control) => text.to_owned(),
        _ => hex(bytes),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(digits, "{byte:02x}").ok();
    }
    digits
}
