//! `netboot console`: the serial console of a host, in this terminal.
//!
//! It refuses to leave the terminal as it found it useful: whatever ends it, the terminal is restored.

use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use clap::Args;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Exit, Failure};
use crate::api::CONSOLE;
use crate::api::client::{Client, Target, block_on};

/// What leaves the console: Ctrl-], as telnet has it.
const ESCAPE: u8 = 0x1d;

/// Show a host's serial console, and type into it; Ctrl-] leaves it. Only over IPMI: Redfish has none.
#[derive(Debug, Args)]
pub(super) struct Console {
    /// Name of the host.
    host: String,
    #[command(flatten)]
    target: Target,
}

impl Console {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let client = Client::open(&self.target)?;
        let path = format!("/v1/hosts/{}/console", super::query(&self.host));
        let ended = block_on(async {
            let stream = client.upgrade(&path, CONSOLE).await?;
            eprintln!("console of {}; Ctrl-] leaves it", self.host);
            let raw = Raw::enter()?;
            let ended = converse(stream).await;
            drop(raw);
            ended
        })?;
        eprintln!(
            "\n{}",
            match ended {
                End::Left => "left the console",
                End::Closed => "the console was closed by the appliance or the BMC",
            }
        );
        // A thread that waits for a key keeps the runtime, not the process.
        Ok(Exit::Done)
    }
}

/// How a console ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Left,
    Closed,
}

/// Carries bytes both ways until one side ends.
async fn converse(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite,
) -> Result<End, Failure> {
    let (mut from, mut to) = tokio::io::split(stream);
    let mut keys = keys();
    let mut shown = vec![0; 4_096];
    loop {
        tokio::select! {
            read = from.read(&mut shown) => match read {
                Ok(length) if length > 0 => {
                    // A terminal that is stopped stops the console with it, as it should.
                    let mut out = std::io::stdout().lock();
                    out.write_all(&shown[..length]).map_err(Failure::new)?;
                    out.flush().map_err(Failure::new)?;
                }
                _ => return Ok(End::Closed),
            },
            typed = keys.recv() => match typed {
                Some(typed) => {
                    let escape = typed.iter().position(|byte| *byte == ESCAPE);
                    let before = &typed[..escape.unwrap_or(typed.len())];
                    if to.write_all(before).await.is_err() || to.flush().await.is_err() {
                        return Ok(End::Closed);
                    }
                    if escape.is_some() {
                        return Ok(End::Left);
                    }
                }
                None => return Ok(End::Left),
            },
        }
    }
}

/// Reads what is typed, in a thread of its own: a terminal cannot be polled everywhere.
fn keys() -> tokio::sync::mpsc::Receiver<Vec<u8>> {
    use std::io::Read as _;
    let (typed, keys) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut bytes = [0; 256];
        while let Ok(length) = input.read(&mut bytes) {
            if length == 0 || typed.blocking_send(bytes[..length].to_vec()).is_err() {
                return;
            }
        }
    });
    keys
}

/// A terminal that hands on every key; as it was before, when this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Result<Self, Failure> {
        let input = std::io::stdin();
        if !input.is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(input.as_fd()).map_err(Failure::new)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(input.as_fd(), SetArg::TCSANOW, &raw).map_err(Failure::new)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // Nothing can be done about a terminal that has gone.
            tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, before).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_console_that_is_closed_ends() {
        let (ours, theirs) = tokio::io::duplex(64);
        drop(theirs);
        let ended = converse(ours).await;
        assert!(matches!(ended, Ok(End::Closed | End::Left)));
    }
}
