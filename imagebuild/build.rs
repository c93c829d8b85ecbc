//! Builds stage1, the static program of every initrd, so that `imagebuild` carries its bytes.
//!
//! Nothing of the build around it may reach those bytes: not its flags, not its profile, not the
//! directory it runs in. They follow from the sources, the compiler and the C library alone.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the nested Cargo may know of the one around it: where crates are and how they are reached.
const KEPT: [&str; 6] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_MAKEFLAGS",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
];
/// What a compiler, a wrapper or a coverage tool would take up.
const DROPPED: [&str; 8] = [
    "CFLAGS",
    "HOST_CFLAGS",
    "RUSTC_BOOTSTRAP",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "TARGET_CFLAGS",
];

/// What the bytes of an image follow from, beside stage1: the sources of the builder.
const SOURCES: [&str; 8] = [
    "Cargo.lock",
    "imagebuild/deb/src",
    "imagebuild/disk/src",
    "imagebuild/manifest/src",
    "imagebuild/oci/src",
    "imagebuild/sandbox/src",
    "imagebuild/src",
    "imagebuild/tree/src",
];

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or("no workspace around the crate")?;
    println!(
        "cargo::rustc-env=IMAGEBUILD_SOURCES={:016x}",
        revision(workspace)?
    );
    let out = PathBuf::from(variable("OUT_DIR")?);
    let target = variable("TARGET")?.into_string().map_err(|_| "no target")?;
    for input in [
        "Cargo.lock",
        "Cargo.toml",
        "imagebuild/build.rs",
        "imagebuild/stage1.ld",
        "imagebuild/manifest/Cargo.toml",
        "imagebuild/manifest/src",
        "netboot/stage1/Cargo.toml",
        "netboot/stage1/src",
    ] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(input).display()
        );
    }
    let nested = out.join("stage1");
    let mut cargo = Command::new(variable("CARGO")?);
    cargo
        .current_dir(workspace)
        .args(["build", "--quiet", "--locked", "--package", "stage1"])
        .args(["--profile", "stage1", "--target", &target])
        // Hashing is the one thing that stage1 does by the hundred megabytes.
        .args(["--config", "profile.stage1.package.sha2.opt-level=3"])
        .arg("--target-dir")
        .arg(&nested);
    for (name, _) in env::vars_os() {
        if is_of_this_build(&name) {
            cargo.env_remove(name);
        }
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(workspace, &nested)?);
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("stage1 did not build: {status}").into());
    }
    fs::copy(nested.join(target).join("stage1/stage1"), out.join("init"))?;
    Ok(())
}

/// Digests the sources (FNV-1a), so that an image that another state of the builder made is not
/// taken for one that this builder would make.
fn revision(workspace: &Path) -> Result<u64, Box<dyn Error>> {
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = SOURCES.iter().map(|path| workspace.join(path)).collect();
    for path in &open {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    while let Some(path) = open.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else {
            files.push(path);
        }
    }
    files.sort();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for path in files {
        let name = path.strip_prefix(workspace)?.as_os_str().as_encoded_bytes();
        let bytes = fs::read(&path)?;
        let length = bytes.len().to_le_bytes();
        for byte in name.iter().chain(&length).chain(&bytes) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(hash)
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("Cargo did not set `{name}`"))
}

fn is_of_this_build(name: &OsString) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let kept = KEPT.iter().any(|kept| name.starts_with(kept));
    DROPPED.contains(&name) || name.starts_with("CARGO") && !kept
}

/// Returns the compiler's flags: a static program at a fixed address, in which no path of this
/// machine is left.
fn flags(workspace: &Path, nested: &Path) -> Result<OsString, Box<dyn Error>> {
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => env::home_dir().ok_or("no home directory")?.join(".cargo"),
    };
    // Where more than one prefix fits, the last one counts.
    let mut prefixes = vec![(home.clone(), "/cargo")];
    // Its name says which registry, or which mirror of it, the crates came from.
    for sources in fs::read_dir(home.join("registry/src"))
        .into_iter()
        .flatten()
    {
        prefixes.push((sources?.path(), "/crates"));
    }
    prefixes.push((workspace.to_owned(), "/firstboot"));
    prefixes.push((nested.to_owned(), "/target"));

    let mut flags = OsString::from(
        "-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static\u{1f}-Clink-arg=-Wl,--build-id=none\
         \u{1f}-Cforce-unwind-tables=no\u{1f}-Clink-arg=-Wl,--no-eh-frame-hdr\u{1f}-Clink-arg=-Wl,-T,",
    );
    flags.push(workspace.join("imagebuild/stage1.ld"));
    for (path, name) in prefixes {
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(path);
        flags.push("=");
        flags.push(name);
    }
    Ok(flags)
}
