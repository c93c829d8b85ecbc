//! The client against real TLS servers, good and bad, over the loopback.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ServerConfig, ServerConnection};

use super::*;
use crate::http::{Connection, Error as HttpError};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&key).unwrap();
    Authority {
        der: certificate.der().clone(),
        issuer: Issuer::new(parameters, key),
    }
}

/// What a server shows.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Authority {
    /// Certifies `127.0.0.1`, for these years.
    fn certify(&self, address: [u8; 4], years: (i32, i32)) -> Shown {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = vec![SanType::IpAddress(address.into())];
        parameters.not_before = date_time_ymd(years.0, 1, 1);
        parameters.not_after = date_time_ymd(years.1, 1, 1);
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Shown {
            chain: vec![certificate.der().clone(), self.der.clone()],
            key,
        }
    }
}

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
const NOW: (i32, i32) = (2000, 2045);

/// Serves one connection: answers `ok` to whatever is asked.
fn server(shown: Shown) -> SocketAddrV4 {
    let key = PrivatePkcs8KeyDer::from(shown.key.serialize_der());
    let key = rustls::crypto::ring::sign::any_supported_type(&key.into()).unwrap();
    // Without the check whether they belong to each other.
    let shown = SingleCertAndKey::from(CertifiedKey::new(shown.chain, key));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let mut asked = [0; 4096];
        if stream.read(&mut asked).is_ok_and(|read| read > 0) {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .unwrap();
        }
    });
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => unreachable!("bound to IPv4"),
    }
}

fn ask(shown: Shown, trusted: &CertificateDer<'_>) -> Result<Vec<u8>, HttpError> {
    let server = server(shown);
    let trust = Trust::new(Digest::of(trusted)).unwrap();
    let mut connection = Connection::open_secure(server, &trust)?;
    let answer = connection.get("/", &"t0ken".parse().unwrap())?;
    Ok(answer.to_vec())
}

#[test]
fn the_authority_of_the_boot_script_is_trusted_at_any_time() {
    let own = authority();
    let cases = [
        ("now", NOW),
        ("a clock far back", (2040, 2045)),
        ("ended long ago", (1999, 2001)),
    ];
    for (name, years) in cases {
        let answer = ask(own.certify(LOOPBACK, years), &own.der);
        assert_eq!(answer.ok().as_deref(), Some(&b"ok"[..]), "{name}");
    }
}

#[test]
fn nobody_else_is_trusted() {
    let (own, other) = (authority(), authority());
    let mut alone = own.certify(LOOPBACK, NOW);
    alone.chain.truncate(1);
    // The right authority is sent along, and did not sign this.
    let mut pretender = other.certify(LOOPBACK, NOW);
    pretender.chain = vec![pretender.chain[0].clone(), own.der.clone()];
    let mut altered = own.certify(LOOPBACK, NOW);
    altered.key = KeyPair::generate().unwrap();
    let elsewhere = own.certify([127, 0, 0, 2], NOW);
    let cases = [
        ("another authority", other.certify(LOOPBACK, NOW)),
        ("without the authority", alone),
        ("not signed by it", pretender),
        ("another address", elsewhere),
        ("without its key", altered),
    ];
    for (name, shown) in cases {
        let error = ask(shown, &own.der).unwrap_err();
        assert!(
            matches!(error, HttpError::Untrusted { .. }),
            "{name}: {error:?}"
        );
        assert!(error.is_final(), "{name}");
    }
    // An authority's own certificate, without one that it signed, is no server's either.
    let of_the_authority = Shown {
        chain: vec![own.der.clone(), own.der.clone()],
        key: own
            .issuer
            .key()
            .serialize_der()
            .as_slice()
            .try_into()
            .unwrap(),
    };
    assert!(ask(of_the_authority, &own.der).is_err());
}

#[test]
fn a_server_without_tls_is_no_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
        unreachable!("bound to IPv4")
    };
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
    });
    let trust = Trust::new(Digest::of(b"any")).unwrap();
    let error = Connection::open_secure(address, &trust).unwrap_err();
    assert!(!error.is_final(), "{error:?}");
}
