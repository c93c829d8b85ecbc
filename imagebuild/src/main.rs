//! The program `imagebuild`: locks, builds and verifies images.
//!
//! It refuses to decide anything: the library does, this reads arguments and prints.

mod cli;

use std::process::ExitCode;

use nix::sys::stat::{Mode, umask};

fn main() -> ExitCode {
    // The sandbox's helper is this program too; it must come before any thread.
    let first = std::env::args_os().nth(1);
    if first.is_some_and(|argument| argument == image_sandbox::HELPER_ARGUMENT) {
        return image_sandbox::child_main();
    }
    // Modes of the tree must not follow the caller's habits; files of secrets set theirs anyway.
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    cli::run()
}
