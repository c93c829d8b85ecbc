//! What makes a host of an image: its name, its network and who may log in, as files of the
//! running system.
//!
//! All of it goes into memory (the overlay and `/run`), none of it into the image. Text that could
//! mean more than one value to the program that reads it is refused.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use image_manifest::HostConfig;

use crate::cmdline::Mac;

/// An image has a handful of entries; more is no hosts file.
const LONGEST_HOSTS: u64 = 64 * 1024;

/// Why a host could not be made of the image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the host's configuration is unusable: {0}")]
    Unusable(&'static str),
    #[error("failed to write `{path}` for the host")]
    Write { path: PathBuf, source: io::Error },
}

/// One file to write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HostFile {
    /// Where, without a leading slash.
    pub(crate) path: &'static str,
    pub(crate) mode: u32,
    pub(crate) content: String,
}

/// Returns the files of a host; `hosts` is the image's own `/etc/hosts`.
pub(crate) fn files(host: &HostConfig, hosts: &str) -> Result<Vec<HostFile>, Error> {
    check(host)?;
    let file = |path, mode, content| HostFile {
        path,
        mode,
        content,
    };
    let mut files = vec![
        file("etc/hostname", 0o644, format!("{}\n", host.name)),
        file("etc/hosts", 0o644, hosts_file(host, hosts)),
        file(
            "run/systemd/network/10-firstboot.network",
            0o644,
            network(host),
        ),
    ];
    if !host.network.dns.is_empty() {
        files.push(file("etc/resolv.conf", 0o644, resolv_conf(host)));
    }
    if !host.ssh_keys.is_empty() {
        let keys = host.ssh_keys.join("\n") + "\n";
        files.push(file("root/.ssh/authorized_keys", 0o600, keys));
    }
    Ok(files)
}

/// Returns the files of a host that nobody has told anything: its interfaces ask for their addresses, and it has the
/// image's name, if it has one.
pub(crate) fn defaults(root: &Path) -> Vec<HostFile> {
    let mut files = vec![HostFile {
        // The last of all, so that what the image says about an interface counts.
        path: "run/systemd/network/99-firstboot.network",
        mode: 0o644,
        content: "[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=yes\n".to_owned(),
    }];
    if fs::symlink_metadata(root.join("etc/hostname")).is_err() {
        files.push(HostFile {
            path: "etc/hostname",
            mode: 0o644,
            content: "localhost\n".to_owned(),
        });
    }
    files
}

/// Writes a host's files below a root. `/run` is shared with that root already, so its files are
/// written below `run` itself.
pub(crate) fn write(files: &[HostFile], root: &Path, run: &Path) -> Result<(), Error> {
    for file in files {
        let path = match file.path.strip_prefix("run/") {
            Some(rest) => run.join(rest),
            None => root.join(file.path),
        };
        if file.path == "etc/resolv.conf" && leads_into_run(&path) {
            // The image's resolver writes it, from the network file above.
            continue;
        }
        write_one(file, &path).map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}

/// Reads the image's own `/etc/hosts`; one that is missing or no plain file is empty.
pub(crate) fn image_hosts(root: &Path) -> String {
    let path = root.join("etc/hosts");
    let plain = |path: &Path| {
        fs::symlink_metadata(path).is_ok_and(|m| m.is_file() && m.len() <= LONGEST_HOSTS)
    };
    let text = plain(&path)
        .then(|| fs::read_to_string(&path).ok())
        .flatten();
    text.unwrap_or_default()
}

fn write_one(file: &HostFile, path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        let mode = if file.mode == 0o600 { 0o700 } else { 0o755 };
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(parent)?;
    }
    // A link of the image is replaced and never followed: an absolute one would lead out of the
    // new root.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut written = options
        .write(true)
        .create_new(true)
        .mode(file.mode)
        .open(path)?;
    written.write_all(file.content.as_bytes())
}

fn leads_into_run(path: &Path) -> bool {
    fs::read_link(path)
        .is_ok_and(|target| target.components().any(|part| part.as_os_str() == "run"))
}

fn check(host: &HostConfig) -> Result<(), Error> {
    let network = &host.network;
    let checks = [
        (label(&host.name), "its name is no host name"),
        (
            network.mac.parse::<Mac>().is_ok(),
            "its hardware address is malformed",
        ),
        (network.prefix <= 32, "its prefix is longer than 32 bits"),
        (
            network
                .domain
                .as_deref()
                .is_none_or(|name| name.len() < 254 && name.split('.').all(label)),
            "its domain is no domain name",
        ),
        (
            host.ssh_keys
                .iter()
                .all(|key| !key.is_empty() && !key.contains(char::is_control)),
            "an ssh key is not one line of text",
        ),
    ];
    match checks.iter().find(|(good, _)| !good) {
        Some((_, problem)) => Err(Error::Unusable(problem)),
        None => Ok(()),
    }
}

/// One part of a host name (RFC 1123 §2.1).
fn label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn hosts_file(host: &HostConfig, hosts: &str) -> String {
    let text = if hosts.trim().is_empty() {
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned()
    } else {
        hosts.trim_end().to_owned() + "\n"
    };
    let names = match &host.network.domain {
        Some(domain) => format!("{0}.{domain} {0}", host.name),
        None => host.name.clone(),
    };
    text + &format!("{} {names}\n", host.network.address)
}

fn network(host: &HostConfig) -> String {
    let network = &host.network;
    // Bridges and VLANs on top of the interface have its address too, hence the kind.
    let mut lines = vec![
        "[Match]".to_owned(),
        format!("MACAddress={}", network.mac),
        "Kind=!*".to_owned(),
        String::new(),
        "[Network]".to_owned(),
        "DHCP=no".to_owned(),
        format!("Address={}/{}", network.address, network.prefix),
    ];
    lines.extend(
        network
            .router
            .iter()
            .map(|router| format!("Gateway={router}")),
    );
    lines.extend(network.dns.iter().map(|server| format!("DNS={server}")));
    lines.extend(
        network
            .domain
            .iter()
            .map(|domain| format!("Domains={domain}")),
    );
    lines.join("\n") + "\n"
}

fn resolv_conf(host: &HostConfig) -> String {
    let servers = host
        .network
        .dns
        .iter()
        .map(|server| format!("nameserver {server}\n"));
    let search = host
        .network
        .domain
        .iter()
        .map(|domain| format!("search {domain}\n"));
    servers.chain(search).collect()
}

#[cfg(test)]
mod tests;
