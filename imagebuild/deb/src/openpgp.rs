//! Signatures of archives: OpenPGP clear-signed text, checked against a keyring file with a policy of our own.
//!
//! It refuses text outside the armour, hashes weaker than SHA-256, and keys that are expired, revoked or not bound to
//! sign. It knows no web of trust: who is in the keyring file is trusted, no one else.

use std::fmt;
use std::io::Cursor;

use pgp::composed::{CleartextSignedMessage, PublicOrSecret, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{KeyFlags, Signature, SignatureType};
use pgp::types::{KeyDetails, Tag, Timestamp};

/// Largest keyring that is read; Debian's is below 100 KiB.
const MAX_KEYRING: usize = 4 << 20;
/// Largest signed text; Debian's are below 1 MiB.
const MAX_TEXT: usize = 16 << 20;
/// Clocks of signers and readers differ.
const CLOCK_SKEW: i64 = 24 * 3600;

/// How a clear-signed text begins (RFC 9580 §7).
const ARMOUR: &str = "-----BEGIN PGP SIGNED MESSAGE-----";

/// Why a keyring or a signed text is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The keyring holds no OpenPGP certificates.
    #[error("the keyring is not a list of OpenPGP public keys")]
    Keyring(#[source] Option<Box<pgp::errors::Error>>),
    /// The text has no signature at all, as a mirror serves it that strips them.
    #[error("nobody signed it: it is no clear-signed text")]
    Unsigned,
    /// The text is not one clear-signed message and nothing else.
    #[error("the text is not one clear-signed message and nothing else")]
    Malformed(#[source] Option<Box<pgp::errors::Error>>),
    /// No signature is good.
    #[error("no signature is good: {}", .0.join("; "))]
    NotSigned(Vec<String>),
}

/// Why one signature of one key does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("it is no signature of a document")]
    Kind,
    #[error("its hash is weaker than SHA-256")]
    WeakHash,
    #[error("it has no time, or is from the future")]
    Time,
    #[error("it has expired")]
    Expired,
    #[error("its key is not in the keyring")]
    UnknownKey,
    #[error("the text was changed after it was signed")]
    Mismatch,
    #[error("its key has expired")]
    KeyExpired,
    #[error("its key is revoked")]
    KeyRevoked,
    #[error("its key may not sign")]
    KeyUsage,
}

/// Certificates that an archive is trusted by.
#[derive(Clone)]
pub struct Keyring {
    certificates: Vec<SignedPublicKey>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(
                self.certificates
                    .iter()
                    .map(|key| key.fingerprint().to_string()),
            )
            .finish()
    }
}

/// A text that was signed by someone of the keyring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The signed text, and nothing else of what was read.
    pub text: String,
    /// Fingerprints of the keys whose signatures are good.
    pub signers: Vec<String>,
}

impl Keyring {
    /// Parses a keyring, binary or armoured.
    ///
    /// # Errors
    /// When it holds anything but public keys, or none.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_KEYRING {
            return Err(Error::Keyring(None));
        }
        let failed = |error| Error::Keyring(Some(Box::new(error)));
        let (keys, _) = PublicOrSecret::from_reader_many(Cursor::new(bytes)).map_err(failed)?;
        let mut certificates = Vec::new();
        for key in keys {
            match key.map_err(failed)? {
                PublicOrSecret::Public(key) => certificates.push(key),
                PublicOrSecret::Secret(_) => return Err(Error::Keyring(None)),
            }
        }
        if certificates.is_empty() {
            return Err(Error::Keyring(None));
        }
        Ok(Self { certificates })
    }

    /// Checks a clear-signed text as of a moment, in seconds since 1970.
    ///
    /// # Errors
    /// When it is malformed, or no signature is good.
    pub fn verify(&self, message: &str, now: i64) -> Result<Verified, Error> {
        if message.len() > MAX_TEXT {
            return Err(Error::Malformed(None));
        }
        if !message.contains(ARMOUR) {
            return Err(Error::Unsigned);
        }
        let (message, _) = CleartextSignedMessage::from_string(message)
            .map_err(|error| Error::Malformed(Some(Box::new(error))))?;
        let text = message.signed_text();
        let mut signers = Vec::new();
        let mut refusals = Vec::new();
        for signature in message.signatures() {
            match self.check(signature, text.as_bytes(), now) {
                Ok(signer) => signers.push(signer),
                Err(refusal) => {
                    refusals.push(format!("signature of {}: {refusal}", issuer(signature)));
                }
            }
        }
        if signers.is_empty() {
            if refusals.is_empty() {
                refusals.push("there is none".to_owned());
            }
            return Err(Error::NotSigned(refusals));
        }
        // The line end before the signature is not part of what was signed, but it is of the file that was.
        let mut text = text.replace("\r\n", "\n");
        text.push('\n');
        Ok(Verified { text, signers })
    }

    fn check(&self, signature: &Signature, text: &[u8], now: i64) -> Result<String, Refusal> {
        if !matches!(
            signature.typ(),
            Some(SignatureType::Binary | SignatureType::Text)
        ) {
            return Err(Refusal::Kind);
        }
        check_hash(signature)?;
        check_times(signature, now)?;
        let mut worst = Refusal::UnknownKey;
        for certificate in &self.certificates {
            let primary = &certificate.primary_key;
            if is_issuer(signature, primary) {
                match signature.verify(primary, text) {
                    Ok(()) => {
                        check_primary(certificate, now, Duty::Sign)?;
                        return Ok(primary.fingerprint().to_string());
                    }
                    Err(_) => worst = Refusal::Mismatch,
                }
            }
            for subkey in &certificate.public_subkeys {
                if is_issuer(signature, &subkey.key) {
                    match signature.verify(&subkey.key, text) {
                        Ok(()) => {
                            check_primary(certificate, now, Duty::Certify)?;
                            check_subkey(certificate, subkey, now)?;
                            return Ok(subkey.key.fingerprint().to_string());
                        }
                        Err(_) => worst = Refusal::Mismatch,
                    }
                }
            }
        }
        Err(worst)
    }
}

/// What a primary key is needed for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Duty {
    /// It signed the text itself.
    Sign,
    /// It vouches for the subkey that did.
    Certify,
}

fn is_issuer(signature: &Signature, key: &impl KeyDetails) -> bool {
    let fingerprints = signature.issuer_fingerprint();
    if fingerprints.is_empty() {
        let id = key.legacy_key_id();
        signature.issuer_key_id().iter().any(|found| **found == id)
    } else {
        let fingerprint = key.fingerprint();
        fingerprints.iter().any(|found| **found == fingerprint)
    }
}

fn issuer(signature: &Signature) -> String {
    let fingerprint = signature
        .issuer_fingerprint()
        .first()
        .map(ToString::to_string);
    let id = signature.issuer_key_id().first().map(ToString::to_string);
    fingerprint
        .or(id)
        .unwrap_or_else(|| "an unnamed key".to_owned())
}

fn check_hash(signature: &Signature) -> Result<(), Refusal> {
    match signature.hash_alg() {
        Some(
            HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512,
        ) => Ok(()),
        _ => Err(Refusal::WeakHash),
    }
}

fn check_times(signature: &Signature, now: i64) -> Result<(), Refusal> {
    let created = signature.created().ok_or(Refusal::Time)?;
    let created = i64::from(created.as_secs());
    if created > now + CLOCK_SKEW {
        return Err(Refusal::Time);
    }
    match signature.signature_expiration_time() {
        Some(lifetime)
            if lifetime.as_secs() > 0 && created + i64::from(lifetime.as_secs()) <= now =>
        {
            Err(Refusal::Expired)
        }
        _ => Ok(()),
    }
}

/// Whether the self-signature lets the key live now.
fn check_lifetime(key: &impl KeyDetails, binding: &Signature, now: i64) -> Result<(), Refusal> {
    let created = i64::from(key.created_at().as_secs());
    match binding.key_expiration_time() {
        Some(lifetime)
            if lifetime.as_secs() > 0 && created + i64::from(lifetime.as_secs()) <= now =>
        {
            Err(Refusal::KeyExpired)
        }
        _ => Ok(()),
    }
}

/// Flags that are absent forbid nothing (RFC 9580 §5.2.3.29 leaves it to the reader; old keys have none).
fn may_sign(binding: &Signature) -> bool {
    let flags = binding.key_flags();
    flags == KeyFlags::default() || flags.sign()
}

fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.max_by_key(|signature| signature.created().map_or(0, Timestamp::as_secs))
}

fn check_primary(certificate: &SignedPublicKey, now: i64, duty: Duty) -> Result<(), Refusal> {
    let key = &certificate.primary_key;
    let details = &certificate.details;
    if details
        .revocation_signatures
        .iter()
        .any(|revocation| revocation.verify_key(key).is_ok())
    {
        return Err(Refusal::KeyRevoked);
    }
    // SHA-1 is still met in self-signatures of old keys: who holds the keyring file vouches for those.
    let direct = details
        .direct_signatures
        .iter()
        .filter(|signature| signature.verify_key(key).is_ok());
    let users = details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(|signature| {
            signature.is_certification()
                && is_issuer(signature, key)
                && signature
                    .verify_certification(key, Tag::UserId, &user.id)
                    .is_ok()
        })
    });
    let binding = newest(direct.chain(users)).ok_or(Refusal::KeyUsage)?;
    check_lifetime(key, binding, now)?;
    if duty == Duty::Sign && !may_sign(binding) {
        return Err(Refusal::KeyUsage);
    }
    Ok(())
}

fn check_subkey(
    certificate: &SignedPublicKey,
    subkey: &SignedPublicSubKey,
    now: i64,
) -> Result<(), Refusal> {
    let primary = &certificate.primary_key;
    let bound = || {
        subkey.signatures.iter().filter(|signature| {
            signature
                .verify_subkey_binding(primary, &subkey.key)
                .is_ok()
        })
    };
    if bound().any(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation)) {
        return Err(Refusal::KeyRevoked);
    }
    let binding = newest(bound()).ok_or(Refusal::KeyUsage)?;
    check_hash(binding)?;
    check_times(binding, now)?;
    check_lifetime(&subkey.key, binding, now)?;
    // The subkey must have agreed to be bound (RFC 9580 §10.1.5), or a stranger's signatures could be claimed.
    let agreed = binding.embedded_signature().is_some_and(|back| {
        back.verify_primary_key_binding(&subkey.key, primary)
            .is_ok()
    });
    if agreed && binding.key_flags().sign() {
        Ok(())
    } else {
        Err(Refusal::KeyUsage)
    }
}
