//! A program on a terminal of its own: ipmitool speaks SOL with nothing less.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::sim::DEADLINE;

/// A program on a terminal of its own, that ends with the test.
pub(crate) struct Terminal {
    child: Child,
    screen: File,
    shown: String,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Terminal {
    pub(crate) fn run(command: &mut Command) -> Self {
        let pty = nix::pty::openpty(None, None).expect("a terminal");
        let slave = || Stdio::from(pty.slave.try_clone().expect("a terminal"));
        let child = command
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .expect("the program starts");
        Self {
            child,
            screen: File::from(pty.master),
            shown: String::new(),
        }
    }

    /// Reads until this is shown.
    pub(crate) fn until(&mut self, text: &str) {
        let end = Instant::now() + DEADLINE;
        let mut buffer = [0; 4096];
        while !self.shown.contains(text) {
            assert!(Instant::now() < end, "never showed {text}: {}", self.shown);
            match self.screen.read(&mut buffer) {
                Ok(count) => self.shown += &String::from_utf8_lossy(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}: {}", self.shown),
            }
        }
    }

    pub(crate) fn keys(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).expect("a terminal");
    }
}
