//! Messages for the person in front of the host, on every console and in the kernel's log.
//!
//! It formats nothing and decides nothing. A message goes through the kernel's log, because that
//! reaches all consoles (`/dev/console` is only the last one) and the journal of the running
//! system; where the kernel's log level keeps it off the consoles it is written there directly.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::sync::OnceLock;

/// The kernel's log and console, once they are open.
static SINKS: OnceLock<Sinks> = OnceLock::new();

/// What the program is called in messages.
const PREFIX: &str = "firstboot";

struct Sinks {
    kernel_log: Option<File>,
    console: Option<File>,
    /// The kernel prints levels below this one on its consoles.
    console_level: u8,
}

/// How much a message matters, as the kernel numbers it.
#[derive(Clone, Copy)]
enum Level {
    Error = 3,
    Warning = 4,
    Info = 6,
}

/// Opens the kernel's log and the console; `/proc` and `/dev` are mounted.
pub(crate) fn open() {
    // User space may log 10 lines in 5 s by default: too few for the reasons of a failing boot.
    // The kernel takes the word with its line end only.
    let unlimited = fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    let open = |path| OpenOptions::new().write(true).open(path).ok();
    let console_level = fs::read_to_string("/proc/sys/kernel/printk")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(7);
    SINKS.get_or_init(|| Sinks {
        kernel_log: open("/dev/kmsg"),
        console: open("/dev/console"),
        console_level,
    });
    if unlimited.is_err() {
        warn("the kernel limits how many messages are shown");
    }
}

/// Gives the kernel's limit on messages back, for the running system.
pub(crate) fn close() {
    if fs::write("/proc/sys/kernel/printk_devkmsg", "ratelimit\n").is_err() {
        warn("the kernel's limit on messages was not restored");
    }
}

/// Says what is going on.
pub(crate) fn info(text: &str) {
    say(Level::Info, text);
}

/// Says what goes wrong and is tried again.
pub(crate) fn warn(text: &str) {
    say(Level::Warning, text);
}

/// Says why the host does not boot.
pub(crate) fn fail(text: &str) {
    say(Level::Error, text);
}

fn say(level: Level, text: &str) {
    let Some(sinks) = SINKS.get() else {
        eprintln!("{PREFIX}: {text}");
        return;
    };
    for line in text.lines() {
        let logged = sinks.kernel_log.as_ref().is_some_and(|mut log| {
            // One write is one record; the kernel cuts records near 1,000 bytes.
            log.write_all(format!("<{}>{PREFIX}: {line}\n", level as u8).as_bytes())
                .is_ok()
        });
        if !logged || level as u8 >= sinks.console_level {
            // There is nowhere left to complain to when this fails.
            sinks
                .console
                .as_ref()
                .map(|mut console| console.write_all(format!("{PREFIX}: {line}\r\n").as_bytes()));
        }
    }
}
