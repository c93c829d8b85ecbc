//! The least memory with which a host boots `host` from the network, found by halving in the virtual rack.
//!
//! It refuses to believe in luck: the size that is told booted to a healthy host twice, and what is said not to boot
//! was tried.

use std::io;
use std::process::{Command, ExitStatus, Stdio};

use serde::Serialize;

/// What the design allows beside the root file system, in bytes.
const BESIDE: u64 = 96_000_000;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Hosts of the lab that are booted, one after the other.
    #[arg(long = "host", value_name = "NAME", default_values = ["bios1", "uefi1"])]
    hosts: Vec<String>,
    /// What is taken for too little, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 96)]
    from: u32,
    /// The most that is tried, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    to: u32,
    /// How close the two sizes come, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    step: u32,
    /// Seconds after which a boot has failed.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u32,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A program could not be run.
    #[error("failed to run `{program}`")]
    Program { program: String, source: io::Error },
    /// The image cannot be read.
    #[error("`imagebuild inspect` does not say how large the root of `host` is ({0})")]
    Unknown(ExitStatus),
    /// Even the most is too little.
    #[error("`{host}` does not boot with {mib} MiB: say more with `--to`")]
    TooLittle { host: String, mib: u32 },
}

/// What was found for one host.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Found {
    host: String,
    boots_mib: u32,
    fails_mib: Option<u32>,
    rootfs_bytes: u64,
    goal_met: bool,
}

/// Measures, and prints the table.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let mut found = Vec::new();
    for host in &options.hosts {
        let (boots_mib, fails_mib) = halve(options, host)?;
        let rootfs_bytes = rootfs_bytes()?;
        found.push(Found {
            host: host.clone(),
            boots_mib,
            fails_mib,
            rootfs_bytes,
            goal_met: u64::from(boots_mib) << 20 <= rootfs_bytes + BESIDE,
        });
    }
    if options.json {
        println!("{}", serde_json::to_string(&found).unwrap_or_default());
    } else {
        found.iter().for_each(print);
    }
    Ok(())
}

fn print(found: &Found) {
    let megabytes = |bytes: u64| (bytes + 500_000) / 1_000_000;
    let fails = found.fails_mib;
    println!(
        "{:<8} boots with {} MiB ({} MB), {}; root {} MB, goal {} MB: {}",
        found.host,
        found.boots_mib,
        megabytes(u64::from(found.boots_mib) << 20),
        fails.map_or("less was not tried".to_owned(), |mib| {
            format!("not with {mib} MiB")
        }),
        megabytes(found.rootfs_bytes),
        megabytes(found.rootfs_bytes + BESIDE),
        if found.goal_met { "met" } else { "missed" }
    );
}

/// Halves the distance between what boots and what does not.
fn halve(options: &Options, host: &str) -> Result<(u32, Option<u32>), Error> {
    let (mut boots, mut low, mut fails) = (options.to, options.from, None);
    if !boots_twice(options, host, boots)? {
        let host = host.to_owned();
        return Err(Error::TooLittle { host, mib: boots });
    }
    while low + options.step < boots {
        let middle = low.midpoint(boots);
        if boots_twice(options, host, middle)? {
            boots = middle;
        } else {
            fails = Some(middle);
            low = middle;
        }
    }
    Ok((boots, fails))
}

fn boots_twice(options: &Options, host: &str, mib: u32) -> Result<bool, Error> {
    Ok(boots(options, host, mib)? && boots(options, host, mib)?)
}

/// Boots one host with so much memory; `lab` ends with success when it runs the tree and is healthy.
fn boots(options: &Options, host: &str, mib: u32) -> Result<bool, Error> {
    eprint!("{host} with {mib} MiB: ");
    let mut up = Command::new("timeout");
    up.arg(options.patience.to_string())
        .args(["cargo", "lab", "up", "--host", host, "--ram"])
        .arg(mib.to_string());
    up.stdout(Stdio::null()).stderr(Stdio::null());
    let booted = status(&mut up)?.success();
    eprintln!("{}", if booted { "boots" } else { "does not" });
    Ok(booted)
}

/// The size of the root file system that hosts fetch, as the manifest of the image in the lab's store says.
fn rootfs_bytes() -> Result<u64, Error> {
    let state =
        std::env::var_os("LAB_STATE").map_or_else(|| ".lab".into(), std::path::PathBuf::from);
    let mut inspect = Command::new("cargo");
    inspect
        .args(["run", "--quiet", "--bin", "imagebuild", "--"])
        .args(["inspect", "host", "--json", "--store"])
        .arg(state.join("store"))
        .stderr(Stdio::inherit());
    let output = inspect.output().map_err(failed(&inspect))?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    size(&said).ok_or(Error::Unknown(output.status))
}

/// Finds the artifact of that role, wherever it stands.
fn size(value: &serde_json::Value) -> Option<u64> {
    match value {
        serde_json::Value::Object(fields) => {
            if fields.get("role").and_then(|role| role.as_str()) == Some("rootfs") {
                return fields.get("size")?.as_u64();
            }
            fields.values().find_map(size)
        }
        serde_json::Value::Array(values) => values.iter().find_map(size),
        _ => None,
    }
}

fn status(command: &mut Command) -> Result<ExitStatus, Error> {
    command
        .stdin(Stdio::null())
        .status()
        .map_err(failed(command))
}

fn failed(command: &Command) -> impl FnOnce(io::Error) -> Error + use<> {
    let program = command.get_program().to_string_lossy().into_owned();
    |source| Error::Program { program, source }
}
