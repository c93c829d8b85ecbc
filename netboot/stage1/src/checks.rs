//! The image's own checks, run on the host that runs the image.
//!
//! It repairs nothing, and what it costs has a bound: a command has its time and all of them together have theirs,
//! and only the first lines of what one says are kept. The checks are read from the image itself, where nothing on
//! the host can change them.

use std::fs::File;
use std::io::{self, PipeReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use image_manifest::{CheckCommand, Checks, FailedCheck};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::systemd;

/// `imagebuild` writes a few kilobytes at most.
const LONGEST: u64 = 256 * 1024;
/// All commands together: heartbeats come in between, and a host that is late with them counts as gone.
const ALL_COMMANDS: Duration = Duration::from_secs(50);
/// How often a command is looked at while it runs.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes of a command's output that are kept; the report has the first line that is not empty.
const OUTPUT: usize = 4096;
/// Characters of a reason.
const REASON: usize = 200;
/// A table of connections that is longer is cut; each has 150 bytes a line, and listeners come first.
const TABLE: u64 = 4 * 1024 * 1024;
/// `TCP_LISTEN` of the kernel's `net/tcp_states.h`.
const LISTENING: &str = "0A";

/// The checks of the image that this host runs.
#[derive(Debug, Default)]
pub(crate) struct Checklist {
    checks: Checks,
    /// Why they could not be read.
    unreadable: Option<String>,
}

impl Checklist {
    /// Reads the checks below the root of an image; an image without any is well.
    pub(crate) fn read(image: &Path) -> Self {
        match read(&image.join(Checks::PATH)) {
            Ok(checks) => Self {
                checks: checks.unwrap_or_default(),
                unreadable: None,
            },
            Err(problem) => Self {
                checks: Checks::default(),
                unreadable: Some(problem),
            },
        }
    }

    /// Returns the names of all checks, in the order in which they are run.
    pub(crate) fn names(&self) -> Vec<String> {
        let units = self.checks.units.iter().map(|unit| unit_check(unit));
        let ports = self.checks.ports.iter().map(|port| port_check(*port));
        let commands = self.checks.commands.iter().map(command_check);
        units.chain(ports).chain(commands).collect()
    }

    /// Returns the checks that fail now.
    pub(crate) fn run(&self) -> Vec<FailedCheck> {
        let mut failed = Vec::new();
        let mut fail = |name: String, reason: String| {
            let reason = reason.chars().take(REASON).collect();
            failed.push(FailedCheck { name, reason });
        };
        if let Some(problem) = &self.unreadable {
            fail("checks of the image".to_owned(), problem.clone());
        }
        for (unit, state) in inactive(&self.checks.units) {
            fail(unit_check(&unit), format!("it is {state}"));
        }
        for port in closed(&self.checks.ports, &listeners()) {
            fail(port_check(port), "nothing listens on it".to_owned());
        }
        let started = Instant::now();
        for check in &self.checks.commands {
            let left = ALL_COMMANDS.saturating_sub(started.elapsed());
            if let Err(reason) = command(check, left) {
                fail(command_check(check), reason);
            }
        }
        failed
    }
}

fn unit_check(unit: &str) -> String {
    format!("unit {unit}")
}

fn port_check(port: u16) -> String {
    format!("port {port}")
}

fn command_check(check: &CheckCommand) -> String {
    format!("command {}", check.name)
}

fn read(path: &Path) -> Result<Option<Checks>, String> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| error.to_string())?,
    };
    let mut text = Vec::new();
    let size = file.take(LONGEST + 1).read_to_end(&mut text);
    let size = size.map_err(|error| error.to_string())? as u64;
    if size > LONGEST {
        return Err("the file is too long".to_owned());
    }
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}

/// Returns the units that are not active, with what they are.
fn inactive(units: &[String]) -> Vec<(String, String)> {
    if units.is_empty() {
        return Vec::new();
    }
    let states = systemd::states(units);
    let state = |at: usize| states.get(at).map_or("unknown", String::as_str);
    let found = units.iter().enumerate().map(|(at, unit)| (unit, state(at)));
    found
        // What is reloaded does its work meanwhile.
        .filter(|(_, state)| !matches!(*state, "active" | "reloading" | "refreshing"))
        .map(|(unit, state)| (unit.clone(), state.to_owned()))
        .collect()
}

/// Returns the kernel's tables of TCP sockets. Nothing is connected to: a server would log it every time.
fn listeners() -> String {
    let table = |path| {
        let mut text = String::new();
        let file = File::open(path).ok()?;
        file.take(TABLE).read_to_string(&mut text).ok()?;
        Some(text)
    };
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    tables.into_iter().filter_map(table).collect()
}

/// Returns the ports that no line of such a table listens on.
fn closed(ports: &[u16], table: &str) -> Vec<u16> {
    let open: Vec<u16> = table.lines().filter_map(listening).collect();
    let closed = ports.iter().filter(|port| !open.contains(port));
    closed.copied().collect()
}

/// Reads the port of a line `sl local_address rem_address st …`, if it is a listener's.
fn listening(line: &str) -> Option<u16> {
    let mut fields = line.split_ascii_whitespace();
    let (_, local, _, state) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    let (_, port) = local.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (state == LISTENING).then_some(port)
}

/// Runs a command, and says what is wrong if it does not end well in its time.
fn command(check: &CheckCommand, left: Duration) -> Result<(), String> {
    let patience = Duration::from_secs(check.timeout_seconds.into()).min(left);
    if patience.is_zero() {
        return Err("the commands before it took all the time there is".to_owned());
    }
    let Some((program, arguments)) = check.run.split_first() else {
        return Err("it names no program".to_owned());
    };
    let (reader, writer) = io::pipe().map_err(|error| error.to_string())?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| errno.to_string())?;
    let second = writer.try_clone().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(second);
    let child = std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn();
    // It holds our ends of the pipe, which would never end.
    drop(command);
    let mut child = child.map_err(|error| format!("it does not start: {error}"))?;
    follow(&mut child, reader, patience)
}

/// Waits for a command, and ends it with all that it started when it takes too long.
fn follow(child: &mut Child, mut reader: PipeReader, patience: Duration) -> Result<(), String> {
    let started = Instant::now();
    let mut said = Vec::new();
    let outcome = loop {
        drain(&mut reader, &mut said);
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break Ok(()),
            Ok(Some(status)) => break Err(status.to_string()),
            Ok(None) if started.elapsed() < patience => thread::sleep(LOOK),
            Ok(None) => break Err(format!("no end after {} s", patience.as_secs())),
            Err(error) => break Err(error.to_string()),
        }
    };
    if outcome.is_err() {
        drain(&mut reader, &mut said);
    }
    // What it left behind in its group ends, too; there is most often nothing left.
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    let ended = group.map(|group| killpg(group, Signal::SIGKILL));
    drop((ended, child.wait()));
    outcome.map_err(|reason| match first_line(&said) {
        Some(line) => format!("{reason}: {line}"),
        None => reason,
    })
}

/// Reads what there is; what is more than is kept is thrown away, so that a talkative command goes on.
fn drain(reader: &mut PipeReader, said: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    // A bound, because a command may write faster than it is read.
    for _ in 0..64 {
        match reader.read(&mut buffer) {
            Ok(read) if read > 0 => {
                let room = OUTPUT.saturating_sub(said.len()).min(read);
                said.extend(&buffer[..room]);
            }
            _ => return,
        }
    }
}

fn first_line(said: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.map(|line| line.chars().filter(|c| !c.is_control()).collect())
}

#[cfg(test)]
mod tests;
