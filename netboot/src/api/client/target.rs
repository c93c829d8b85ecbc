//! Which appliance is meant, whom to trust about it, and which token to show.
//!
//! It refuses a token on the command line: other users of this computer could read it there.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::cli::{Exit, Failure};
use crate::tls::CA_FILE;

/// Where the API is unless it is said.
const DEFAULT_URL: &str = "https://127.0.0.1:9443";

/// Name of the file in the data directory that says where the API is.
pub(crate) const URL_FILE: &str = "api.url";

/// Largest file of a token, an address or an authority.
const FILE_MAX: u64 = 256 << 10;

/// Which appliance, and as whom.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Appliance")]
pub(crate) struct Target {
    /// Where the appliance's API is [default: <https://127.0.0.1:9443>, or what the data directory says].
    #[arg(long, value_name = "URL", env = "NETBOOT_URL")]
    url: Option<String>,
    /// The authority of its certificate: its `ca.pem`.
    #[arg(long, value_name = "FILE", env = "NETBOOT_CA")]
    ca: Option<PathBuf>,
    /// The file with your token.
    #[arg(long, value_name = "FILE", env = "NETBOOT_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The appliance's data directory, on the computer where it runs: address, authority and token are taken from it.
    #[arg(long, value_name = "DIR", env = "NETBOOT_DATA")]
    pub(crate) data: Option<PathBuf>,
}

/// What a client needs.
pub(super) struct Found {
    pub(super) url: String,
    pub(super) ca: (PathBuf, Vec<u8>),
    pub(super) token: SecretString,
}

impl Target {
    /// Reads the files.
    pub(super) fn find(&self) -> Result<Found, Failure> {
        let in_data = |name: &str| self.data.as_ref().map(|data| data.join(name));
        let ca = self.ca.clone().or_else(|| in_data(CA_FILE));
        let token = self.token_file.clone().or_else(|| in_data("admin.token"));
        let (Some(ca), Some(token)) = (ca, token) else {
            return Err(Failure::new("neither an appliance nor a token is named")
                .exit(Exit::Usage)
                .help(
                    "give `--url`, `--ca` and `--token-file`, or on the appliance itself `--data`; the variables \
                     NETBOOT_URL, NETBOOT_CA, NETBOOT_TOKEN_FILE and NETBOOT_DATA do the same",
                ));
        };
        let url = match (&self.url, in_data(URL_FILE)) {
            (Some(url), _) => url.clone(),
            (None, Some(file)) if file.exists() => text(&file)?,
            (None, _) => DEFAULT_URL.to_owned(),
        };
        Ok(Found {
            url,
            token: read_token(&token)?,
            ca: (ca.clone(), read(&ca)?),
        })
    }
}

fn read_token(path: &Path) -> Result<SecretString, Failure> {
    let text = Zeroizing::new(text(path)?);
    if let Ok(file) = std::fs::metadata(path)
        && file.mode() & 0o077 != 0
    {
        return Err(
            Failure::new(format!("others can read the token in `{}`", path.display()))
                .exit(Exit::Configuration)
                .help(format!(
                    "chmod 600 {}; if others had a look, revoke it",
                    path.display()
                )),
        );
    }
    if !text.starts_with("fb_") {
        return Err(Failure::new(format!("`{}` holds no token", path.display()))
            .exit(Exit::Configuration)
            .help("a token begins with `fb_` and stands alone in its file"));
    }
    Ok(text.as_str().into())
}

fn text(path: &Path) -> Result<String, Failure> {
    let bytes = Zeroizing::new(read(path)?);
    let text = std::str::from_utf8(&bytes).map_err(Failure::new)?;
    Ok(text.trim().to_owned())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    use io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes))
        .map_err(|source| {
            let help = match source.kind() {
                io::ErrorKind::NotFound => {
                    "`netboot serve` makes it at its first start; ask an admin for a token with \
                                            `netboot token create`"
                }
                _ => "an appliance's own files can be read by the user that it runs as",
            };
            Failure::new(ReadError {
                path: path.to_owned(),
                source,
            })
            .exit(Exit::Configuration)
            .help(help)
        })?;
    Ok(bytes)
}

#[derive(Debug, thiserror::Error)]
#[error("failed to read `{}`", path.display())]
struct ReadError {
    path: PathBuf,
    source: io::Error,
}
