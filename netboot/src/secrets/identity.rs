//! The appliance's own identity: a key of age, for which secrets are encrypted.
//!
//! It refuses to be printed or replaced: it is made once, and what is encrypted for it is lost
//! with it. Only its recipient, the public half, leaves it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::data::{DataError, Held};

/// Name of the identity's file in the data directory.
const FILE: &str = "identity.age";

/// Why there is no identity, or why it does not open something.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file could not be written.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file could not be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("`{}` holds no `AGE-SECRET-KEY-1…`; what was encrypted for it is lost with it, so it is not replaced", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Others may read the file.
    #[error("`{}` may be read by others (mode {mode:04o}); chmod it to 0600", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// There is no identity here to decrypt with.
    #[error("it is encrypted, and there is no identity here to decrypt it with")]
    Absent,
    /// This program was built without age.
    #[error("it is encrypted, and this program was built without the feature `age`")]
    NotBuilt,
    /// It is not an age file.
    #[error("it is not encrypted with age")]
    NotAge,
    /// It is encrypted for others.
    #[error("it is encrypted for others; `netboot enroll recipient` says for whom it must be")]
    NotForUs,
    /// It was damaged or changed after it was encrypted.
    #[error("it was damaged or changed after it was encrypted")]
    Damaged,
    /// What is in it is too large.
    #[error("it is larger than {most} bytes")]
    Large {
        /// The limit.
        most: usize,
    },
    /// It could not be encrypted.
    #[error("failed to encrypt it")]
    Seal(#[source] io::Error),
    /// A text is no recipient.
    #[error("`{text}` is not a recipient such as `age1…`")]
    Recipient {
        /// The text.
        text: String,
    },
}

/// Whether an identity was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It was.
    There,
    /// It was made now.
    Made,
}

/// Why there is no recipient without a running appliance.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OfflineError {
    /// The data directory cannot be had.
    #[error(transparent)]
    Data(#[from] DataError),
    /// There is no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Whom secrets are encrypted for: the public half of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient(String);

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The appliance's own identity.
pub struct Identity(keys::Key);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    /// Reads the identity of a data directory, or makes it.
    ///
    /// # Errors
    /// When it can be neither read nor made. An existing file is never replaced.
    pub fn open(data: &Path) -> Result<Self, IdentityError> {
        let path = data.join(FILE);
        match std::fs::File::open(&path) {
            Ok(file) => Self::read(&file, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(data, path),
            Err(source) => Err(IdentityError::Read { path, source }),
        }
    }

    /// Returns whom to encrypt for, on the appliance's own computer: it needs no appliance that runs, and the identity
    /// is made where there is none, so that a site can have its secrets before its first start. Tells whether it was.
    ///
    /// # Errors
    /// As [`Identity::open`]; and when it is to be made beside a running appliance, or by another user than its own.
    pub(crate) fn recipient_of(data: &Path) -> Result<(Recipient, Found), OfflineError> {
        if data.join(FILE).exists() {
            return Ok((Self::open(data)?.recipient(), Found::There));
        }
        let _held = Held::take_as_owner(data)?;
        Ok((Self::open(data)?.recipient(), Found::Made))
    }

    fn read(file: &std::fs::File, path: PathBuf) -> Result<Self, IdentityError> {
        use std::io::Read as _;
        use std::os::unix::fs::PermissionsExt as _;
        /// A comment or two and a key of 74 characters.
        const LARGEST: u64 = 4096;
        let mut text = Zeroizing::new(String::with_capacity(4096));
        let read = file
            .metadata()
            .and_then(|about| file.take(LARGEST).read_to_string(&mut text).map(|_| about));
        let about = match read {
            Ok(about) => about,
            Err(source) => return Err(IdentityError::Read { path, source }),
        };
        let mode = about.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Open { path, mode });
        }
        let mut lines = text.lines().map(str::trim);
        lines
            .find(|line| line.starts_with("AGE-SECRET-KEY-1"))
            .and_then(keys::parse)
            .map(Self)
            .ok_or(IdentityError::Malformed { path })
    }

    fn create(data: &Path, path: PathBuf) -> Result<Self, IdentityError> {
        let (key, text) = keys::generate().ok_or(IdentityError::NotBuilt)?;
        let written =
            crate::durable::write(data, FILE, text.as_bytes(), crate::durable::Readable::Owner);
        match written {
            Ok(()) => Ok(Self(key)),
            Err(source) => Err(IdentityError::Write { path, source }),
        }
    }

    /// Returns whom secrets are encrypted for.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        Recipient(keys::recipient(&self.0))
    }

    /// Decrypts what was encrypted for it.
    ///
    /// # Errors
    /// When it is not an age file, is for others, was changed, or is too large.
    pub fn unseal(&self, sealed: &[u8], most: usize) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        keys::unseal(&self.0, sealed, most)
    }
}

impl FromStr for Recipient {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        keys::check_recipient(text)?;
        Ok(Self(text.to_owned()))
    }
}

/// Encrypts a secret for recipients, as text that git shows well.
///
/// # Errors
/// When there is no recipient.
pub fn seal(secret: &[u8], recipients: &[Recipient]) -> Result<Vec<u8>, IdentityError> {
    keys::seal(secret, recipients)
}

/// The work of the `age` crate.
#[cfg(feature = "age")]
mod keys {
    use std::io::{Read as _, Write as _};

    use age::armor::{ArmoredReader, ArmoredWriter, Format};
    use age::secrecy::ExposeSecret as _;
    use age::x25519;
    use zeroize::Zeroizing;

    use super::{IdentityError, Recipient};

    pub(super) type Key = x25519::Identity;

    pub(super) fn parse(line: &str) -> Option<Key> {
        line.parse().ok()
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "without the feature there is none"
    )]
    pub(super) fn generate() -> Option<(Key, Zeroizing<String>)> {
        let key = Key::generate();
        let text = Zeroizing::new(format!(
            "# The appliance's identity: secrets of the site are encrypted for its public half.\n# public key: {}\n{}\n",
            key.to_public(),
            key.to_string().expose_secret(),
        ));
        Some((key, text))
    }

    pub(super) fn recipient(key: &Key) -> String {
        key.to_public().to_string()
    }

    pub(super) fn check_recipient(text: &str) -> Result<x25519::Recipient, IdentityError> {
        text.parse().map_err(|_| IdentityError::Recipient {
            text: text.chars().take(80).collect(),
        })
    }

    pub(super) fn unseal(
        key: &Key,
        sealed: &[u8],
        most: usize,
    ) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        let decryptor = age::Decryptor::new_buffered(ArmoredReader::new(sealed))
            .map_err(|_| IdentityError::NotAge)?;
        // A file for a passphrase would ask for as much work as its header says.
        if decryptor.is_scrypt() {
            return Err(IdentityError::NotForUs);
        }
        let reader = decryptor
            .decrypt(std::iter::once(key as &dyn age::Identity))
            .map_err(|error| match error {
                age::DecryptError::NoMatchingKeys => IdentityError::NotForUs,
                _ => IdentityError::Damaged,
            })?;
        let mut secret = Zeroizing::new(Vec::with_capacity(most + 1));
        reader
            .take(most as u64 + 1)
            .read_to_end(&mut secret)
            .map_err(|_| IdentityError::Damaged)?;
        if secret.len() > most {
            return Err(IdentityError::Large { most });
        }
        Ok(secret)
    }

    pub(super) fn seal(secret: &[u8], recipients: &[Recipient]) -> Result<Vec<u8>, IdentityError> {
        let keys: Vec<x25519::Recipient> = recipients
            .iter()
            .map(|recipient| check_recipient(&recipient.0))
            .collect::<Result<_, _>>()?;
        let failed = std::io::Error::other;
        let encryptor =
            age::Encryptor::with_recipients(keys.iter().map(|key| key as &dyn age::Recipient))
                .map_err(|error| IdentityError::Seal(failed(error)))?;
        let mut sealed = Vec::new();
        let written = ArmoredWriter::wrap_output(&mut sealed, Format::AsciiArmor)
            .and_then(|armour| encryptor.wrap_output(armour))
            .and_then(|mut writer| writer.write_all(secret).map(|()| writer))
            .and_then(age::stream::StreamWriter::finish)
            .and_then(ArmoredWriter::finish);
        match written {
            Ok(_) => Ok(sealed),
            Err(error) => Err(IdentityError::Seal(error)),
        }
    }
}

/// Without the `age` crate there is no identity; encrypted secrets say so.
#[cfg(not(feature = "age"))]
mod keys {
    use zeroize::Zeroizing;

    use super::{IdentityError, Recipient};

    /// There is none.
    pub(super) enum Key {}

    pub(super) fn parse(_: &str) -> Option<Key> {
        None
    }

    pub(super) fn generate() -> Option<(Key, Zeroizing<String>)> {
        None
    }

    pub(super) fn recipient(key: &Key) -> String {
        match *key {}
    }

    pub(super) fn check_recipient(_: &str) -> Result<(), IdentityError> {
        Err(IdentityError::NotBuilt)
    }

    pub(super) fn unseal(
        key: &Key,
        _: &[u8],
        _: usize,
    ) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        match *key {}
    }

    pub(super) fn seal(_: &[u8], _: &[Recipient]) -> Result<Vec<u8>, IdentityError> {
        Err(IdentityError::NotBuilt)
    }
}
