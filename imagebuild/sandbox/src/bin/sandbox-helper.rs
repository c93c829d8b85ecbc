//! The helper on its own, for the tests of this crate; the builder re-executes itself.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(argument) if argument == image_sandbox::HELPER_ARGUMENT => image_sandbox::child_main(),
        _ => ExitCode::from(2),
    }
}
