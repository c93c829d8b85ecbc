//! `netboot token`: who may ask the appliance.
//!
//! It refuses to print a token anywhere but where it is asked to: standard output, or a file of its own.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use hyper::Method;
use netboot_core::Timestamp;
use netboot_core::selector::Selector;
use serde_json::json;

use super::table::Table;
use super::{DataDirectory, Exit, Failure, Format, print};
use crate::api::NewToken;
use crate::api::client::{Client, Target, block_on};
use crate::auth::{self, Local, ResetError, Role, TokenView, Wanted};
use crate::clock::now;

/// Make, list and revoke tokens.
#[derive(Debug, Args)]
pub(super) struct Token {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a token; it is shown once.
    Create(Create),
    /// List tokens.
    List(List),
    /// Revoke a token.
    Revoke(Revoke),
    /// Make another first token, when `admin.token` is lost: on the appliance's computer, with the appliance stopped.
    ///
    /// The first tokens that the appliance made before are revoked, others stay. The audit log says who did it.
    Reset(ResetVerb),
}

#[derive(Debug, Args)]
struct ResetVerb {
    #[command(flatten)]
    data: DataDirectory,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct Create {
    /// Its name: it stands in the audit log.
    name: String,
    /// What it may do.
    #[arg(long)]
    role: Role,
    /// To which hosts; to all without it. May be given several times.
    #[arg(long, value_name = "HOSTS")]
    hosts: Vec<String>,
    /// For how long, such as `90d`, `12h`, `30m`; for ever without it.
    #[arg(long, value_name = "TIME", value_parser = span)]
    valid: Option<Duration>,
    /// Write the token into this new file, which only you can read.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Check, and make nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct Revoke {
    /// Its name.
    name: String,
    /// Check, and revoke nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
}

impl Token {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match self.what {
            What::Create(create) => create.run(),
            What::List(list) => list.run(),
            What::Revoke(revoke) => revoke.run(),
            What::Reset(reset) => reset.run(),
        }
    }
}

impl ResetVerb {
    fn run(self) -> Result<Exit, Failure> {
        let (data, by) = (self.data.data, Local::user());
        let done = block_on(async { Ok(auth::reset(&data, &by, now()).await) })?;
        let done = done.map_err(|error| {
            let help = match &error {
                ResetError::Data(error) => error.help(),
                ResetError::Empty { .. } => {
                    Some("give the appliance's own with `--data`".to_owned())
                }
                ResetError::Token(_) | ResetError::Store(_) => None,
            };
            let failure = Failure::new(error);
            match help {
                Some(help) => failure.help(help),
                None => failure,
            }
        })?;
        let file = done.file.display().to_string();
        if self.format.json {
            let json = json!({ "file": file, "made": done.made, "revoked": done.revoked });
            print(&format!("{json}\n"))?;
        }
        for name in &done.revoked {
            eprintln!("token `{name}` revoked");
        }
        eprintln!(
            "token `{}` (admin) made: {file}; start the appliance",
            done.made
        );
        Ok(Exit::Done)
    }
}

impl Create {
    fn run(self) -> Result<Exit, Failure> {
        let hosts = match self.hosts.as_slice() {
            [] => None,
            words => {
                let hosts = Selector::of(words);
                Some(hosts.map_err(|error| Failure::new(error).exit(Exit::Usage))?)
            }
        };
        let wanted = Wanted {
            name: self.name,
            role: self.role,
            hosts,
            valid_seconds: self.valid.map(|valid| valid.as_secs()),
        };
        let client = Client::open(&self.target)?;
        // The file is made first: a token that was made and then cannot be written would be lost.
        let file = match &self.out {
            Some(path) if !self.dry_run => {
                let made = std::fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path);
                Some(made.map_err(|error| {
                    Failure::new(error).help("choose a file that is not there yet")
                })?)
            }
            _ => None,
        };
        let path = with_dry_run("/v1/tokens", self.dry_run);
        let asked = block_on(async {
            Ok(client
                .send::<NewToken>(Method::POST, &path, None, &wanted)
                .await?)
        });
        let mut made = match (asked, &self.out) {
            (Ok(made), _) => made,
            (Err(failure), out) => {
                if let Some(path) = out.as_ref().filter(|_| file.is_some()) {
                    std::fs::remove_file(path).ok();
                }
                return Err(failure);
            }
        };
        if let (Some(mut file), Some(token)) = (file, &made.token) {
            let written = writeln!(file, "{token}").and_then(|()| file.sync_all());
            written.map_err(Failure::new)?;
            zeroize::Zeroize::zeroize(&mut made.token);
            made.token = None;
        }
        if self.format.json {
            let json =
                zeroize::Zeroizing::new(serde_json::to_string(&made).map_err(Failure::new)? + "\n");
            print(&json)?;
        } else if let Some(token) = &made.token {
            print(&zeroize::Zeroizing::new(format!("{token}\n")))?;
        }
        let done = if self.dry_run { "can be made" } else { "made" };
        eprintln!("token `{}` ({}) {done}", made.about.name, made.about.role);
        Ok(Exit::Done)
    }
}

impl List {
    fn run(self) -> Result<Exit, Failure> {
        let client = Client::open(&self.target)?;
        let tokens: Vec<TokenView> = block_on(async { Ok(client.get("/v1/tokens").await?) })?;
        if self.format.json {
            let json = serde_json::to_string(&tokens).map_err(Failure::new)?;
            print(&(json + "\n"))?;
            return Ok(Exit::Done);
        }
        let mut table = Table::new([
            "name", "role", "hosts", "state", "made", "by", "expires", "used",
        ]);
        let at = |ms: Option<u64>| ms.map(|ms| Timestamp(ms).utc()).unwrap_or_default();
        for token in tokens {
            table.row([
                token.name,
                token.role.to_string(),
                token
                    .hosts
                    .map_or("all".to_owned(), |hosts| hosts.to_string()),
                token.state,
                at(Some(token.created_ms)),
                token.by,
                at(token.expires_ms),
                at(token.used_ms),
            ]);
        }
        print(&table.to_string())?;
        Ok(Exit::Done)
    }
}

impl Revoke {
    fn run(self) -> Result<Exit, Failure> {
        let client = Client::open(&self.target)?;
        let path = with_dry_run(
            &format!("/v1/tokens/{}", super::query(&self.name)),
            self.dry_run,
        );
        let view: TokenView = block_on(async {
            Ok(client
                .send(Method::DELETE, &path, None, &serde_json::json!({}))
                .await?)
        })?;
        if self.format.json {
            let json = serde_json::to_string(&view).map_err(Failure::new)?;
            print(&(json + "\n"))?;
        }
        let done = if self.dry_run {
            "can be revoked"
        } else {
            "revoked"
        };
        eprintln!("token `{}` {done}", view.name);
        Ok(Exit::Done)
    }
}

fn with_dry_run(path: &str, dry: bool) -> String {
    let query = if dry { "?dry-run=true" } else { "" };
    format!("{path}{query}")
}

/// Reads `90d`, `12h`, `30m` or `45s`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; it looks like `90d`, `12h`, `30m` or `45s`");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let span = number.checked_mul(seconds).map(Duration::from_secs);
    span.filter(|span| !span.is_zero()).ok_or_else(wrong)
}
