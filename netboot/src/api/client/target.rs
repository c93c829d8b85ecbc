//! Which appliance is meant, whom to trust about it, and which token to show.
//!
//! It refuses a token on the command line: other users of this computer could read it there.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::auth::FIRST_FILE;
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

/// Where a path comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Somebody named it.
    Person,
    /// It stands in the data directory.
    Data,
}

impl Target {
    /// Returns the data directory, when it is all that names the appliance.
    pub(crate) fn local(&self) -> Option<&Path> {
        let alone = self.url.is_none() && self.token_file.is_none();
        self.data.as_deref().filter(|_| alone)
    }

    fn path(&self, named: Option<&PathBuf>, name: &str) -> Option<(PathBuf, Said)> {
        let here = || Some((self.data.as_ref()?.join(name), Said::Data));
        named.map(|path| (path.clone(), Said::Person)).or_else(here)
    }

    /// Reads the files.
    pub(super) fn find(&self) -> Result<Found, Failure> {
        let ca = self.path(self.ca.as_ref(), CA_FILE);
        let token = self.path(self.token_file.as_ref(), FIRST_FILE);
        let (Some((ca, from)), Some((token, whose))) = (ca, token) else {
            return Err(Failure::new("neither an appliance nor a token is named")
                .exit(Exit::Usage)
                .help(
                    "give `--url`, `--ca` and `--token-file`, or on the appliance itself `--data`; the variables \
                     NETBOOT_URL, NETBOOT_CA, NETBOOT_TOKEN_FILE and NETBOOT_DATA do the same",
                ));
        };
        let url = match (
            &self.url,
            self.data.as_ref().map(|data| data.join(URL_FILE)),
        ) {
            (Some(url), _) => url.clone(),
            (None, Some(file)) if file.exists() => {
                text(&file).map_err(|error| error.failure(Said::Data))?
            }
            (None, _) => DEFAULT_URL.to_owned(),
        };
        Ok(Found {
            url,
            token: read_token(&token, whose)?,
            ca: (ca.clone(), read(&ca).map_err(|error| error.failure(from))?),
        })
    }
}

fn read_token(path: &Path, from: Said) -> Result<SecretString, Failure> {
    let text = Zeroizing::new(text(path).map_err(|error| error.failure(from))?);
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

fn text(path: &Path) -> Result<String, ReadError> {
    let bytes = Zeroizing::new(read(path)?);
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(ReadError {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, error),
        }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    use io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX).read_to_end(&mut bytes))
        .map_err(|source| ReadError {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes)
}

#[derive(Debug, thiserror::Error)]
#[error("failed to read `{}`", path.display())]
struct ReadError {
    path: PathBuf,
    source: io::Error,
}

impl ReadError {
    fn failure(self, from: Said) -> Failure {
        let help = self.help(from);
        Failure::new(self).exit(Exit::Configuration).help(help)
    }

    /// Says what may help, which depends on whether an appliance was ever started there.
    fn help(&self, from: Said) -> String {
        let data = self.path.parent().unwrap_or(Path::new(".")).display();
        let is_token = self.path.file_name().is_some_and(|name| name == FIRST_FILE);
        let started = self.path.with_file_name(crate::store::FILE).exists();
        match (self.source.kind(), from) {
            (io::ErrorKind::NotFound, Said::Person) => {
                "is that its name? The authority is the appliance's `ca.pem`; a token is made by an admin, with \
                 `netboot token create`"
                    .to_owned()
            }
            (io::ErrorKind::NotFound, Said::Data) if is_token && started => format!(
                "give a token of yours with `--token-file`; if the first one is lost, stop the appliance, and \
                 `netboot token reset --data {data}` makes another one"
            ),
            (io::ErrorKind::NotFound, Said::Data) => {
                format!("`netboot serve --data {data}` makes it at its first start")
            }
            _ => "an appliance's own files can be read by the user that it runs as".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_explained_by_who_named_it() {
        let data = tempfile::tempdir().unwrap();
        let help = |name: &str, from| {
            let path = data.path().join(name);
            read(&path).unwrap_err().help(from)
        };
        for name in [FIRST_FILE, CA_FILE] {
            assert!(
                help(name, Said::Data).contains("at its first start"),
                "{name}"
            );
            assert!(!help(name, Said::Person).contains("serve"), "{name}");
        }
        std::fs::write(data.path().join(crate::store::FILE), "").unwrap();
        assert!(help(FIRST_FILE, Said::Data).contains("netboot token reset --data"));
        assert!(!help(FIRST_FILE, Said::Person).contains("reset"));
    }
}
