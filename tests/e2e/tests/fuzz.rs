//! The fuzz targets, each for a bounded time on top of its committed seeds.
//!
//! It refuses to need a nightly compiler: the coverage instrumentation is asked for by its own flags.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use e2e::need;
use e2e::shop;

/// What `cargo fuzz` passes, without the sanitizers that only a nightly compiler has.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module \
     -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares \
     -Ccodegen-units=1 --cfg fuzzing";

/// With a target named, build scripts and macros stay without instrumentation.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn build(package: &Path, output: &Path) {
    let status = shop::workspace()
        .cargo()
        .current_dir(package)
        .args([
            "build",
            "--quiet",
            "--release",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(output)
        .env("RUSTFLAGS", INSTRUMENTATION)
        .stdin(Stdio::null())
        .status()
        .expect("cargo starts");
    assert!(status.success(), "the fuzz targets do not build");
}

fn targets(package: &Path) -> Vec<String> {
    let text = fs::read_to_string(package.join("Cargo.toml")).expect("the package's manifest");
    let manifest: toml::Table = text.parse().expect("TOML");
    let binaries = manifest["bin"].as_array().expect("targets");
    binaries
        .iter()
        .map(|binary| binary["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn no_target_fails_in_its_time() {
    if !need::has(&["g++"]) {
        return;
    }
    let root = shop::workspace().root;
    let package = root.join("tests/fuzz");
    let output = root.join("target/fuzz");
    build(&package, &output);
    let seconds = env::var("FUZZ_SECONDS").unwrap_or_else(|_| "8".to_owned());
    let (waiting, failed) = (Mutex::new(targets(&package)), Mutex::new(Vec::new()));
    let work = || {
        while let Some(target) = { waiting.lock().expect("targets").pop() } {
            if let Err(said) = run(&target, &package, &output, &seconds) {
                eprintln!("{target}:\n{said}");
                failed.lock().expect("targets").push(target);
            }
        }
    };
    // Each is one thread.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().expect("targets");
    assert!(
        failed.is_empty(),
        "{failed:?} failed; the inputs are in {}",
        output.join("artifacts").display()
    );
}

fn run(target: &str, package: &Path, output: &Path, seconds: &str) -> Result<(), String> {
    let folder = |kind: &str| -> PathBuf {
        let folder = output.join(kind).join(target);
        fs::create_dir_all(&folder).expect("a directory");
        folder
    };
    let result = Command::new(output.join(TARGET).join("release").join(target))
        .arg(format!("-max_total_time={seconds}"))
        .args([
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-max_len=65536",
            "-print_final_stats=1",
        ])
        .arg(format!(
            "-artifact_prefix={}/",
            folder("artifacts").display()
        ))
        .arg(folder("corpus"))
        .arg(package.join("seeds").join(target))
        .stdin(Stdio::null())
        .output()
        .expect("the target starts");
    let said = String::from_utf8_lossy(&result.stderr).into_owned();
    let runs = said
        .lines()
        .find(|line| line.contains("number_of_executed_units"))
        .unwrap_or("no runs");
    eprintln!("{target}: {runs}");
    if result.status.success() {
        Ok(())
    } else {
        Err(said)
    }
}
