//! Secrets of a site, read from where it says they are, at the moment they are needed.
//!
//! It refuses to keep or to print one: what it returns has no `Debug` of its content and is wiped
//! when dropped, and its errors name the secret and its place, never a byte of it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netboot_core::site::{Protocol, SecretSource, Site, Waiver};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use zeroize::Zeroizing;

use crate::site::Files;

mod identity;
#[cfg(test)]
mod tests;

pub(crate) use identity::{Found, OfflineError};
pub use identity::{Identity, IdentityError, Recipient, seal};

/// Largest secret: a chain of certificates with its key fits four times.
pub const LARGEST: usize = 64 * 1024;

/// Largest encrypted file: the secret, its header and its armour.
const LARGEST_SEALED: usize = 2 * LARGEST;

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("failed to read secret `{name}` from {from}")]
pub struct SecretError {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub from: String,
    /// Why.
    #[source]
    pub reason: Reason,
}

/// Why a secret cannot be had from its place.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The site has no such secret.
    #[error("the site has no such secret")]
    Unknown,
    /// The file could not be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may read the file.
    #[error("`{}` may be read by others (mode {mode:04o}); chmod it to 0600 or 0400", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file belongs to somebody else.
    #[error("`{}` belongs to user {owner}, and neither to root nor to the appliance's user", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// It is not given.
    #[error("it is not set")]
    Unset,
    /// systemd gives this process no credentials.
    #[error("systemd gives no credentials here: `$CREDENTIALS_DIRECTORY` is not set")]
    NoCredentials,
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// There is too much in it.
    #[error("it is larger than {LARGEST} bytes")]
    Large,
    /// It does not fit where it goes.
    #[error("it is longer than the {most} bytes that IPMI has for the {what} of host `{host}`")]
    Unfit {
        /// What it is used as.
        what: &'static str,
        /// For which host.
        host: String,
        /// The limit.
        most: usize,
    },
    /// It is not UTF-8, and is needed as text.
    #[error("it is not text")]
    NotText,
    /// It cannot be decrypted.
    #[error(transparent)]
    Sealed(#[from] IdentityError),
}

/// Reads the secrets of a site.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// Where relative files stand: the applied copy first, then the site's own directory.
    directories: Vec<PathBuf>,
    /// Where systemd puts credentials.
    credentials: Option<PathBuf>,
    identity: Option<Arc<Identity>>,
}

impl Secrets {
    /// Reads secrets for an appliance, whose identity is made if there is none.
    ///
    /// # Errors
    /// When the identity can be neither read nor made.
    pub fn open(data: &Path, site: &Path) -> Result<Self, IdentityError> {
        let identity = cfg!(feature = "age")
            .then(|| Identity::open(data).map(Arc::new))
            .transpose()?;
        Ok(Self {
            directories: vec![crate::site::Applied::current(data), site.to_owned()],
            identity,
            ..Self::beside(site)
        })
    }

    /// Reads secrets that need no identity, for a site directory as it lies on a disk.
    #[must_use]
    pub fn beside(site: &Path) -> Self {
        Self {
            directories: vec![site.to_owned()],
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            identity: None,
        }
    }

    /// Returns whom secrets are encrypted for.
    #[must_use]
    pub fn recipient(&self) -> Option<Recipient> {
        self.identity.as_ref().map(|identity| identity.recipient())
    }

    /// Reads a secret that is text; one line end at its end is not part of it.
    ///
    /// # Errors
    /// When it is not there, not safe there, empty, too large or not text.
    pub fn read(&self, site: &Site, name: &str) -> Result<SecretString, SecretError> {
        let bytes = self.bytes(site, name)?;
        let text = std::str::from_utf8(bytes.expose_secret());
        match text {
            Ok(text) => Ok(SecretString::from(text)),
            Err(_) => Err(failed(site, name, Reason::NotText)),
        }
    }

    /// Reads a secret; one line end at its end is not part of it.
    ///
    /// # Errors
    /// When it is not there, not safe there, empty or too large.
    pub fn bytes(&self, site: &Site, name: &str) -> Result<SecretSlice<u8>, SecretError> {
        let bytes = match site.secrets.get(name) {
            Some(source) => self.fetch(source),
            None => Err(Reason::Unknown),
        };
        bytes
            .and_then(|bytes| trimmed(&bytes))
            .map_err(|reason| failed(site, name, reason))
    }

    /// Reads a file of authorities that the site names.
    ///
    /// # Errors
    /// When it cannot be read or is too large.
    pub fn authority(&self, path: &str) -> Result<Arc<[u8]>, Reason> {
        let mut bytes = Zeroizing::new(Vec::new());
        read_at_most(&mut self.find(path)?.0, LARGEST, &mut bytes)
            .map_err(|source| unreadable(Path::new(path), source))?;
        Ok(Arc::from(&bytes[..]))
    }

    /// Tries all secrets of a site that is not served yet, whose files are `files`.
    ///
    /// Returns the name of each that cannot be had or does not fit where it goes, with the reason.
    #[must_use]
    pub fn check(&self, site: &Site, files: &Files) -> Vec<(Arc<str>, Box<SecretError>)> {
        let mut wrong = Vec::new();
        for (name, source) in &site.secrets {
            let sent = source.site_file().filter(|_| source.is_sealed());
            let bytes = match sent.and_then(|path| files.content(path)) {
                Some(sealed) => self.unseal(sealed),
                None => self.fetch(source),
            };
            let checked = bytes
                .and_then(|bytes| trimmed(&bytes))
                .and_then(|secret| fits(site, name, secret.expose_secret()));
            if let Err(reason) = checked {
                wrong.push((Arc::clone(name), Box::new(failed(site, name, reason))));
            }
        }
        wrong
    }

    fn unseal(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Reason> {
        let absent = if cfg!(feature = "age") {
            IdentityError::Absent
        } else {
            IdentityError::NotBuilt
        };
        let identity = self.identity.as_deref().ok_or(absent)?;
        Ok(identity.unseal(sealed, LARGEST)?)
    }

    fn fetch(&self, source: &SecretSource) -> Result<Zeroizing<Vec<u8>>, Reason> {
        let mut bytes = Zeroizing::new(Vec::new());
        match source {
            SecretSource::File(path) if source.is_sealed() => {
                let (mut file, path) = self.find(path)?;
                let mut sealed = Vec::new();
                read_at_most(&mut file, LARGEST_SEALED, &mut sealed)
                    .map_err(|source| unreadable(&path, source))?;
                self.unseal(&sealed)
            }
            SecretSource::File(path) => {
                let (mut file, path) = self.find(path)?;
                private(&file, &path)?;
                read_at_most(&mut file, LARGEST + 1, &mut bytes)
                    .map_err(|source| unreadable(&path, source))?;
                Ok(bytes)
            }
            SecretSource::Environment(name) => {
                let value = std::env::var_os(&**name).ok_or(Reason::Unset)?;
                bytes.extend_from_slice(value.as_bytes());
                Ok(bytes)
            }
            SecretSource::Credential(name) => {
                let directory = self.credentials.as_ref().ok_or(Reason::NoCredentials)?;
                let path = directory.join(&**name);
                let mut file = File::open(&path).map_err(|source| match source.kind() {
                    io::ErrorKind::NotFound => Reason::Unset,
                    _ => unreadable(&path, source),
                })?;
                read_at_most(&mut file, LARGEST + 1, &mut bytes)
                    .map_err(|source| unreadable(&path, source))?;
                Ok(bytes)
            }
        }
    }

    /// Opens a file in the first directory that has it.
    fn find(&self, path: &str) -> Result<(File, PathBuf), Reason> {
        let mut last = None;
        for directory in &self.directories {
            // An absolute path replaces the directory.
            let path = directory.join(path);
            match File::open(&path) {
                Ok(file) => return Ok((file, path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    last = Some(unreadable(&path, error));
                }
                Err(error) => return Err(unreadable(&path, error)),
            }
        }
        Err(last.unwrap_or(Reason::Unset))
    }
}

fn failed(site: &Site, name: &str, reason: Reason) -> SecretError {
    let from = site.secrets.get(name);
    SecretError {
        name: name.to_owned(),
        from: from.map_or_else(|| "nowhere".to_owned(), ToString::to_string),
        reason,
    }
}

fn unreadable(path: &Path, source: io::Error) -> Reason {
    let path = path.to_owned();
    Reason::Read { path, source }
}

/// Checks that a secret fits the BMCs whose password or key it is.
fn fits(site: &Site, name: &str, secret: &[u8]) -> Result<(), Reason> {
    for host in site.hosts() {
        let Some(bmc) = &host.bmc else { continue };
        let mut most = Vec::new();
        if bmc.protocol == Protocol::Ipmi && *bmc.password == *name {
            let old = bmc.waivers.contains(&Waiver::Ipmi15);
            most.push(("password", if old { 16 } else { 20 }));
        }
        if bmc.kg.as_deref() == Some(name) {
            most.push(("Kg key", 20));
        }
        for (what, most) in most {
            if secret.len() > most {
                let host = host.name.to_string();
                return Err(Reason::Unfit { what, host, most });
            }
        }
        if *bmc.password == *name && std::str::from_utf8(secret).is_err() {
            return Err(Reason::NotText);
        }
    }
    Ok(())
}

/// Refuses a file that others may read or that others own; asked of the open file, so that it
/// cannot be exchanged in between.
fn private(file: &File, path: &Path) -> Result<(), Reason> {
    let about = file.metadata().map_err(|source| unreadable(path, source))?;
    let (mode, owner) = (about.permissions().mode() & 0o7777, about.uid());
    let path = path.to_owned();
    if mode & 0o077 != 0 {
        return Err(Reason::Open { path, mode });
    }
    if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
        return Err(Reason::Foreign { path, owner });
    }
    Ok(())
}

/// Reads into memory that was had before, so that no copy of a secret is left where it grew.
fn read_at_most(file: &mut File, most: usize, bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.reserve_exact(most + 1);
    file.take(most as u64 + 1).read_to_end(bytes)?;
    if bytes.len() > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {most} bytes"),
        ));
    }
    Ok(())
}

/// Takes one line end off, which editors and `echo` add.
fn trimmed(bytes: &Zeroizing<Vec<u8>>) -> Result<SecretSlice<u8>, Reason> {
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    match text.len() {
        0 => Err(Reason::Empty),
        length if length > LARGEST => Err(Reason::Large),
        _ => Ok(SecretSlice::from(text.to_vec())),
    }
}
