//! The appliance's own authority: a key and a certificate in the data directory.
//!
//! It refuses to be made twice: the key is written first, so that a crash before the certificate is made up for
//! with the same key.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use netboot_core::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::given::{read, read_private};
use super::{CA_FILE, Names, TlsError};
use crate::durable::{self, Readable};

/// Name of the authority's key in the data directory.
const KEY_FILE: &str = "ca.key";

/// When every certificate begins: hosts whose clock lost its battery start in 1970 or 2000, and are not told the
/// time before they ask.
const BEGIN: Timestamp = Timestamp(946_684_800_000);

/// When the authority ends: 2049-12-31, the last date that every reader of certificates understands (RFC 5280
/// §4.1.2.5). Hosts get its digest anew at each boot; to replace it, remove it.
const END: Timestamp = Timestamp(2_524_521_600_000);

/// The appliance's own authority.
#[derive(Debug)]
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// Reads the authority of a data directory, or makes it.
    pub(super) fn open(data: &Path) -> Result<Self, TlsError> {
        let (key_path, path) = (data.join(KEY_FILE), data.join(CA_FILE));
        let key = match (key_path.exists(), path.exists()) {
            (true, _) => {
                let pem = Zeroizing::new(read_private(&key_path)?);
                std::str::from_utf8(&pem)
                    .ok()
                    .and_then(|pem| KeyPair::from_pem(pem).ok())
                    .ok_or_else(|| TlsError::Content {
                        path: key_path.clone(),
                        expected: "private key in PEM",
                    })?
            }
            (false, true) => {
                return Err(TlsError::KeyMissing {
                    key: key_path,
                    certificate: path,
                });
            }
            (false, false) => create_key(data)?,
        };
        let certificate = if path.exists() {
            CertificateDer::from_pem_slice(&read(&path)?).map_err(|_| TlsError::Content {
                path: path.clone(),
                expected: "certificate in PEM",
            })?
        } else {
            let made = parameters()
                .self_signed(&key)
                .map_err(|source| TlsError::Make {
                    what: "the authority's certificate",
                    source,
                })?;
            publish(data, made.der())?;
            made.der().clone()
        };
        let mismatch = || TlsError::Mismatch {
            key: key_path.clone(),
            certificate: path.clone(),
        };
        is_of(&certificate, &key).ok_or_else(mismatch)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| mismatch())?;
        Ok(Self {
            issuer,
            certificate,
        })
    }

    /// Returns the authority's certificate.
    pub(super) fn der(&self) -> &[u8] {
        &self.certificate
    }

    /// Makes a key and a certificate for these names.
    pub(super) fn certify(
        &self,
        names: &Names,
        now: Timestamp,
        valid: Duration,
    ) -> Result<CertifiedKey, TlsError> {
        let failed = |source| TlsError::Make {
            what: "the server's certificate",
            source,
        };
        let names_only: Vec<String> = names.names.iter().cloned().collect();
        let mut parameters = CertificateParams::new(names_only).map_err(failed)?;
        let addresses = names.addresses.iter().copied().map(SanType::IpAddress);
        parameters.subject_alt_names.extend(addresses);
        parameters
            .distinguished_name
            .push(DnType::CommonName, "Firstboot appliance");
        parameters.not_before = date(BEGIN);
        parameters.not_after = date(now.after(valid).min(END));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(failed)?;
        let key = PrivateKeyDer::from(key);
        let key = ring::sign::any_supported_type(&key).map_err(TlsError::Setup)?;
        // The authority is sent too: a host knows its digest only.
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        Ok(CertifiedKey::new(chain, key))
    }
}

/// Writes the certificate that operators are to trust, unless it stands there already.
pub(super) fn publish(data: &Path, der: &[u8]) -> Result<(), TlsError> {
    let text = pem(der);
    let path = data.join(CA_FILE);
    if std::fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    durable::write(data, CA_FILE, text.as_bytes(), Readable::All)
        .map_err(|source| TlsError::Write { path, source })
}

fn create_key(data: &Path) -> Result<KeyPair, TlsError> {
    let key = KeyPair::generate().map_err(|source| TlsError::Make {
        what: "the authority's key",
        source,
    })?;
    let pem = Zeroizing::new(key.serialize_pem());
    durable::write(data, KEY_FILE, pem.as_bytes(), Readable::Owner).map_err(|source| {
        TlsError::Write {
            path: data.join(KEY_FILE),
            source,
        }
    })?;
    Ok(key)
}

fn parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "Firstboot appliance authority");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.not_before = date(BEGIN);
    parameters.not_after = date(END);
    parameters
}

/// Tells whether a certificate carries the public half of a key.
fn is_of(certificate: &CertificateDer<'_>, key: &KeyPair) -> Option<()> {
    let private = PrivateKeyDer::try_from(key.serialized_der()).ok()?;
    let private = ring::sign::any_supported_type(&private).ok()?;
    let certified = CertifiedKey::new(vec![certificate.clone().into_owned()], private);
    certified.keys_match().ok()
}

fn date(at: Timestamp) -> OffsetDateTime {
    let seconds = i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn pem(der: &[u8]) -> String {
    const LINE: usize = 64;
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let encoded = STANDARD.encode(der);
    for line in encoded.as_bytes().chunks(LINE) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
