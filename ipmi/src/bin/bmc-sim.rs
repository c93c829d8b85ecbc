//! `bmc-sim`: simulated IPMI BMCs on loopback, for tools, tests and the benchmark.
//!
//! It refuses any address that is not loopback: its password is no secret.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use ipmi::Identity;
use ipmi::crypto::{self, Suite};
use ipmi::sim::ipmi::{Config, Privilege, User, serve};
use ipmi::sim::{Board, Fault, Faults, Memory};
use secrecy::SecretString;
use tokio::net::UdpSocket;

/// Simulates BMCs until it is ended.
///
/// One line is printed for each BMC as soon as it answers: its address and port.
#[derive(Debug, Parser)]
#[command(name = "bmc-sim")]
struct Arguments {
    /// How many.
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// The address of the first, in 127.0.0.0/8.
    #[arg(long, default_value = "127.0.0.1")]
    address: Ipv4Addr,
    /// The port; 0 lets the system choose one for each.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Give each BMC the next address (with one port), or the next port.
    #[arg(long, value_enum, default_value_t = Step::Port)]
    step: Step,
    /// The account's name.
    #[arg(long, default_value = "admin")]
    user: String,
    /// The account's password: that of simulated machines, and so no secret.
    #[arg(long, default_value = "secret")]
    password: String,
    /// How far the account may go.
    #[arg(long, value_enum, default_value_t = Limit::Administrator)]
    privilege: Limit,
    /// The BMC's own key.
    #[arg(long)]
    kg: Option<String>,
    /// Cipher suites that are spoken.
    #[arg(long, value_delimiter = ',', default_value = "3,17", value_parser = suite)]
    suites: Vec<Suite>,
    /// How many sessions a BMC has room for.
    #[arg(long, default_value_t = 16)]
    sessions: usize,
    /// Of the hosts, this many (the last ones) run; the others are off.
    #[arg(long, default_value_t = 0)]
    running: u32,
    /// Print a line on every console this often, in milliseconds.
    #[arg(long)]
    chatter: Option<u64>,
    /// How the BMCs misbehave; may be given several times.
    #[arg(long, value_parser = fault, value_name = FAULTS)]
    fault: Vec<Fault>,
}

const FAULTS: &str = "lag=MS|late=MS|drop=PERCENT|lies-about-power|lies-about-boot|duplicate|short|downgrade|other-identity|refuse|sessions-exhausted";

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    Port,
    Address,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Limit {
    User,
    Operator,
    Administrator,
}

fn suite(text: &str) -> Result<Suite, String> {
    match text {
        "3" => Ok(Suite::Three),
        "17" => Ok(Suite::Seventeen),
        _ => Err("suites are 3 and 17".to_owned()),
    }
}

fn fault(text: &str) -> Result<Fault, String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let number = || value.parse::<u64>().map_err(|error| error.to_string());
    Ok(match name {
        "lag" => Fault::Lag(Duration::from_millis(number()?)),
        "late" => Fault::Late(Duration::from_millis(number()?)),
        "drop" => Fault::Drop(value.parse().map_err(|_| "not a percentage".to_owned())?),
        "lies-about-power" => Fault::LiesAboutPower,
        "lies-about-boot" => Fault::LiesAboutBoot,
        "duplicate" => Fault::Duplicate,
        "short" => Fault::Short,
        "downgrade" => Fault::Downgrade,
        "other-identity" => Fault::OtherIdentity(identity(u32::MAX)),
        "refuse" => Fault::Refuse,
        "sessions-exhausted" => Fault::SessionsExhausted,
        _ => return Err(format!("one of {FAULTS}")),
    })
}

/// The identity of the host with this number; each differs in everything that tells hosts apart.
fn identity(number: u32) -> Identity {
    let [a, b, c, d] = number.to_be_bytes();
    let mut guid = *b"firstboot-sim\0\0\0";
    guid[12..].copy_from_slice(&[a, b, c, d]);
    Identity {
        guid: Some(guid),
        serial: Some(format!("SIM{number:08}")),
        manufacturer: Some("Firstboot".to_owned()),
        product: Some("Simulated host".to_owned()),
        certificate: None,
        macs: vec![[0x52, 0x54, a, b, c, d]],
    }
}

impl Arguments {
    fn config(&self) -> Result<Config, &'static str> {
        let mut config = Config::new(vec![User {
            name: self.user.as_str().into(),
            password: SecretString::from(self.password.as_str()),
            limit: match self.privilege {
                Limit::User => Privilege::User,
                Limit::Operator => Privilege::Operator,
                Limit::Administrator => Privilege::Administrator,
            },
        }]);
        if let Some(kg) = &self.kg {
            config.kg = Some(crypto::key(kg.as_bytes()).ok_or("the key is longer than 20 bytes")?);
        }
        if self.password.len() > 20 {
            return Err("the password is longer than 20 bytes");
        }
        config.suites.clone_from(&self.suites);
        config.sessions = self.sessions;
        Ok(config)
    }

    fn place(&self, number: u32) -> Result<SocketAddr, &'static str> {
        let too_far = "the addresses or ports do not suffice";
        let (address, port) = match self.step {
            Step::Port if self.port == 0 => (self.address, 0),
            Step::Port => {
                let number = u16::try_from(number).map_err(|_| too_far)?;
                (self.address, self.port.checked_add(number).ok_or(too_far)?)
            }
            Step::Address => {
                let address = u32::from(self.address).checked_add(number);
                (Ipv4Addr::from(address.ok_or(too_far)?), self.port)
            }
        };
        if address.is_loopback() {
            Ok(SocketAddr::new(IpAddr::V4(address), port))
        } else {
            Err("only addresses in 127.0.0.0/8 are served")
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = Arc::new(arguments.config()?);
    let faults = Arc::new(Faults::new(arguments.fault.iter().cloned()));
    let mut lines = Vec::new();
    let mut hosts = Vec::new();
    for number in 0..arguments.count {
        let place = arguments.place(number)?;
        let socket = UdpSocket::bind(place)
            .await
            .map_err(|error| format!("failed to listen on {place}: {error}"))?;
        let host = Memory::new(identity(number));
        let runs = number >= arguments.count.saturating_sub(arguments.running);
        let host = Arc::new(if runs { host.running() } else { host });
        let board = Board::new(Arc::clone(&host) as _).with_faults(Arc::clone(&faults));
        writeln!(lines, "{}", socket.local_addr()?)?;
        tokio::spawn(serve(socket, board, Arc::clone(&config)));
        hosts.push(host);
    }
    io::stdout().write_all(&lines)?;
    io::stdout().flush()?;
    let Some(chatter) = arguments.chatter else {
        std::future::pending::<()>().await;
        return Ok(());
    };
    let mut interval = tokio::time::interval(Duration::from_millis(chatter.max(1)));
    for count in 0_u64.. {
        interval.tick().await;
        for host in &hosts {
            host.print(format!("line {count} of the console\r\n"));
        }
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
