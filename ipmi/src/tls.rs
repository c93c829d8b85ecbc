//! TLS to BMCs: how a BMC's certificate is judged, and the fingerprint by which it is remembered.
//!
//! It refuses TLS below 1.2, and it has no switch that turns the judgement off: a BMC is trusted by an
//! authority, by its pinned key, or on first use, when its key is told so that it can be pinned.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, PeerMisbehaved,
    RootCertStore, SignatureScheme,
};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::bmc::{Error, Fingerprint, Trust};

/// Returns the fingerprint of a certificate (DER): the SHA-256 of its public key.
///
/// # Errors
/// When it is not a certificate.
pub fn fingerprint(certificate: &[u8]) -> Result<Fingerprint, Error> {
    let key = public_key(certificate).ok_or_else(|| Error::Protocol {
        detail: "its certificate cannot be read".to_owned(),
    })?;
    Ok(Fingerprint(Sha256::digest(&key).into()))
}

/// Returns how a BMC that is trusted like this is spoken to.
///
/// # Errors
/// When the authority is not a certificate.
pub fn client(trust: &Trust) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Pinned(key) => Arc::new(ByKey::new(&provider, Some(*key))),
        Trust::FirstUse => Arc::new(ByKey::new(&provider, None)),
        Trust::Authority(pem) => Arc::new(authority(pem, &provider)?),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| insecure(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Says in our words what TLS did not like.
#[must_use]
pub fn insecure(error: &rustls::Error) -> Error {
    let detail = match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.to_string(),
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is not signed by the authority; pin its key or name the right authority"
                .to_owned()
        }
        other => other.to_string(),
    };
    Error::Insecure { detail }
}

fn authority(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<ByAuthority, Error> {
    let unusable = |detail: String| Error::Insecure {
        detail: format!("the authority cannot be used: {detail}"),
    };
    let mut roots = RootCertStore::empty();
    let mut listed = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        listed.push(certificate.clone());
        roots
            .add(certificate)
            .map_err(|error| unusable(error.to_string()))?;
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    Ok(ByAuthority {
        chain,
        listed,
        keys: ByKey::new(provider, None),
    })
}

/// Trusts what an authority signed, for the name that is spoken to.
///
/// A certificate that is itself listed is as good as pinned: BMCs sign their own, often as an authority, which no
/// chain may end in.
#[derive(Debug)]
struct ByAuthority {
    chain: Arc<WebPkiServerVerifier>,
    listed: Vec<CertificateDer<'static>>,
    keys: ByKey,
}

impl ServerCertVerifier for ByAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.listed.iter().any(|listed| listed == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.chain
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.keys
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.keys
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.keys.supported_verify_schemes()
    }
}

/// Returns the DER of a certificate's `SubjectPublicKeyInfo`.
fn public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate.subject_pki.raw.to_vec())
}

/// Trusts a key rather than a name: BMCs come with certificates that no name and no date fits.
///
/// That the peer holds the key is checked as always; so nothing is accepted that anyone else could have sent.
struct ByKey {
    pinned: Option<Fingerprint>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug, thiserror::Error)]
#[error("its key is {found}, and {pinned} is pinned")]
struct OtherKey {
    pinned: Fingerprint,
    found: Fingerprint,
}

impl ByKey {
    fn new(provider: &CryptoProvider, pinned: Option<Fingerprint>) -> Self {
        Self {
            pinned,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl fmt::Debug for ByKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ByKey")
            .field("pinned", &self.pinned)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for ByKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = fingerprint(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        match self.pinned {
            Some(pinned) if pinned != found => {
                let other = OtherError(Arc::new(OtherKey { pinned, found }));
                Err(CertificateError::Other(other).into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    /// As webpki does it, but on the key alone: webpki reads X.509 version 3 only, and old BMCs made
    /// themselves certificates of version 1.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let key = &certificate.tbs_certificate.subject_pki;
        let candidates = self
            .algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == signed.scheme)
            .map_or(&[][..], |(_, algorithms)| algorithms);
        let algorithm = contents(key.raw).unwrap_or_default();
        let valid = candidates.iter().any(|candidate| {
            candidate.public_key_alg_id().as_ref() == algorithm
                && candidate
                    .verify_signature(&key.subject_public_key.data, message, signed.signature())
                    .is_ok()
        });
        if valid {
            Ok(HandshakeSignatureValid::assertion())
        } else if candidates.is_empty() {
            Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = public_key(certificate).ok_or(CertificateError::BadEncoding)?;
        rustls::crypto::verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(key),
            signed,
            &self.algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Returns what stands in the first element of a `SubjectPublicKeyInfo`: the algorithm's id with its parameters.
fn contents(key: &[u8]) -> Option<&[u8]> {
    let (inside, _) = element(key)?;
    let (algorithm, _) = element(inside)?;
    Some(algorithm)
}

/// Splits DER into the contents of its first element and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = der.get(1..)?.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => {
            let (bytes, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*bytes)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests;
