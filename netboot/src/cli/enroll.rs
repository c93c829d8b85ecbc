//! `netboot enroll`: makes the appliance know a host's BMC, and the site hold its password sealed.
//!
//! It refuses a password on the command line, and to write one that is not encrypted.

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use serde_json::json;
use zeroize::Zeroizing;

use super::order::{Change, Hosts};
use super::{Exit, Failure, Format, SiteDirectory, print};
use crate::api::EnrollOrder;
use crate::api::client::{Client, Target, block_on};
use crate::operate::Enroll as Recording;
use crate::secrets::{self, Found, Identity, LARGEST, OfflineError, Recipient};
use crate::site::Served;

/// Seal secrets for the appliance, and record what BMCs say they are.
#[derive(Debug, Args)]
pub(super) struct Enroll {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Recipient(RecipientVerb),
    Secret(Secret),
    Hosts(HostsVerb),
}

impl Enroll {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        match self.what {
            What::Recipient(verb) => verb.run(),
            What::Secret(verb) => verb.run(),
            What::Hosts(verb) => verb.run(),
        }
    }
}

/// Print whom secrets of the site are encrypted for.
///
/// With `--data`, on the appliance's own computer, no appliance has to run: at the first start its identity is made.
#[derive(Debug, Args)]
struct RecipientVerb {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
}

impl RecipientVerb {
    fn run(self) -> Result<Exit, Failure> {
        let recipient = recipient_of(&self.target)?;
        let text = if self.format.json {
            json!({ "recipient": recipient.to_string() }).to_string()
        } else {
            recipient.to_string()
        };
        print(&format!("{text}\n"))?;
        Ok(Exit::Done)
    }
}

/// Ask the BMCs of hosts who they are, and record it.
///
/// From then on a BMC that says otherwise is refused. What it says can be put into the site too:
/// `serial`, `guid` and `certificate` of `[host.bmc]`.
#[derive(Debug, Args)]
struct HostsVerb {
    #[command(flatten)]
    hosts: Hosts,
    /// Record another identity than the one that is recorded: the machine was exchanged.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    change: Change,
}

impl HostsVerb {
    fn run(self) -> Result<Exit, Failure> {
        let enroll = if self.replace {
            Recording::Replace
        } else {
            Recording::Record
        };
        let hosts = self.hosts.selector()?;
        self.change
            .run("/v1/enroll", &EnrollOrder { hosts, enroll })
    }
}

/// Finds out whom to encrypt for: from the data directory on the appliance's own computer, else from the appliance.
fn recipient_of(target: &Target) -> Result<Recipient, Failure> {
    if let Some(data) = target.local() {
        let (recipient, found) = Identity::recipient_of(data).map_err(offline)?;
        if found == Found::Made {
            let data = data.display();
            eprintln!(
                "`{data}/identity.age` was made: the identity of the appliance that is started there"
            );
        }
        return Ok(recipient);
    }
    let client = Client::open(target)?;
    let served: Served = block_on(async { Ok(client.get("/v1/site").await?) })?;
    let Some(recipient) = served.recipient else {
        return Err(Failure::new(
            "the appliance was built without age, so it has no identity",
        ));
    };
    recipient.parse().map_err(Failure::new)
}

fn offline(error: OfflineError) -> Failure {
    let help = match &error {
        OfflineError::Data(error) => error.help(),
        OfflineError::Identity(_) => None,
    };
    let failure = Failure::new(error).exit(Exit::Configuration);
    match help {
        Some(help) => failure.help(help),
        None => failure,
    }
}

/// Encrypt a secret of the site for the appliance, read from standard input or a file.
///
/// With `--data`, on the appliance's own computer, no appliance has to run: at the first start its identity is made.
#[derive(Debug, Args)]
struct Secret {
    /// Its name, as in `[secret.NAME]`.
    name: String,
    #[command(flatten)]
    site: SiteDirectory,
    /// File that holds it; standard input without one.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Encrypt it for these, and ask no appliance: `age1…`; several may be given.
    #[arg(long, value_name = "RECIPIENT")]
    recipient: Vec<String>,
    /// Replace the encrypted file that is there.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    format: Format,
}

impl Secret {
    fn run(self) -> Result<Exit, Failure> {
        let place = self.place()?;
        let recipients = if self.recipient.is_empty() {
            vec![recipient_of(&self.target)?]
        } else {
            self.given()?
        };
        let secret = match &self.from {
            Some(path) => read_file(path),
            None => read_input(&self.name),
        };
        let secret = secret.map_err(|error| {
            Failure::new(error).help("give it on standard input, or a file with `--from`")
        })?;
        let sealed = secrets::seal(trimmed(&secret)?, &recipients).map_err(Failure::new)?;
        let path = self.site.site.join(&place);
        write(&path, &sealed, self.replace)?;
        self.tell(&place, &path)?;
        Ok(Exit::Done)
    }

    fn given(&self) -> Result<Vec<Recipient>, Failure> {
        let parsed = self.recipient.iter().map(|text| text.parse());
        let all: Result<Vec<Recipient>, _> = parsed.collect();
        all.map_err(|error: secrets::IdentityError| Failure::new(error).exit(Exit::Usage))
    }

    /// Finds where the site says that the secret is; a site need not name it yet.
    fn place(&self) -> Result<String, Failure> {
        match named(&self.site.site, &self.name)? {
            None => Ok(format!("secrets/{}.age", self.name)),
            Some(SecretPlace::Sealed(path)) => Ok(path),
            Some(SecretPlace::Elsewhere(place)) => {
                let text = format!(
                    "[secret.{}] is {place}, which is no encrypted file of the site",
                    self.name
                );
                Err(Failure::new(text).exit(Exit::Configuration))
            }
        }
    }

    fn tell(&self, place: &str, path: &Path) -> Result<(), Failure> {
        let shown = path.display().to_string();
        if self.format.json {
            return print(&format!("{}\n", json!({ "path": shown, "file": place })));
        }
        if named(&self.site.site, &self.name)?.is_none() {
            eprintln!("the site does not name it yet; add:");
            print(&format!("[secret.{}]\nfile = \"{place}\"\n", self.name))
        } else {
            print(&format!("{shown}\n"))
        }
    }
}

/// Where a site says that a secret is.
enum SecretPlace {
    /// In an encrypted file of the site.
    Sealed(String),
    /// Somewhere else, in words.
    Elsewhere(String),
}

/// Finds where the site's text says that a secret is. Files beside it may be missing: the secret
/// that is being made may be all that the site lacks.
fn named(directory: &Path, name: &str) -> Result<Option<SecretPlace>, Failure> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(good) {
        let text = format!("`{name}` is no name of a secret: at most 63 of a-z, 0-9 and `-`");
        return Err(Failure::new(text).exit(Exit::Usage));
    }
    let site = crate::site::check(&crate::site::sources(directory)?)?;
    Ok(site.secrets.get(name).map(|source| {
        match source.site_file().filter(|_| source.is_sealed()) {
            Some(path) => SecretPlace::Sealed(path.to_string()),
            None => SecretPlace::Elsewhere(source.to_string()),
        }
    }))
}

fn trimmed(secret: &[u8]) -> Result<&[u8], Failure> {
    let secret = secret.strip_suffix(b"\n").unwrap_or(secret);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if secret.is_empty() {
        return Err(Failure::new("the secret is empty"));
    }
    Ok(secret)
}

fn read_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    read_at_most(fs::File::open(path)?)
}

/// Reads standard input; at a terminal it asks, and does not show what is typed.
fn read_input(name: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let input = io::stdin();
    if !input.is_terminal() {
        return read_at_most(input.lock());
    }
    eprint!("secret `{name}` (not shown): ");
    let shown = tcgetattr(input.as_fd())?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(input.as_fd(), SetArg::TCSAFLUSH, &hidden)?;
    let mut line = Zeroizing::new(String::with_capacity(LARGEST));
    let read = input.read_line(&mut line);
    tcsetattr(input.as_fd(), SetArg::TCSAFLUSH, &shown)?;
    eprintln!();
    read?;
    Ok(Zeroizing::new(line.as_bytes().to_vec()))
}

fn read_at_most(from: impl io::Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut secret = Zeroizing::new(Vec::with_capacity(LARGEST + 2));
    from.take(LARGEST as u64 + 2).read_to_end(&mut secret)?;
    if secret.len() > LARGEST {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("a secret has at most {LARGEST} bytes"),
        ));
    }
    Ok(secret)
}

/// Writes the sealed file whole, and over another one only when that was asked for.
fn write(path: &Path, sealed: &[u8], replace: bool) -> Result<(), Failure> {
    if path.exists() && !replace {
        let text = format!("`{}` is there already", path.display());
        return Err(Failure::new(text).help("replace it with `--replace`"));
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let written = path
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .open(&unfinished)?;
            file.write_all(sealed)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&unfinished, path));
    written.map_err(|error| Failure::new(format!("failed to write `{}`: {error}", path.display())))
}
