//! The power of ten thousand BMCs: our poller, and `ipmitool` forked eight wide.

use std::io::{self, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ipmi::fleet::{Pace, Poller, Reading};
use ipmi::{Bmc, Credentials, Endpoint, PowerState, Protocol, Trust, Waivers};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::usage::{Cost, Who, peak_memory};

const USER: &str = "admin";
const PASSWORD: &str = "secret";
/// How many `ipmitool` processes run at a time.
const WIDE: usize = 8;
/// What the design asks for.
const GOAL: (Duration, u64) = (Duration::from_secs(5), 100 * 1024);

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many BMCs.
    #[arg(long, default_value_t = 10_000)]
    count: usize,
    /// Of one hundred, how many are silent.
    #[arg(long, default_value_t = 5)]
    dead: usize,
    /// How many live BMCs `ipmitool` reads.
    #[arg(long, default_value_t = 200)]
    sample: usize,
    /// How often our side is measured; the table shows each run.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A step of the preparation failed.
    #[error("failed to {what}")]
    Prepare {
        what: &'static str,
        source: io::Error,
    },
    /// The simulator could not be built.
    #[error("failed to build `bmc-sim`")]
    Build,
    /// The simulator ended early.
    #[error("`bmc-sim` serves {found} of {wanted} bmcs")]
    Simulator { wanted: usize, found: usize },
    /// The credentials are of no use.
    #[error("failed to make a bmc")]
    Bmc(#[source] ipmi::Error),
    /// Answers were wrong.
    #[error("{wrong} of {count} answers of {who} are wrong, the first: {first}")]
    Wrong {
        who: &'static str,
        wrong: usize,
        count: usize,
        first: String,
    },
}

fn prepare(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Prepare { what, source }
}

/// What a BMC is known to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    On,
    Off,
    Silent,
}

/// The simulated BMCs; ends with this value.
struct Farm {
    simulator: Child,
    bmcs: Vec<(SocketAddr, Truth)>,
    /// Sockets that never answer: unlike a closed port, a silent BMC is not told by the kernel.
    silent: Vec<UdpSocket>,
}

impl Drop for Farm {
    fn drop(&mut self) {
        if let Err(error) = self.simulator.kill().and_then(|()| self.simulator.wait()) {
            eprintln!("failed to end `bmc-sim`: {error}");
        }
    }
}

/// Measures, and prints the table.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    raise_limit().map_err(|errno| prepare("raise the limit of open files")(errno.into()))?;
    let farm = Farm::start(options)?;
    let mut ours = Vec::new();
    for _ in 0..options.runs.max(1) {
        ours.push(poll(&farm)?);
    }
    let memory = peak_memory().unwrap_or(u64::MAX);
    let live: Vec<_> = farm
        .bmcs
        .iter()
        .filter(|(_, truth)| *truth != Truth::Silent)
        .copied()
        .collect();
    let step = (live.len() / options.sample.max(1)).max(1);
    let sample: Vec<_> = live
        .into_iter()
        .step_by(step)
        .take(options.sample)
        .collect();
    let silent: Vec<_> = farm
        .bmcs
        .iter()
        .filter(|(_, truth)| *truth == Truth::Silent)
        .copied()
        .take(WIDE)
        .collect();
    let theirs = if ipmitool_is_here() {
        Some((fork(&sample)?, sample.len(), fork(&silent)?, silent.len()))
    } else {
        println!("SKIPPED the peer: `ipmitool` is not installed");
        None
    };
    table(&farm, &ours, memory, theirs);
    Ok(())
}

fn raise_limit() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}

impl Farm {
    fn start(options: &Options) -> Result<Self, Error> {
        let count = options.count.max(1);
        let dead = count * options.dead.min(99) / 100;
        let live = count - dead;
        let running = live / 2;
        let simulator = Command::new(simulator()?)
            .args([
                "--count",
                &live.to_string(),
                "--running",
                &running.to_string(),
            ])
            .args(["--user", USER, "--password", PASSWORD])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(prepare("start `bmc-sim`"))?;
        let mut farm = Self {
            simulator,
            bmcs: Vec::with_capacity(count),
            silent: Vec::new(),
        };
        let lines = farm.simulator.stdout.take().map(BufReader::new);
        let answering = lines
            .into_iter()
            .flat_map(io::BufRead::lines)
            .map_while(Result::ok);
        let answering: Vec<SocketAddr> = answering
            .map_while(|line| line.parse().ok())
            .take(live)
            .collect();
        if answering.len() < live {
            return Err(Error::Simulator {
                wanted: live,
                found: answering.len(),
            });
        }
        for _ in 0..dead {
            let silent =
                UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(prepare("open a socket"))?;
            farm.silent.push(silent);
        }
        let mut silent = farm.silent.iter();
        // The silent are spread evenly among the others, as in a rack.
        let every = count.checked_div(dead).unwrap_or(usize::MAX);
        for (index, address) in answering.into_iter().enumerate() {
            let truth = if index >= live - running {
                Truth::On
            } else {
                Truth::Off
            };
            farm.bmcs.push((address, truth));
            if farm.bmcs.len() % every == every - 1
                && let Some(socket) = silent.next()
            {
                let address = socket.local_addr().map_err(prepare("read an address"))?;
                farm.bmcs.push((address, Truth::Silent));
            }
        }
        for socket in silent {
            let address = socket.local_addr().map_err(prepare("read an address"))?;
            farm.bmcs.push((address, Truth::Silent));
        }
        Ok(farm)
    }
}

/// Builds the simulator as this program was built, and tells where it is.
fn simulator() -> Result<PathBuf, Error> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args([
        "build",
        "-q",
        "-p",
        "ipmi",
        "--features",
        "sim",
        "--bin",
        "bmc-sim",
    ]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let status = build
        .current_dir(root)
        .status()
        .map_err(prepare("start cargo"))?;
    if !status.success() {
        return Err(Error::Build);
    }
    let us = std::env::current_exe().map_err(prepare("find this program"))?;
    Ok(us.with_file_name("bmc-sim"))
}

/// One sweep of our poller, every answer checked.
fn poll(farm: &Farm) -> Result<Cost, Error> {
    let bmcs = farm
        .bmcs
        .iter()
        .map(|(address, _)| bmc(*address))
        .collect::<Result<Vec<_>, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(prepare("start a runtime"))?;
    let (readings, cost) = Who::Us.measure(|| {
        runtime.block_on(async { Ok(Poller::bind(Pace::default())?.sweep(&bmcs).await) })
    });
    let readings = readings.map_err(prepare("open the poller's socket"))?;
    let is_true = |(reading, truth): &(&Reading, Truth)| match truth {
        Truth::On => **reading == Reading::Power(PowerState::On),
        Truth::Off => **reading == Reading::Power(PowerState::Off),
        Truth::Silent => matches!(reading, Reading::Failed(ipmi::Error::Unreachable { .. })),
    };
    let pairs = readings
        .iter()
        .zip(farm.bmcs.iter().map(|(_, truth)| *truth));
    let wrong: Vec<_> = pairs.filter(|pair| !is_true(pair)).collect();
    match wrong.first() {
        None => Ok(cost),
        Some(first) => Err(Error::Wrong {
            who: "firstboot",
            wrong: wrong.len(),
            count: readings.len(),
            first: format!("{first:?}"),
        }),
    }
}

fn bmc(address: SocketAddr) -> Result<Arc<Bmc>, Error> {
    let endpoint = Endpoint {
        protocol: Protocol::Ipmi,
        host: address.ip().to_string().into(),
        port: Some(address.port()),
        system: None,
        trust: Trust::FirstUse,
        waivers: Waivers::default(),
        vendor: None,
    };
    let credentials = Credentials {
        user: USER.into(),
        password: PASSWORD.to_owned().into(),
        kg: None,
    };
    Bmc::new(endpoint, credentials)
        .map(Arc::new)
        .map_err(Error::Bmc)
}

fn ipmitool_is_here() -> bool {
    let version = Command::new("ipmitool")
        .arg("-V")
        .stdout(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// `ipmitool` for each BMC, eight at a time.
fn fork(bmcs: &[(SocketAddr, Truth)]) -> Result<Cost, Error> {
    let next = AtomicUsize::new(0);
    let (wrong, cost) = Who::Children.measure(|| {
        thread::scope(|scope| {
            let worker = || {
                let mut wrong = Vec::new();
                while let Some((address, truth)) = bmcs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = ipmitool(*address);
                    if found != *truth {
                        wrong.push(format!("{address} is {truth:?}, not {found:?}"));
                    }
                }
                wrong
            };
            let workers: Vec<_> = (0..WIDE).map(|_| scope.spawn(worker)).collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap_or_default())
                .collect::<Vec<_>>()
        })
    });
    match wrong.first() {
        None => Ok(cost),
        Some(first) => Err(Error::Wrong {
            who: "ipmitool",
            wrong: wrong.len(),
            count: bmcs.len(),
            first: first.clone(),
        }),
    }
}

fn ipmitool(address: SocketAddr) -> Truth {
    let output = Command::new("ipmitool")
        .args(["-I", "lanplus", "-C", "17", "-L", "USER", "-U", USER, "-E"])
        .args([
            "-H",
            &address.ip().to_string(),
            "-p",
            &address.port().to_string(),
        ])
        .args(["power", "status"])
        .env("IPMI_PASSWORD", PASSWORD)
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) if output.stdout.starts_with(b"Chassis Power is on") => Truth::On,
        Ok(output) if output.stdout.starts_with(b"Chassis Power is off") => Truth::Off,
        Ok(_) | Err(_) => Truth::Silent,
    }
}

/// The sampled peer: cost and number of the live, cost and number of the silent.
type Sample = (Cost, usize, Cost, usize);

fn table(farm: &Farm, ours: &[Cost], memory: u64, theirs: Option<Sample>) {
    let count = farm.bmcs.len();
    let silent = farm
        .bmcs
        .iter()
        .filter(|(_, truth)| *truth == Truth::Silent)
        .count();
    let live = count - silent;
    println!("power of {count} bmcs, {silent} of them silent, all answers right");
    println!("{:<44} {:>10} {:>10}", "", "wall", "cpu");
    for cost in ours {
        println!(
            "{:<44} {:>10} {:>10}",
            "firstboot, one task, one socket",
            seconds(cost.wall),
            seconds(cost.cpu)
        );
    }
    println!(
        "{:<44} {:>10}",
        "firstboot, most memory ever (VmHWM)",
        format!("{:.1} MiB", mebibytes(memory))
    );
    let Some(worst) = ours.iter().max_by_key(|cost| cost.wall) else {
        return;
    };
    if let Some((alive, sampled, mute, muted)) = theirs {
        let label = format!("ipmitool x {WIDE}, {sampled} live ones");
        println!(
            "{label:<44} {:>10} {:>10}",
            seconds(alive.wall),
            seconds(alive.cpu)
        );
        let label = format!("ipmitool x {WIDE}, {muted} silent ones");
        println!(
            "{label:<44} {:>10} {:>10}",
            seconds(mute.wall),
            seconds(mute.cpu)
        );
        let scale = |cost: Duration, from: usize, to: usize| cost.as_secs_f64() * ratio(to, from);
        let wall = scale(alive.wall, sampled, live) + scale(mute.wall, muted, silent);
        let cpu = scale(alive.cpu, sampled, live) + scale(mute.cpu, muted, silent);
        println!(
            "{:<44} {:>10} {:>10}",
            "ipmitool, all of them (EXTRAPOLATED)",
            format!("{wall:.0} s"),
            format!("{cpu:.0} s")
        );
        println!(
            "{:<44} {:>10} {:>10}",
            "ipmitool (extrapolated) / firstboot (worst)",
            format!("{:.0} x", wall / worst.wall.as_secs_f64()),
            format!("{:.0} x", cpu / worst.cpu.as_secs_f64()),
        );
    }
    let verdict = |met: bool| if met { "met" } else { "MISSED" };
    println!(
        "goal: under {} s: {}",
        GOAL.0.as_secs(),
        verdict(worst.wall < GOAL.0)
    );
    println!(
        "goal: under {} MiB: {}",
        GOAL.1 / 1024,
        verdict(memory < GOAL.1)
    );
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn mebibytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / 1024.0
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn ratio(to: usize, from: usize) -> f64 {
    if from == 0 {
        0.0
    } else {
        to as f64 / from as f64
    }
}
