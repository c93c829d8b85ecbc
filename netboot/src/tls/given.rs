//! A certificate and key that the operator provides.
//!
//! It refuses a chain without the authority at its end: hosts are told that one's digest and nothing else.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::TlsError;
use crate::durable;

/// Largest file of certificates or of a key: a chain of five RSA certificates takes 10 KiB.
const FILE_MAX: u64 = 256 << 10;

/// Files of the operator's own certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// PEM: the server's certificate first, its authority's last.
    pub certificate: PathBuf,
    /// PEM: the key of the first.
    pub key: PathBuf,
}

impl Given {
    /// Reads both files.
    pub(super) fn load(&self) -> Result<CertifiedKey, TlsError> {
        let content = |path: &Path, expected| TlsError::Content {
            path: path.to_owned(),
            expected,
        };
        let pem = read(&self.certificate)?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|_| content(&self.certificate, "certificates in PEM"))?;
        if chain.len() < 2 {
            let expected = "certificate of the server followed by that of its authority";
            return Err(content(&self.certificate, expected));
        }
        let pem = zeroize::Zeroizing::new(read(&self.key)?);
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|_| content(&self.key, "private key in PEM"))?;
        let key = ring::sign::any_supported_type(&key)
            .map_err(|_| content(&self.key, "private key of a kind that can be used"))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| TlsError::Mismatch {
            key: self.key.clone(),
            certificate: self.certificate.clone(),
        })?;
        Ok(certified)
    }
}

/// Reads a small file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    read_open(&File::open(path).map_err(reading(path))?, path)
}

/// Reads a small file that nobody else may read.
pub(super) fn read_private(path: &Path) -> Result<Vec<u8>, TlsError> {
    let file = File::open(path).map_err(reading(path))?;
    match durable::open_to_others(&file).map_err(reading(path))? {
        None => read_open(&file, path),
        Some(mode) => Err(TlsError::Open {
            path: path.to_owned(),
            mode,
        }),
    }
}

fn read_open(file: &File, path: &Path) -> Result<Vec<u8>, TlsError> {
    // Had before, so that no copy of a key is left where it grew.
    let mut bytes = Vec::with_capacity(4 << 10);
    file.take(FILE_MAX)
        .read_to_end(&mut bytes)
        .map_err(reading(path))?;
    Ok(bytes)
}

fn reading(path: &Path) -> impl FnOnce(io::Error) -> TlsError {
    let path = path.to_owned();
    |source| TlsError::Read { path, source }
}
