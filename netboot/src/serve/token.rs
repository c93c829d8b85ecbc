//! The boot token: what one boot of one host may show to be itself, and nothing else.
//!
//! The token is worth one exchange, for the credential that everything else needs. Both refuse to be printed or
//! stored: they are derived from the appliance's key and the boot's id, so that they outlive a restart and stand on no
//! disk.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use image_manifest::{Digest, Hasher};
use subtle::ConstantTimeEq as _;

use crate::durable::{self, Readable};

/// Name of the key's file in the data directory.
const FILE: &str = "boot.key";
const KEY: usize = 32;
/// Block size of SHA-256, which HMAC pads its key to.
const BLOCK: usize = 64;

/// The appliance's key for boot tokens; it has no `Debug` worth the name.
pub(crate) struct TokenKey([u8; KEY]);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system has no randomness to give.
    #[error("failed to make a random key")]
    Random(#[source] getrandom::Error),
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
    /// Others can read the file.
    #[error("`{}` can be read by others (mode {mode:04o}); chmod it to 0600, or remove it, and running boots start again", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds something else.
    #[error("`{}` is not a key of {KEY} bytes; remove it, and running boots start again", path.display())]
    Length {
        /// The file.
        path: PathBuf,
    },
}

impl TokenKey {
    /// Reads the key of a data directory, or makes it.
    pub(crate) fn open(data: &Path) -> Result<Self, KeyError> {
        let path = data.join(FILE);
        match File::open(&path) {
            Ok(file) => Self::read(file, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(data, path),
            Err(source) => Err(KeyError::Read { path, source }),
        }
    }

    fn read(file: File, path: PathBuf) -> Result<Self, KeyError> {
        match durable::open_to_others(&file) {
            Ok(None) => {}
            Ok(Some(mode)) => return Err(KeyError::Open { path, mode }),
            Err(source) => return Err(KeyError::Read { path, source }),
        }
        let mut bytes = Vec::with_capacity(KEY);
        match file.take(KEY as u64 + 1).read_to_end(&mut bytes) {
            Ok(_) => <[u8; KEY]>::try_from(bytes)
                .map(Self)
                .map_err(|_| KeyError::Length { path }),
            Err(source) => Err(KeyError::Read { path, source }),
        }
    }

    fn create(data: &Path, path: PathBuf) -> Result<Self, KeyError> {
        let mut key = [0; KEY];
        getrandom::fill(&mut key).map_err(KeyError::Random)?;
        let written = durable::write(data, FILE, &key, Readable::Owner);
        match written {
            Ok(()) => Ok(Self(key)),
            Err(source) => Err(KeyError::Write { path, source }),
        }
    }

    /// Returns the token of a boot: HMAC-SHA-256 (RFC 2104) over its id, first half, in hex.
    pub(crate) fn token(&self, boot: &str) -> String {
        let digest = self.mac(boot.as_bytes()).hex();
        digest[..32].to_owned()
    }

    /// Tells whether a token is the boot's, in a time that does not depend on where it differs.
    pub(crate) fn admits(&self, boot: &str, token: &str) -> bool {
        self.token(boot).as_bytes().ct_eq(token.as_bytes()).into()
    }

    /// Returns the credential of a boot whose token was exchanged with the nonce of this digest.
    ///
    /// No boot id has a space, so that no credential is a token.
    pub(crate) fn credential(&self, boot: &str, exchanged: &Digest) -> String {
        let message = format!("credential of {boot} for {exchanged}");
        self.mac(message.as_bytes()).hex()
    }

    /// Tells whether a credential is the boot's, in a time that does not depend on where it differs.
    pub(crate) fn believes(&self, boot: &str, exchanged: &Digest, credential: &str) -> bool {
        let expected = self.credential(boot, exchanged);
        expected.as_bytes().ct_eq(credential.as_bytes()).into()
    }

    fn mac(&self, message: &[u8]) -> Digest {
        let pad = |with: u8| {
            let mut block = [with; BLOCK];
            for (byte, key) in block.iter_mut().zip(self.0) {
                *byte ^= key;
            }
            block
        };
        let mut inner = Hasher::new();
        inner.update(&pad(0x36));
        inner.update(message);
        let mut outer = Hasher::new();
        outer.update(&pad(0x5c));
        outer.update(&raw(&inner.finish()));
        outer.finish()
    }
}

/// Returns the bytes of a digest, which itself only shows them as text.
fn raw(digest: &Digest) -> Vec<u8> {
    digest
        .hex()
        .as_bytes()
        .chunks(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// Makes the id of a new boot.
///
/// # Errors
/// When the system has no randomness to give.
pub(crate) fn new_boot_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes)?;
    Ok(format!(
        "{:020x}",
        bytes
            .iter()
            .fold(0_u128, |number, byte| { number << 8 | u128::from(*byte) })
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyed_hash_is_rfc_2104() {
        // RFC 4231 §4.2, whose key of 20 bytes is padded with zeros to ours.
        let mut key = [0; KEY];
        key[..20].fill(0x0b);
        assert_eq!(
            TokenKey(key).mac(b"Hi There").hex(),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
    }

    #[test]
    fn a_token_outlives_a_restart_and_admits_one_boot_only() {
        let data = tempfile::tempdir().unwrap();
        let token = TokenKey::open(data.path()).unwrap().token("b1");
        let again = TokenKey::open(data.path()).unwrap();
        assert!(again.admits("b1", &token));
        for (boot, shown) in [("b2", token.as_str()), ("b1", ""), ("b1", &token[1..])] {
            assert!(!again.admits(boot, shown), "{boot} {shown}");
        }
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(
            !TokenKey::open(elsewhere.path())
                .unwrap()
                .admits("b1", &token)
        );
    }

    #[test]
    fn a_credential_is_of_one_boot_and_one_exchange() {
        let data = tempfile::tempdir().unwrap();
        let key = TokenKey::open(data.path()).unwrap();
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        let credential = key.credential("b1", &one);
        let again = TokenKey::open(data.path()).unwrap();
        assert!(
            again.believes("b1", &one, &credential),
            "it outlives a restart"
        );
        assert!(!key.believes("b1", &two, &credential));
        assert!(!key.believes("b2", &one, &credential));
        assert!(!key.believes("b1", &one, &key.token("b1")));
        assert!(!key.believes("b1", &one, &credential[1..]));
        assert!(!key.admits("b1", &credential));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let data = tempfile::tempdir().unwrap();
        TokenKey::open(data.path()).unwrap();
        let path = data.path().join(FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = TokenKey::open(data.path()).unwrap_err();
        assert!(refused.to_string().contains("0644"), "{refused}");
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        let data = tempfile::tempdir().unwrap();
        durable::write(data.path(), FILE, b"short", Readable::Owner).unwrap();
        let opened = TokenKey::open(data.path());
        assert!(matches!(opened, Err(KeyError::Length { .. })));
    }
}
