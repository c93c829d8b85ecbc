//! Network namespaces without names: they live as long as a process holds them, so nothing is left behind.
//!
//! It refuses to change the machine's own network: every command that touches a network runs
//! inside. As root a network namespace is enough; without root it comes with a user namespace.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::process::{MARK, Recorded};

/// A network namespace and the process that holds it open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Namespace {
    /// The process that holds it.
    pub holder: Recorded,
    /// Whether a user namespace came with it.
    pub user: bool,
    /// The lab that it belongs to.
    mark: PathBuf,
}

/// Why there is no namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program could not be started.
    #[error("failed to run `{0}`")]
    Run(String, #[source] io::Error),
    /// The kernel or a policy does not allow it.
    #[error("this machine allows no {kind} namespace here: {reason}")]
    Refused {
        /// Which kind was asked for.
        kind: &'static str,
        /// What `unshare` said.
        reason: String,
    },
    /// A command inside failed.
    #[error("`{command}` failed: {reason}")]
    Command {
        /// The command and its arguments.
        command: String,
        /// What it said.
        reason: String,
    },
}

impl Namespace {
    /// Makes a namespace that carries the mark of the lab with this state directory.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub fn create(mark: &Path) -> Result<Self, Error> {
        let user = !geteuid().is_root();
        let mut unshare = Command::new("unshare");
        if user {
            unshare.args(["--user", "--map-root-user"]);
        }
        Self::hold(unshare, user, mark)
    }

    /// Makes a second namespace that cables can be laid to from this one.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub fn sibling(&self) -> Result<Self, Error> {
        let mut unshare = Command::new("nsenter");
        unshare.args(["--target", &self.holder.pid.to_string()]);
        if self.user {
            unshare.args(["--user", "--preserve-credentials"]);
        }
        unshare.args(["--net", "--", "unshare"]);
        Self::hold(unshare, self.user, &self.mark)
    }

    fn hold(mut unshare: Command, user: bool, mark: &Path) -> Result<Self, Error> {
        let kind = if user { "user and network" } else { "network" };
        // The line on stdout says that the namespaces are there; then the shell becomes `sleep`.
        unshare
            .args([
                "--net",
                "--",
                "sh",
                "-c",
                "echo held; exec sleep infinity >/dev/null 2>&1",
            ])
            .env(MARK, mark)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        detach(&mut unshare);
        let mut child = unshare
            .spawn()
            .map_err(|source| Error::Run("unshare".to_owned(), source))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            // A failed read leaves the line empty, which is refused below with what stderr says.
            BufReader::new(stdout).read_line(&mut line).ok();
        }
        match Recorded::now("namespace", child.id()) {
            Some(holder) if line.trim() == "held" => {
                let namespace = Self {
                    holder,
                    user,
                    mark: mark.to_path_buf(),
                };
                namespace.run(["ip", "link", "set", "lo", "up"])?;
                Ok(namespace)
            }
            _ => Err(Error::Refused {
                kind,
                reason: last_words(child),
            }),
        }
    }

    /// Prepares a command that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.pid.to_string(), "--net"]);
        if self.user {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--").arg(program).env(MARK, &self.mark);
        command
    }

    /// Runs a command inside to its end and returns what it printed.
    ///
    /// # Errors
    /// When it does not start or does not succeed; with what it said on stderr.
    pub fn run<const N: usize>(&self, words: [&str; N]) -> Result<String, Error> {
        let output = self
            .command(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .output()
            .map_err(|source| Error::Run("nsenter".to_owned(), source))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Command {
            command: words.join(" "),
            reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Lets go of it; the kernel removes it with the last process inside.
    pub fn remove(&self) {
        self.holder.end();
    }
}

/// Keeps a child out of our terminal's process group, so that Ctrl-C is ours to handle and a kept lab lives on.
pub fn detach(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    command.process_group(0);
}

fn last_words(mut child: Child) -> String {
    // It is ending already or was never useful.
    child.kill().ok();
    child.wait_with_output().map_or_else(
        |error| error.to_string(),
        |output| String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    )
}
