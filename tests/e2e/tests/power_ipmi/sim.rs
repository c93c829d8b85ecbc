//! A simulated BMC, and the tools that speak with it.

use std::fs;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use e2e::rig;
use ipmi::sim::ipmi::{Config, Privilege, User, serve};
use ipmi::sim::{Board, Faults, Memory};
use ipmi::{
    Bmc, BootDevice, BootFirmware, BootOverride, Credentials, Endpoint, Expected, Identity,
    Persistence, Protocol, Trust, Waivers,
};
use secrecy::SecretString;
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;

pub(crate) const USER: &str = "operator";
/// All 20 bytes that IPMI 2.0 has for a password.
pub(crate) const PASSWORD: &str = "canary-S3cret-20-byt";
pub(crate) const KG: &str = "canary-bmc-key";
pub(crate) const SUITES: [&str; 2] = ["3", "17"];
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
pub(crate) const GUID: [u8; 16] = *b"firstboot-sim\x01\x02\x03";
pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0, 0x77, 0, 1];

/// A simulated BMC that ends with the test.
pub(crate) struct Sim {
    pub(crate) runtime: Runtime,
    pub(crate) host: Arc<Memory>,
    pub(crate) faults: Arc<Faults>,
    port: u16,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) fn config(limit: Privilege) -> Config {
    Config::new(vec![User {
        name: USER.into(),
        password: SecretString::from(PASSWORD),
        limit,
    }])
}

/// ipmiconsole 1.6.10 calls a port above 32767 an invalid host name, so the system may not choose one.
async fn free_socket() -> UdpSocket {
    for port in 20000..u16::try_from(i16::MAX).expect("a port") {
        if let Ok(socket) = UdpSocket::bind(("127.0.0.1", port)).await {
            return socket;
        }
    }
    panic!("no port is free");
}

impl Sim {
    pub(crate) fn start(config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let host = Arc::new(Memory::new(Identity {
            guid: Some(GUID),
            serial: Some("SN-0001".to_owned()),
            manufacturer: Some("Contoso".to_owned()),
            product: Some("Model 1".to_owned()),
            certificate: None,
            macs: vec![MAC],
        }));
        let faults = Arc::new(Faults::default());
        let board = Board::new(Arc::clone(&host) as _).with_faults(Arc::clone(&faults));
        let socket = runtime.block_on(free_socket());
        let port = socket.local_addr().expect("an address").port();
        runtime.spawn(serve(socket, board, config));
        let folder = tempfile::tempdir().expect("a directory");
        fs::write(folder.path().join("password"), PASSWORD).expect("a file");
        let freeipmi = format!("username {USER}\npassword {PASSWORD}\n");
        fs::write(folder.path().join("freeipmi.conf"), freeipmi).expect("a file");
        Self {
            runtime,
            host,
            faults,
            port,
            folder,
        }
    }

    pub(crate) fn ipmitool(&self, suite: &str, words: &[&str]) -> Command {
        let mut command = Command::new("ipmitool");
        command
            .args(["-I", "lanplus", "-H", "127.0.0.1", "-U", USER, "-C", suite])
            .args(["-p", &self.port.to_string(), "-N", "2", "-f"])
            .arg(self.folder.path().join("password"))
            .args(words);
        command
    }

    pub(crate) fn freeipmi(&self, program: &str, suite: &str, words: &[&str]) -> String {
        let mut command = Command::new(lab::tools::find(program).expect("it is installed"));
        command
            // Its cache of sensor records.
            .env("HOME", self.folder.path())
            .args(["-D", "LAN_2_0", "-I", suite, "-h"])
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("--config-file")
            .arg(self.folder.path().join("freeipmi.conf"))
            .args(words);
        rig::printed(&rig::run(&mut command))
    }

    /// The other console that others wrote.
    pub(crate) fn ipmiconsole(&self, suite: &str) -> Command {
        let mut command = Command::new(lab::tools::find("ipmiconsole").expect("it is installed"));
        command
            .args(["-I", suite, "-h", &format!("127.0.0.1:{}", self.port)])
            .arg("--config-file")
            .arg(self.folder.path().join("freeipmi.conf"));
        command
    }

    /// Runs ipmitool, which must agree, and returns what it prints.
    pub(crate) fn says(&self, suite: &str, words: &[&str]) -> String {
        rig::printed(&rig::run(&mut self.ipmitool(suite, words)))
    }

    pub(crate) fn refuses(&self, suite: &str, words: &[&str]) -> Output {
        let output = rig::run(&mut self.ipmitool(suite, words));
        assert!(!output.status.success(), "{words:?} was not refused");
        output
    }

    pub(crate) fn bmc(&self, kg: Option<&str>) -> Bmc {
        bmc(self.port, PASSWORD, kg)
    }

    pub(crate) fn expected() -> Expected {
        Expected {
            guid: Some(GUID),
            serial: Some("SN-0001".to_owned()),
            ..Expected::default()
        }
    }
}

pub(crate) fn bmc(port: u16, password: &str, kg: Option<&str>) -> Bmc {
    let endpoint = Endpoint {
        protocol: Protocol::Ipmi,
        host: "127.0.0.1".into(),
        port: Some(port),
        system: None,
        trust: Trust::FirstUse,
        waivers: Waivers::default(),
        vendor: None,
    };
    let credentials = Credentials {
        user: USER.into(),
        password: SecretString::from(password),
        kg: kg.map(|kg| kg.as_bytes().to_vec().into()),
    };
    Bmc::new(endpoint, credentials).expect("credentials that fit")
}

pub(crate) fn network(persistence: Persistence) -> BootOverride {
    BootOverride {
        device: BootDevice::Network,
        persistence,
        firmware: BootFirmware::Uefi,
    }
}
