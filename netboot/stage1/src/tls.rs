//! TLS to the appliance: version 1.3 only, and an authority that is known by its digest.
//!
//! It trusts no list of authorities, and no clock: the boot script that started this program said which authority
//! counts, and says so anew at each boot. A certificate is therefore judged as of its own beginning; a host whose
//! clock lost its battery boots like any other.

use std::net::{SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use image_manifest::Digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring::{cipher_suite, kx_group};
use rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms,
    verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SigningKey;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, StreamOwned, version,
};
use webpki::ring::{
    ECDSA_P256_SHA256, ECDSA_P384_SHA384, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
};

/// A connection of its own kind over TCP.
pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Certificates that a server may send along. Ours sends two.
const LONGEST_CHAIN: usize = 8;
/// A chain has its server's certificate and its authority's, and each may begin later than the other.
const BEGINNINGS: usize = 4;

/// What the appliance has, and a certificate that an operator gave it is likely to have.
static ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        ECDSA_P256_SHA256,
        ECDSA_P384_SHA384,
        ED25519,
        RSA_PKCS1_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    ],
    mapping: &[
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[ECDSA_P256_SHA256]),
        (SignatureScheme::ECDSA_NISTP384_SHA384, &[ECDSA_P384_SHA384]),
        (SignatureScheme::ED25519, &[ED25519]),
        (
            SignatureScheme::RSA_PSS_SHA256,
            &[RSA_PSS_2048_8192_SHA256_LEGACY_KEY],
        ),
    ],
};

/// How to know the appliance: whatever shows a certificate of this authority for its address.
#[derive(Clone, Debug)]
pub(crate) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Trusts the authority whose certificate has this digest.
    pub(crate) fn new(authority: Digest) -> Result<Self, Error> {
        let provider = CryptoProvider {
            // One of each: every byte counts, and the appliance speaks them all. P-256 is needed for its certificate
            // anyway, and ChaCha20 is fast on hosts that have no instructions for AES.
            cipher_suites: vec![cipher_suite::TLS13_CHACHA20_POLY1305_SHA256],
            kx_groups: vec![kx_group::SECP256R1],
            signature_verification_algorithms: ALGORITHMS,
            secure_random: &Random,
            key_provider: &NoKeys,
        };
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { authority }))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(Self(Arc::new(config)))
    }

    /// Speaks TLS over a connection to a server, from the first byte that is written on.
    pub(crate) fn connect(&self, server: SocketAddrV4, stream: TcpStream) -> Result<Stream, Error> {
        let name = ServerName::from(std::net::IpAddr::V4(*server.ip()));
        let connection = ClientConnection::new(Arc::clone(&self.0), name)?;
        Ok(StreamOwned::new(connection, stream))
    }
}

/// Judges the chain that a server shows.
#[derive(Debug)]
struct Verifier {
    authority: Digest,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let known = |der: &&CertificateDer<'_>| Digest::of(der) == self.authority;
        let authority = intermediates.iter().take(LONGEST_CHAIN).find(known);
        let authority = authority.ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let certificate = ParsedCertificate::try_from(end_entity)?;
        // As of the moment from which all of them are good: see the head of this module.
        let mut at = UnixTime::since_unix_epoch(Duration::ZERO);
        for _ in 0..BEGINNINGS {
            let verified = verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &roots,
                intermediates,
                at,
                ALGORITHMS.all,
            );
            match verified {
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
                    not_before,
                    ..
                })) => at = not_before,
                Err(error) => return Err(error),
                Ok(()) => {
                    verify_server_name(&certificate, server_name)?;
                    return Ok(ServerCertVerified::assertion());
                }
            }
        }
        Err(CertificateError::NotValidYet.into())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

/// The kernel's randomness, which early in a boot is waited for.
#[derive(Debug)]
struct Random;

impl SecureRandom for Random {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        getrandom::fill(buffer).map_err(|_| GetRandomFailed)
    }
}

/// A host has no key of its own: it shows its boot's token or credential.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("a host has no key".to_owned()))
    }
}

#[cfg(test)]
mod tests;
