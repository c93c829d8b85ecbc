//! An operator's desk: tokens in files of their own, and curl, which asks the appliance without our client.
//!
//! It refuses to put a token into an argument, where other users could read it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::rig::{Rig, check, run};

/// Where the API of a rack's appliance is.
pub const API: &str = "https://127.0.0.1:9443";

/// An answer of the API.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Value,
}

/// Makes a token with the words of `netboot token create` that follow its name, and returns its file.
///
/// # Panics
/// When the appliance refuses.
#[must_use]
pub fn token(rig: &Rig, name: &str, words: &[&str]) -> PathBuf {
    let path = rig.path(&format!("{name}.token"));
    let file = path.display().to_string();
    let create = ["token", "create", name, "--out", &file];
    check(&rig.netboot(&[&create[..], words].concat()));
    path
}

/// Returns the file of the appliance's first token.
#[must_use]
pub fn admin(rig: &Rig) -> PathBuf {
    rig.place.data.join("admin.token")
}

/// Asks the API with curl, as the owner of a token; what is sent makes it a POST.
///
/// # Panics
/// When curl is not answered.
#[must_use]
pub fn ask(rig: &Rig, token: &Path, path: &str, sent: Option<&Value>) -> Answer {
    let token = fs::read_to_string(token).expect("a token");
    let header = rig.path("curl.header");
    fs::write(&header, format!("Authorization: Bearer {}\n", token.trim())).expect("a header");
    let mut curl = rig.rack.command("curl");
    curl.args(["-sS", "--max-time", "30", "-w", "\n%{http_code}"]);
    curl.arg("--cacert").arg(rig.place.data.join("ca.pem"));
    curl.arg("-H").arg(format!("@{}", header.display()));
    if let Some(sent) = sent {
        let body = rig.path("curl.body");
        fs::write(&body, sent.to_string()).expect("a body");
        curl.args(["-H", "Content-Type: application/json", "--data-binary"]);
        curl.arg(format!("@{}", body.display()));
    }
    let output = run(curl.arg(format!("{API}{path}")));
    check(&output);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("a status");
    Answer {
        status: status.parse().expect("a status"),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
    }
}

/// Returns the newest records of the audit log, oldest first.
///
/// # Panics
/// When the appliance does not show them.
#[must_use]
pub fn audited(rig: &Rig) -> Vec<Value> {
    let output = rig.netboot(&["audit", "list", "--json", "--limit", "1000"]);
    check(&output);
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).expect("a record"))
        .collect()
}
