//! `lab ssh`, `lab console` and `lab status`: ways into a rack that is up.
//!
//! It refuses to check host keys: the hosts make new ones at every boot, and the network is a wire inside this machine.

use std::env;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::termios::{self, SetArg, Termios};

use crate::appliance::{self, Place};
use crate::hosts::HostView;
use crate::namespace::Namespace;
use crate::qemu::Folder;
use crate::rack::{self, UnknownHost};
use crate::state::{self, State};

/// Why there is no way in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such host.
    #[error(transparent)]
    Unknown(#[from] UnknownHost),
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The appliance could not be asked.
    #[error(transparent)]
    Appliance(#[from] appliance::Error),
    /// Nothing is up.
    #[error("the lab is not up\n  help: `cargo lab up --keep` starts it and leaves it running")]
    Down,
    /// The host has no address.
    #[error("the appliance knows no address of `{0}`")]
    Address(String),
    /// ssh could not be run.
    #[error("failed to run `ssh`")]
    Ssh(#[source] io::Error),
    /// The operator's command line could not be run.
    #[error("failed to run `netboot`")]
    Netboot(#[source] io::Error),
    /// The console is not reachable.
    #[error("failed to reach the console of `{0}`")]
    Console(String, #[source] io::Error),
}

/// Becomes `ssh` to a host; returns only when that fails.
///
/// # Errors
/// When the lab is not up, the host is unknown, or ssh cannot be run.
pub fn ssh(state: &State, place: &Place, name: &str, words: &[String]) -> Result<(), Error> {
    Err(Error::Ssh(
        ssh_command(state, place, name)?.args(words).exec(),
    ))
}

/// Prepares `ssh` to a host; what is run there may be added.
///
/// # Errors
/// When the lab is not up or the host is unknown.
pub fn ssh_command(state: &State, place: &Place, name: &str) -> Result<Command, Error> {
    let slot = rack::slot(name)?;
    let namespace = network(state)?;
    let hosts = place.hosts()?;
    let address = hosts
        .iter()
        .find(|host| host.name == slot.name)
        .and_then(|host| host.address.clone())
        .ok_or_else(|| Error::Address(name.to_owned()))?;
    let mut ssh = namespace.command("ssh");
    ssh.arg("-i").arg(state.ssh_key());
    ssh.args(["-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no"]);
    ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]);
    ssh.args(["-o", "ConnectTimeout=20"]);
    ssh.arg(format!("root@{address}"));
    Ok(ssh)
}

/// Becomes `netboot`, as the operator of the rack runs it; returns only when that fails.
///
/// # Errors
/// When the lab is not up or `netboot` cannot be run.
pub fn operator(state: &State, place: &Place, words: &[String]) -> Result<(), Error> {
    let namespace = network(state)?;
    let mut netboot = place.operator(&namespace);
    Err(Error::Netboot(
        netboot.stdin(Stdio::inherit()).args(words).exec(),
    ))
}

/// Connects the terminal to a host's serial console until Ctrl-] is pressed or input ends.
///
/// # Errors
/// When the lab is not up or the console cannot be reached.
pub fn console(state: &State, name: &str) -> Result<(), Error> {
    let slot = rack::slot(name)?;
    network(state)?;
    let failed = |source| Error::Console(name.to_owned(), source);
    let folder = Folder::of(state.path(), slot.name);
    // The socket's name is relative, because names of sockets are short.
    env::set_current_dir(folder.path()).map_err(failed)?;
    let socket = UnixStream::connect("console.sock").map_err(failed)?;
    eprintln!("lab: console of {name}; Ctrl-] leaves it");
    let terminal = Raw::enter();
    let result = copy_both_ways(&socket).map_err(failed);
    drop(terminal);
    eprintln!();
    result
}

fn copy_both_ways(socket: &UnixStream) -> io::Result<()> {
    const LEAVE: u8 = 0x1d;
    let mut output = socket.try_clone()?;
    let shown = thread::spawn(move || {
        let mut bytes = [0; 4096];
        let mut stdout = io::stdout();
        while let Ok(length @ 1..) = output.read(&mut bytes) {
            if stdout
                .write_all(&bytes[..length])
                .and_then(|()| stdout.flush())
                .is_err()
            {
                break;
            }
        }
    });
    let mut bytes = [0; 256];
    let mut to_host = socket;
    loop {
        let length = io::stdin().read(&mut bytes)?;
        let leave = bytes[..length].iter().position(|&byte| byte == LEAVE);
        to_host.write_all(&bytes[..leave.unwrap_or(length)])?;
        if length == 0 || leave.is_some() {
            break;
        }
    }
    socket.shutdown(Shutdown::Both)?;
    shown.join().ok();
    Ok(())
}

/// The terminal without line editing and signals; as it was when dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Self {
        let stdin = io::stdin();
        let Ok(before) = termios::tcgetattr(stdin.as_fd()) else {
            return Self(None);
        };
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        // Without it the console still works, line by line.
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).ok();
        Self(Some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, before).ok();
        }
    }
}

/// Returns what runs, in words, and what the appliance knows about the hosts.
///
/// # Errors
/// When the state or the appliance's answer cannot be read.
pub fn status(state: &State, place: &Place) -> Result<(Vec<String>, Vec<HostView>), Error> {
    let running = state.running()?;
    let lines = running
        .processes()
        .map(|process| {
            let how = if process.is_alive() {
                "runs"
            } else {
                "has ended"
            };
            format!("{} {how} (process {})", process.name, process.pid)
        })
        .collect();
    let hosts = if running.appliance.is_some() {
        place.hosts()?
    } else {
        Vec::new()
    };
    Ok((lines, hosts))
}

/// Returns the network of a rack that is up.
///
/// # Errors
/// When none is.
pub fn network(state: &State) -> Result<Namespace, Error> {
    state
        .running()?
        .namespace
        .filter(|namespace| namespace.holder.is_alive())
        .ok_or(Error::Down)
}
