//! Keys for signatures: ECDSA over P-256, in the files that openssl and cosign read.
//!
//! A private key comes from a file or the environment, plain, under a passphrase, or encrypted with age. It refuses to
//! take one from the command line, to read a plain one that others may read, to replace a file, and to be printed.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::x25519;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::rand_core::{OsRng, RngCore as _};
use pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
    LineEnding,
};
use zeroize::Zeroizing;

use crate::file;

/// Variable that may hold a private key, as PEM.
pub const KEY: &str = "IMAGEBUILD_KEY";
/// Variable that may hold the passphrase of a private key.
pub const PASSPHRASE: &str = "IMAGEBUILD_KEY_PASSPHRASE";
/// Variable that may name the file with an identity of age.
pub const IDENTITY: &str = "IMAGEBUILD_IDENTITY";

/// Largest file of a key that is read.
const LARGEST: u64 = 64 << 10;

/// A key that signs.
pub struct PrivateKey(SigningKey);

/// A key that others check signatures with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// What opens a key that is not plain.
#[derive(Default)]
pub struct Unlock {
    /// The passphrase, without the end of its line.
    pub passphrase: Option<Zeroizing<String>>,
    /// File with an identity of age.
    pub identity: Option<PathBuf>,
}

/// How a new key is kept.
pub enum Protection {
    /// As it is; only its owner may read the file.
    Plain,
    /// Under a passphrase.
    Passphrase(Zeroizing<String>),
    /// Encrypted for recipients of age, such as `age1…`.
    Age(Vec<String>),
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be used.
    #[error(transparent)]
    File(#[from] file::Error),
    /// No key was given.
    #[error("no key: say `--key FILE`, or put one into the variable `{KEY}`")]
    Absent,
    /// Others may read a private key that is not encrypted.
    #[error("`{}` may be read by others (mode {mode:04o}); chmod it to 0600", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The text is no key.
    #[error("{origin} holds no private key of P-256 in PEM")]
    Private {
        /// The file or variable.
        origin: String,
    },
    /// The text is no public key.
    #[error("`{}` holds no public key of P-256 in PEM", path.display())]
    Public {
        /// The file.
        path: PathBuf,
    },
    /// It is encrypted as cosign does it.
    #[error(
        "{origin} is encrypted in cosign's own way; sign with the key that was imported into it, or with one of `imagebuild key make`"
    )]
    Cosign {
        /// The file or variable.
        origin: String,
    },
    /// A passphrase is needed, or another one.
    #[error(
        "{origin} is encrypted, and {problem}: it is taken from `--passphrase-file FILE` or the variable `{PASSPHRASE}`"
    )]
    Passphrase {
        /// The file or variable.
        origin: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// It could not be decrypted with age.
    #[error(
        "{origin} is encrypted with age, and {problem}: identities are taken from `--identity FILE` or the file that the variable `{IDENTITY}` names"
    )]
    Age {
        /// The file or variable.
        origin: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A text is no recipient.
    #[error("`{0}` is not a recipient such as `age1…`")]
    Recipient(String),
    /// The key could not be encrypted.
    #[error("failed to encrypt the key")]
    Encrypt,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unlock")
    }
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protection")
    }
}

impl Unlock {
    /// Takes what the arguments name, or else what the environment has.
    ///
    /// # Errors
    /// When the file with the passphrase cannot be read.
    pub fn find(passphrase: Option<&Path>, identity: Option<&Path>) -> Result<Self, Error> {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let passphrase = match passphrase {
            Some(path) => {
                let (text, _) = read(path)?;
                let line = text.lines().next().unwrap_or_default();
                Some(Zeroizing::new(line.to_owned()))
            }
            None => variable(PASSPHRASE).map(Zeroizing::new),
        };
        let identity = identity
            .map(Path::to_owned)
            .or_else(|| variable(IDENTITY).map(PathBuf::from));
        Ok(Self {
            passphrase,
            identity,
        })
    }
}

impl PrivateKey {
    /// Makes a key that nobody has.
    #[must_use]
    pub fn generate() -> Self {
        Self(SigningKey::random(&mut OsRng))
    }

    /// Takes the key of a file, or else that of the environment.
    ///
    /// # Errors
    /// When there is none, or it cannot be opened.
    pub fn find(file: Option<&Path>, unlock: &Unlock) -> Result<Self, Error> {
        let Some(path) = file else {
            let text = std::env::var(KEY).map_err(|_| Error::Absent)?;
            let text = Zeroizing::new(text);
            return Self::parse(&text, &format!("the variable `{KEY}`"), unlock);
        };
        let (text, mode) = read(path)?;
        let is_plain = !is_age(&text) && !text.contains("ENCRYPTED");
        if is_plain && mode & 0o077 != 0 {
            let path = path.to_owned();
            return Err(Error::Open { path, mode });
        }
        Self::parse(&text, &format!("`{}`", path.display()), unlock)
    }

    /// Reads a key as PEM, in any of the forms that are known.
    ///
    /// # Errors
    /// When it is none, or what opens it is missing.
    pub fn parse(text: &str, origin: &str, unlock: &Unlock) -> Result<Self, Error> {
        let origin = || origin.to_owned();
        if is_age(text) {
            let inner = open_age(text.as_bytes(), unlock).map_err(|problem| Error::Age {
                origin: origin(),
                problem,
            })?;
            return Self::parse_pem(&inner, &origin(), unlock);
        }
        Self::parse_pem(text, &origin(), unlock)
    }

    fn parse_pem(text: &str, origin: &str, unlock: &Unlock) -> Result<Self, Error> {
        let malformed = || Error::Private {
            origin: origin.to_owned(),
        };
        let kind = text.lines().find(|line| line.starts_with("-----BEGIN "));
        let text = kind.and_then(|kind| text.get(text.find(kind)?..));
        let text = text.ok_or_else(malformed)?.trim_end();
        let key = match kind.unwrap_or_default() {
            "-----BEGIN PRIVATE KEY-----" => p256::SecretKey::from_pkcs8_pem(text).ok(),
            "-----BEGIN EC PRIVATE KEY-----" => p256::SecretKey::from_sec1_pem(text).ok(),
            "-----BEGIN ENCRYPTED PRIVATE KEY-----" => {
                let refused = |problem| Error::Passphrase {
                    origin: origin.to_owned(),
                    problem,
                };
                let passphrase = unlock.passphrase.as_ref();
                let passphrase = passphrase.ok_or_else(|| refused("there is no passphrase"))?;
                let opened = p256::SecretKey::from_pkcs8_encrypted_pem(text, passphrase.as_bytes());
                Some(opened.map_err(|_| refused("the passphrase does not open it"))?)
            }
            kind if kind.contains("ENCRYPTED SIGSTORE") || kind.contains("ENCRYPTED COSIGN") => {
                let origin = origin.to_owned();
                return Err(Error::Cosign { origin });
            }
            // `openssl ecparam -genkey` writes the curve's parameters before the key.
            "-----BEGIN EC PARAMETERS-----" => {
                let key = text.find("-----BEGIN EC PRIVATE KEY-----");
                key.and_then(|at| p256::SecretKey::from_sec1_pem(&text[at..]).ok())
            }
            _ => None,
        };
        key.map(|key| Self(key.into())).ok_or_else(malformed)
    }

    /// Writes it into a new file that only its owner may read.
    ///
    /// # Errors
    /// When the file is there already or cannot be written, and when a recipient is none.
    pub fn save(&self, path: &Path, protection: &Protection) -> Result<(), Error> {
        let secret = p256::SecretKey::from(&self.0);
        let plain = || {
            secret
                .to_pkcs8_pem(LineEnding::LF)
                .map_err(|_| Error::Encrypt)
        };
        let text: Zeroizing<Vec<u8>> = match protection {
            Protection::Plain => Zeroizing::new(plain()?.as_bytes().to_vec()),
            Protection::Passphrase(passphrase) => {
                let sealed = seal_passphrase(&secret, passphrase).ok_or(Error::Encrypt)?;
                Zeroizing::new(sealed.as_bytes().to_vec())
            }
            Protection::Age(recipients) => {
                Zeroizing::new(seal_age(plain()?.as_bytes(), recipients)?)
            }
        };
        write_new(path, &text, 0o600)
    }

    /// Returns the key that others check signatures with.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(*self.0.verifying_key())
    }

    /// Signs a message with ECDSA over SHA-256, and returns the signature in DER. Signing again gives the same (RFC 6979).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_der().as_bytes().to_vec()
    }
}

impl PublicKey {
    /// Loads a key from a file of PEM.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let (text, _) = read(path)?;
        let key = p256::PublicKey::from_public_key_pem(text.trim());
        let key = key.map_err(|_| Error::Public {
            path: path.to_owned(),
        })?;
        Ok(Self(key.into()))
    }

    /// Writes it into a new file of PEM.
    ///
    /// # Errors
    /// When the file is there already or cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let text = p256::PublicKey::from(self.0).to_public_key_pem(LineEnding::LF);
        let text = text.map_err(|_| Error::Encrypt)?;
        write_new(path, text.as_bytes(), 0o644)
    }

    /// Whether a signature in DER over a message is by this key.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let signature = Signature::from_der(signature);
        signature.is_ok_and(|signature| self.0.verify(message, &signature).is_ok())
    }

    /// The point on the curve, uncompressed, as hexadecimal digits: what stage1 knows of it.
    #[must_use]
    pub fn point(&self) -> String {
        use std::fmt::Write as _;
        let point = p256::PublicKey::from(self.0).to_encoded_point(false);
        let mut text = String::with_capacity(130);
        for byte in point.as_bytes() {
            // Writing to a string does not fail.
            write!(text, "{byte:02x}").unwrap_or_default();
        }
        text
    }
}

fn read(path: &Path) -> Result<(Zeroizing<String>, u32), Error> {
    let failed = file::unread(path);
    let file = File::open(path).map_err(&failed)?;
    let mode = file.metadata().map_err(&failed)?.permissions().mode() & 0o7777;
    let mut bytes = Zeroizing::new(Vec::with_capacity(8 << 10));
    file.take(LARGEST)
        .read_to_end(&mut bytes)
        .map_err(&failed)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
    Ok((Zeroizing::new(text.to_owned()), mode))
}

/// Encrypts a key so that openssl opens it too: it refuses scrypt that needs more than 32 MiB, which the crate's own choice
/// (2^17, 8, 1) does. These numbers need 16 MiB, and as much work for who guesses (OWASP's equal of that choice).
fn seal_passphrase(secret: &p256::SecretKey, passphrase: &str) -> Option<Zeroizing<String>> {
    let plain = secret.to_pkcs8_der().ok()?;
    let key = pkcs8::PrivateKeyInfo::try_from(plain.as_bytes()).ok()?;
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    OsRng.fill_bytes(&mut salt);
    OsRng.fill_bytes(&mut iv);
    let cost = scrypt::Params::new(14, 8, 5, 32).ok()?;
    let scheme = pbes2::Parameters::scrypt_aes256cbc(cost, &salt, &iv).ok()?;
    let sealed = key.encrypt_with_params(scheme, passphrase).ok()?;
    sealed.to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF).ok()
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    Ok(written.map_err(file::unwritten(path))?)
}

fn is_age(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----")
        || text.starts_with("age-encryption.org/")
}

fn open_age(sealed: &[u8], unlock: &Unlock) -> Result<Zeroizing<String>, &'static str> {
    let malformed = "it is damaged";
    let decryptor =
        age::Decryptor::new_buffered(ArmoredReader::new(sealed)).map_err(|_| malformed)?;
    let path = unlock.identity.as_deref().ok_or("there is no identity")?;
    let (text, mode) = read(path).map_err(|_| "the identity cannot be read")?;
    if mode & 0o077 != 0 {
        return Err("the identity may be read by others; chmod it to 0600");
    }
    let lines = text.lines().map(str::trim);
    let keys: Vec<x25519::Identity> = lines
        .filter(|line| line.starts_with("AGE-SECRET-KEY-1"))
        .filter_map(|line| line.parse().ok())
        .collect();
    let keys = keys.iter().map(|key| key as &dyn age::Identity);
    let reader = decryptor
        .decrypt(keys)
        .map_err(|_| "no identity opens it")?;
    let mut text = Zeroizing::new(String::with_capacity(8 << 10));
    let taken = reader.take(LARGEST).read_to_string(&mut text);
    taken.map_err(|_| malformed)?;
    Ok(text)
}

fn seal_age(plain: &[u8], recipients: &[String]) -> Result<Vec<u8>, Error> {
    let keys = recipients.iter().map(|text| {
        let key: Result<x25519::Recipient, _> = text.parse();
        key.map_err(|_| Error::Recipient(text.chars().take(80).collect()))
    });
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let keys = keys.iter().map(|key| key as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(keys).map_err(|_| Error::Encrypt)?;
    let mut sealed = Vec::new();
    let written = ArmoredWriter::wrap_output(&mut sealed, Format::AsciiArmor)
        .and_then(|armour| encryptor.wrap_output(armour))
        .and_then(|mut writer| writer.write_all(plain).map(|()| writer))
        .and_then(age::stream::StreamWriter::finish)
        .and_then(ArmoredWriter::finish);
    written.map_err(|_| Error::Encrypt)?;
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_key_is_found_again_in_every_form_and_signs_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate();
        let identity = x25519::Identity::generate();
        let identity_file = directory.path().join("identity");
        let text = identity.to_string();
        write_new(&identity_file, text.expose_secret().as_bytes(), 0o600).unwrap();
        let unlock = Unlock {
            passphrase: Some(Zeroizing::new("open".to_owned())),
            identity: Some(identity_file),
        };
        let forms = [
            ("plain", Protection::Plain),
            (
                "passphrase",
                Protection::Passphrase(Zeroizing::new("open".to_owned())),
            ),
            (
                "age",
                Protection::Age(vec![identity.to_public().to_string()]),
            ),
        ];
        for (name, protection) in &forms {
            let path = directory.path().join(name);
            key.save(&path, protection).unwrap();
            assert_eq!(read(&path).unwrap().1, 0o600, "{name}");
            let again = PrivateKey::find(Some(&path), &unlock).unwrap();
            assert_eq!(again.sign(b"x"), key.sign(b"x"), "{name}");
            assert!(matches!(
                key.save(&path, protection),
                Err(Error::File(file::Error::Write { .. }))
            ));
            let locked = PrivateKey::find(Some(&path), &Unlock::default());
            assert_eq!(locked.is_ok(), *name == "plain", "{name}");
            let wrong = Unlock {
                passphrase: Some(Zeroizing::new("shut".to_owned())),
                identity: None,
            };
            assert_eq!(
                PrivateKey::find(Some(&path), &wrong).is_ok(),
                *name == "plain"
            );
        }
        let public = directory.path().join("key.pub");
        key.public().save(&public).unwrap();
        let public = PublicKey::load(&public).unwrap();
        assert!(public.verify(b"x", &key.sign(b"x")));
        assert!(!public.verify(b"y", &key.sign(b"x")));
        assert!(
            !PrivateKey::generate()
                .public()
                .verify(b"x", &key.sign(b"x"))
        );
        assert_eq!((public.point().len(), &public.point()[..2]), (130, "04"));
        assert!(!format!("{key:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_others_may_read_and_what_is_no_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        PrivateKey::generate()
            .save(&path, &Protection::Plain)
            .unwrap();
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(&path, mode).unwrap();
        let error = PrivateKey::find(Some(&path), &Unlock::default()).unwrap_err();
        assert!(matches!(error, Error::Open { mode: 0o640, .. }), "{error}");
        for (text, expected) in [
            ("", "holds no private key"),
            ("-----BEGIN PRIVATE KEY-----\nx\n", "holds no private key"),
            (
                "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----",
                "cosign's own way",
            ),
            (
                "-----BEGIN AGE ENCRYPTED FILE-----\n",
                "encrypted with age, and it is damaged",
            ),
        ] {
            let error = PrivateKey::parse(text, "`x`", &Unlock::default()).unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
        let error = PrivateKey::generate()
            .save(
                &directory.path().join("new"),
                &Protection::Age(vec!["age1x".to_owned()]),
            )
            .unwrap_err();
        assert!(matches!(error, Error::Recipient(_)), "{error}");
    }
}
