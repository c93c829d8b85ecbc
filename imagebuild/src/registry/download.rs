//! Documents and files out of a repository.
//!
//! It refuses bytes without their digest, documents that are too large, and to fetch again what arrived before a cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use hyper::header::{ACCEPT, CONTENT_TYPE, RANGE};
use hyper::{Method, StatusCode};
use image_manifest::layout::Layout;
use image_manifest::{Digest, Hasher};
use image_oci::spec::{self, Descriptor, Document};

use super::Error;
use super::session::{Ask, Session, read};
use cloud::http::next;

/// Times that one file is taken up after a cut.
const TRIES: u32 = 5;
/// Header that says the digest of a document.
const DIGEST: &str = "docker-content-digest";

/// A document of a repository.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) document: Document,
}

impl Fetched {
    pub(super) fn media_type(&self) -> &'static str {
        match self.document {
            Document::Manifest(_) => spec::MANIFEST,
            Document::Index(_) => spec::INDEX,
        }
    }
}

impl Session {
    /// Fetches a manifest or an index by tag or digest, if there is one.
    pub(crate) async fn document(&self, reference: &str) -> Result<Option<Fetched>, Error> {
        let what = format!("{}:{reference}", self.repository);
        let statuses = [StatusCode::OK, StatusCode::NOT_FOUND];
        let url = self.url(&format!("manifests/{reference}"));
        let ask = Ask::new(format!("get `{what}`"), Method::GET, url, &statuses);
        let ask = ask.with(
            ACCEPT.as_str(),
            format!("{}, {}", spec::INDEX, spec::MANIFEST),
        );
        let answer = self.ask(&ask).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let header = |name: &str| {
            let value = answer.headers().get(name)?.to_str().ok()?;
            Some(value.split(';').next().unwrap_or(value).trim().to_owned())
        };
        let said_type = header(CONTENT_TYPE.as_str());
        let said_digest = header(DIGEST).and_then(|digest| digest.parse::<Digest>().ok());
        let bytes = read(answer, spec::LIMIT, &what).await?;
        let digest = Digest::of(&bytes);
        let asked = reference.parse::<Digest>().ok();
        for expected in asked.into_iter().chain(said_digest) {
            if expected != digest {
                return Err(Error::Digest {
                    what,
                    expected,
                    found: digest,
                });
            }
        }
        let document = Document::parse(&bytes, said_type.as_deref());
        let document = document.map_err(|source| Error::Document { what, source })?;
        Ok(Some(Fetched {
            bytes,
            digest,
            document,
        }))
    }

    /// Fetches a file into a store, if the store does not have it; returns how many bytes came.
    pub(super) async fn download(
        &self,
        descriptor: &Descriptor,
        store: &Layout,
    ) -> Result<u64, Error> {
        let place = store.blob(&descriptor.digest);
        if fs::metadata(&place).is_ok_and(|found| found.len() == descriptor.size)
            && hash(&place).is_ok_and(|found| found == descriptor.digest)
        {
            return Ok(0);
        }
        let path = self
            .options
            .journal
            .join(format!("{}.part", descriptor.digest.hex()));
        let failed = |source| Error::File {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&self.options.journal).map_err(failed)?;
        let mut part = Part::open(&path).map_err(failed)?;
        let mut came = 0;
        let mut tries = 1;
        loop {
            match self.rest(descriptor, &mut part, &mut came).await {
                Ok(()) => break,
                Err(error) if tries < TRIES && matches!(error, Error::Transport { .. }) => {
                    tracing::debug!(digest = %descriptor.digest, %error, tries, "download was cut");
                    tokio::time::sleep(std::time::Duration::from_millis(100 << tries)).await;
                    tries += 1;
                }
                Err(error) => return Err(error),
            }
        }
        let found = part.hasher.clone().finish();
        if found != descriptor.digest {
            // Nothing of it is worth keeping.
            drop(fs::remove_file(&path));
            return Err(Error::Digest {
                what: format!("{}@{}", self.repository, descriptor.digest),
                expected: descriptor.digest,
                found,
            });
        }
        store.import(&path)?;
        fs::remove_file(&path).map_err(failed)?;
        Ok(came)
    }

    /// Fetches what is missing of a file.
    async fn rest(
        &self,
        descriptor: &Descriptor,
        part: &mut Part,
        came: &mut u64,
    ) -> Result<(), Error> {
        let what = format!("get {} of `{}`", descriptor.digest.short(), self.repository);
        let failed = |source| Error::File {
            path: self.options.journal.clone(),
            source,
        };
        if part.length() > descriptor.size {
            part.restart().map_err(failed)?;
        }
        if part.length() == descriptor.size {
            return Ok(());
        }
        let statuses = [
            StatusCode::OK,
            StatusCode::PARTIAL_CONTENT,
            StatusCode::RANGE_NOT_SATISFIABLE,
        ];
        let url = self.url(&format!("blobs/{}", descriptor.digest));
        let mut ask = Ask::new(what.clone(), Method::GET, url, &statuses);
        if part.length() > 0 {
            ask = ask.with(RANGE.as_str(), format!("bytes={}-", part.length()));
        }
        let mut answer = self.ask(&ask).await?;
        if answer.status() != StatusCode::PARTIAL_CONTENT && part.length() > 0 {
            part.restart().map_err(failed)?;
        }
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(Error::Protocol {
                what,
                reason: "it has fewer bytes than its manifest says".to_owned(),
            });
        }
        loop {
            let piece = next(&mut answer).await.map_err(|source| Error::Transport {
                what: what.clone(),
                source,
            })?;
            let Some(piece) = piece else {
                break;
            };
            if part.length() + piece.len() as u64 > descriptor.size {
                return Err(Error::TooLarge {
                    what: format!("{}@{}", self.repository, descriptor.digest),
                    limit: descriptor.size,
                });
            }
            part.append(&piece).map_err(failed)?;
            *came += piece.len() as u64;
        }
        if part.length() == descriptor.size {
            return Ok(());
        }
        Err(Error::Transport {
            what,
            source: super::TransportError::Connection("the answer ended early".to_owned()),
        })
    }
}

/// What arrived of a file; it stays when we go.
struct Part {
    file: File,
    hasher: Hasher,
}

impl Part {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        // Another one fetches the same: what it has then will do for us too.
        file.lock()?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        Ok(Self { file, hasher })
    }

    fn length(&self) -> u64 {
        self.hasher.bytes()
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hasher = Hasher::new();
        Ok(())
    }
}

fn hash(path: &PathBuf) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finish())
}
