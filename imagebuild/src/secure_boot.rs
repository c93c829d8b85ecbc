//! Signs programs for UEFI with a key that firmware trusts (Authenticode, as Secure Boot checks it).
//!
//! It is a step apart from the build: what is built is the same for everybody, and a signature is added to a copy. The
//! same key, certificate and program give the same bytes: no time is signed. It refuses keys that firmware does not
//! know what to do with, programs that are signed already, and to show a key.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ring::rsa::KeyPair;
use ring::{rand, signature};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::file;
use der::Certificate;
use program::Program;

mod cms;
mod der;
mod pem;
mod program;

/// A key or certificate that is longer is none.
const LONGEST: usize = 64 * 1024;
/// `WIN_CERTIFICATE` begins with its length, revision 2.0 and the type PKCS#7 (PE format, "attribute certificate table").
const ENTRY: u32 = 8;
const REVISION_AND_TYPE: [u8; 4] = [0x00, 0x02, 0x02, 0x00];
/// Entries of that table begin at multiples of eight.
const ALIGNMENT: usize = 8;

/// Why a program was not signed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be used.
    #[error(transparent)]
    File(#[from] file::Error),
    /// The key is none that firmware can check the signatures of.
    #[error("the Secure Boot key is unusable: {0}")]
    Key(&'static str),
    /// The certificate is none.
    #[error("the Secure Boot certificate is unusable: {0}")]
    Certificate(&'static str),
    /// The certificate is another key's.
    #[error("the Secure Boot certificate does not belong to the key")]
    Stranger,
    /// The program cannot be signed.
    #[error("`{path}` cannot be signed: {problem}")]
    Program {
        /// The program.
        path: PathBuf,
        /// Why.
        problem: &'static str,
    },
    /// The signature could not be computed.
    #[error("the Secure Boot key does not sign")]
    Sign,
}

/// A key with its certificate.
pub struct Signer {
    key: KeyPair,
    certificate: Certificate,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// Takes a private key (PKCS#8 or PKCS#1) and its X.509 certificate, each as PEM or DER.
    ///
    /// # Errors
    /// When one of them cannot be used, or they do not belong together.
    pub fn new(key: &[u8], certificate: &[u8]) -> Result<Self, Error> {
        let key = load_key(key)?;
        let certificate = pem::decode(certificate, &["CERTIFICATE"])
            .ok_or(Error::Certificate("it is neither PEM nor DER"))?;
        let certificate = Certificate::read(&certificate)
            .ok_or(Error::Certificate("it is no X.509 certificate"))?;
        if certificate.public_key() != signature::KeyPair::public_key(&key).as_ref() {
            return Err(Error::Stranger);
        }
        Ok(Self { key, certificate })
    }

    /// Writes a signed copy of a program.
    ///
    /// # Errors
    /// When it cannot be read, written or signed.
    pub fn sign(&self, program: &Path, signed: &Path) -> Result<(), Error> {
        let read = file::unread(program);
        let mut from = File::open(program).map_err(&read)?;
        let length = from.metadata().map_err(&read)?.len();
        let layout = Program::read(&mut from, length).map_err(|problem| match problem {
            program::Problem::Read(source) => read(source).into(),
            program::Problem::Unfit(problem) => Error::Program {
                path: program.to_owned(),
                problem,
            },
        })?;
        let digest = hash(&mut from, &layout, length).map_err(read)?;
        let table = table(&self.authenticate(&digest)?);
        let written = write(&mut from, &layout, length, &table, signed);
        Ok(written.map_err(file::unwritten(signed))?)
    }

    /// Makes the message that says who vouches for a program with this digest.
    fn authenticate(&self, digest: &[u8; 32]) -> Result<Vec<u8>, Error> {
        let content = cms::content(digest);
        let attributes = cms::attributes(&content);
        let mut signature = vec![0; self.key.public().modulus_len()];
        // The padding has nothing random in it; what `ring` draws protects the computation only.
        let random = rand::SystemRandom::new();
        self.key
            .sign(
                &signature::RSA_PKCS1_SHA256,
                &random,
                &attributes.to_sign(),
                &mut signature,
            )
            .map_err(|_| Error::Sign)?;
        Ok(cms::message(
            &content,
            &self.certificate,
            &attributes,
            &signature,
        ))
    }
}

/// Takes a key or certificate from the environment.
#[must_use]
pub fn secret(text: OsString) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.into_encoded_bytes())
}

/// Reads a key or certificate from a file.
///
/// # Errors
/// When it cannot be read, or is too long to be one.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = file::unread(path);
    // Once, so that no half of a key is left behind where it grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 1));
    let file = File::open(path).map_err(&failed)?;
    file.take(LONGEST as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(&failed)?;
    if bytes.len() > LONGEST {
        return Err(failed(io::ErrorKind::FileTooLarge.into()).into());
    }
    Ok(bytes)
}

fn load_key(bytes: &[u8]) -> Result<KeyPair, Error> {
    let bytes = pem::decode(bytes, &["PRIVATE KEY", "RSA PRIVATE KEY"])
        .ok_or(Error::Key("it is no unencrypted private key in PEM or DER"))?;
    // Firmware checks signatures of RSA with SHA-256 everywhere, and others nowhere for certain.
    KeyPair::from_pkcs8(&bytes)
        .or_else(|_| KeyPair::from_der(&bytes))
        .map_err(|_| Error::Key("it is no RSA key of 2048 to 4096 bits"))
}

/// Hashes what Authenticode covers, with the zeros that fill the program up.
fn hash(from: &mut File, layout: &Program, length: u64) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    for range in &layout.hashed {
        from.seek(SeekFrom::Start(range.start))?;
        let mut part = BufReader::new(&mut *from).take(range.end - range.start);
        io::copy(&mut part, &mut Hashing(&mut hash))?;
    }
    hash.update(filling(length));
    Ok(hash.finalize().into())
}

struct Hashing<'a>(&'a mut Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The zeros between the end of a program and its table.
fn filling(length: u64) -> &'static [u8] {
    let aligned = length.next_multiple_of(ALIGNMENT as u64);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is less than the alignment"
    )]
    &[0; ALIGNMENT][..(aligned - length) as usize]
}

/// Wraps the message as an entry of the program's table of certificates.
fn table(message: &[u8]) -> Vec<u8> {
    let length = message.len() + ENTRY as usize;
    let mut table = u32::try_from(length)
        .unwrap_or_default()
        .to_le_bytes()
        .to_vec();
    table.extend(REVISION_AND_TYPE);
    table.extend(message);
    table.resize(length.next_multiple_of(ALIGNMENT), 0);
    table
}

/// Copies the program with its table behind it, and says in its headers that the table is there.
fn write(
    from: &mut File,
    layout: &Program,
    length: u64,
    table: &[u8],
    path: &Path,
) -> io::Result<()> {
    let mut to = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    from.seek(SeekFrom::Start(0))?;
    io::copy(from, &mut to)?;
    to.write_all(filling(length))?;
    to.write_all(table)?;
    let at = u32::try_from(length.next_multiple_of(ALIGNMENT as u64));
    let at = at.map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let size = u32::try_from(table.len()).unwrap_or_default();
    to.seek(SeekFrom::Start(layout.directory_at))?;
    to.write_all(&at.to_le_bytes())?;
    to.write_all(&size.to_le_bytes())?;
    let sum = program::checksum(&mut to, layout.checksum_at)?;
    to.seek(SeekFrom::Start(layout.checksum_at))?;
    to.write_all(&sum.to_le_bytes())
}

#[cfg(test)]
mod tests;
