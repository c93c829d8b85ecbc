//! What clients see of the appliance's TLS, and what a crash or a clock does to it.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

const NOW: Timestamp = Timestamp(1_795_000_000_000);
const DAY: Duration = Duration::from_hours(24);

fn names() -> Names {
    Names {
        addresses: ["10.77.0.1", "127.0.0.1", "::1"]
            .into_iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        names: BTreeSet::from(["localhost".to_owned()]),
    }
}

/// Shakes hands as a client that trusts one certificate, and returns the chain that was sent.
async fn shake(tls: &Tls, trusted: &[u8], name: &str) -> Result<Vec<Vec<u8>>, std::io::Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(tls.config());
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await.map(drop)
    });
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from(trusted.to_vec()))
        .map_err(std::io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TcpStream::connect(at).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    server.await.unwrap()?;
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    Ok(chain.iter().map(|one| one.to_vec()).collect())
}

#[tokio::test]
async fn a_client_that_trusts_the_authority_is_served_under_every_name() {
    let data = tempfile::tempdir().unwrap();
    let tls = Tls::open(data.path(), names(), None, NOW).unwrap();
    for name in ["10.77.0.1", "127.0.0.1", "::1", "localhost"] {
        let chain = shake(&tls, &tls.ca_der, name).await.unwrap();
        assert_eq!(chain.len(), 2, "leaf and authority");
        assert_eq!(Digest::of(&chain[1]), tls.ca_hash());
    }
    assert!(shake(&tls, &tls.ca_der, "10.77.0.2").await.is_err());
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Tls::open(elsewhere.path(), names(), None, NOW).unwrap();
    assert_ne!(other.ca_hash(), tls.ca_hash());
    assert!(shake(&tls, &other.ca_der, "127.0.0.1").await.is_err());
}

#[test]
fn the_authority_outlives_a_restart_and_a_crash_while_it_is_made() {
    let data = tempfile::tempdir().unwrap();
    let hash = Tls::open(data.path(), names(), None, NOW)
        .unwrap()
        .ca_hash();
    let mode = |name: &str| {
        let file = std::fs::metadata(data.path().join(name)).unwrap();
        file.permissions().mode() & 0o777
    };
    assert_eq!((mode("ca.key"), mode(CA_FILE)), (0o600, 0o644));
    let again = Tls::open(data.path(), names(), None, NOW).unwrap();
    assert_eq!(again.ca_hash(), hash);

    // The key was written, the certificate was not, and a half of it lies about.
    let pem = std::fs::read(data.path().join(CA_FILE)).unwrap();
    std::fs::rename(data.path().join(CA_FILE), data.path().join("ca.pem.new")).unwrap();
    let after = Tls::open(data.path(), names(), None, NOW).unwrap();
    let again = Tls::open(data.path(), names(), None, NOW).unwrap();
    assert_eq!(again.ca_hash(), after.ca_hash());
    std::fs::write(data.path().join(CA_FILE), pem).unwrap();
    let key_kept = Tls::open(data.path(), names(), None, NOW);
    assert_eq!(key_kept.unwrap().ca_hash(), hash, "it is of the same key");

    std::fs::remove_file(data.path().join("ca.key")).unwrap();
    let opened = Tls::open(data.path(), names(), None, NOW);
    assert!(matches!(opened, Err(TlsError::KeyMissing { .. })));
}

#[tokio::test]
async fn the_certificate_is_renewed_in_time_and_whenever_the_names_or_the_clock_change() {
    let data = tempfile::tempdir().unwrap();
    let tls = Tls::open(data.path(), names(), None, NOW).unwrap();
    let leaf = async || shake(&tls, &tls.ca_der, "127.0.0.1").await.unwrap()[0].clone();
    let first = leaf().await;
    tls.renew(NOW.after(DAY * 59)).unwrap();
    assert_eq!(leaf().await, first, "not yet");
    tls.renew(NOW.after(DAY * 61)).unwrap();
    let second = leaf().await;
    assert_ne!(second, first, "a month before its end");
    tls.renew(NOW).unwrap();
    let third = leaf().await;
    assert_ne!(third, second, "the clock was set back");

    assert!(shake(&tls, &tls.ca_der, "10.78.0.1").await.is_err());
    let mut more = names();
    more.addresses.insert("10.78.0.1".parse().unwrap());
    tls.rename(more, NOW).unwrap();
    shake(&tls, &tls.ca_der, "10.78.0.1").await.unwrap();
}

/// Writes a chain and key as an operator has them.
fn write_given(directory: &Path) -> Given {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(authority, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["boot.example.net".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let given = Given {
        certificate: directory.join("chain.pem"),
        key: directory.join("key.pem"),
    };
    std::fs::write(&given.certificate, leaf.pem() + &root.pem()).unwrap();
    std::fs::write(&given.key, key.serialize_pem()).unwrap();
    given
}

#[tokio::test]
async fn a_given_certificate_is_served_and_its_authority_published() {
    let (data, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let given = write_given(files.path());
    let tls = Tls::open(data.path(), names(), Some(given.clone()), NOW).unwrap();
    let chain = shake(&tls, &tls.ca_der, "boot.example.net").await.unwrap();
    assert_eq!(Digest::of(&chain[1]), tls.ca_hash());
    let published = CertificateDer::from_pem_file(data.path().join(CA_FILE)).unwrap();
    assert_eq!(Digest::of(&published), tls.ca_hash());

    let other = tempfile::tempdir().unwrap();
    let stranger = Given {
        key: write_given(other.path()).key,
        ..given.clone()
    };
    let opened = Tls::open(data.path(), names(), Some(stranger), NOW);
    assert!(matches!(opened, Err(TlsError::Mismatch { .. })));
    let pem = std::fs::read_to_string(&given.certificate).unwrap();
    let (leaf, _) = pem.split_at(pem.rfind("-----BEGIN").unwrap());
    std::fs::write(&given.certificate, leaf).unwrap();
    let opened = Tls::open(data.path(), names(), Some(given), NOW);
    assert!(
        matches!(opened, Err(TlsError::Content { .. })),
        "no authority"
    );
}

#[test]
fn an_authority_whose_key_others_can_read_is_not_used() {
    let data = tempfile::tempdir().unwrap();
    Tls::open(data.path(), names(), None, NOW).unwrap();
    let key = data.path().join("ca.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Tls::open(data.path(), names(), None, NOW).unwrap_err();
    assert!(refused.to_string().contains("0640"), "{refused}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o400)).unwrap();
    assert!(Tls::open(data.path(), names(), None, NOW).is_ok());
}

#[test]
fn nothing_secret_is_shown() {
    let data = tempfile::tempdir().unwrap();
    let tls = Tls::open(data.path(), names(), None, NOW).unwrap();
    let key = std::fs::read_to_string(data.path().join("ca.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!format!("{tls:?}").contains(secret));
}
