//! One file into a repository: not at all when it is there, whole when it is small, else in chunks that can be taken up again.
//!
//! It refuses to send a byte before the registry was asked whether it has them, and to begin anew what it can go on with.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use hyper::{Method, Response, StatusCode, Uri};
use image_manifest::Digest;

use super::Error;
use super::session::{Ask, Session, encode, length, location, resolve};
use cloud::http::Content;

/// Times that one file is begun or taken up after a cut.
const TRIES: u32 = 5;
const OCTETS: &str = "application/octet-stream";
/// Smallest chunk that the registry takes.
const MIN_LENGTH: &str = "oci-chunk-min-length";

/// How a file came into a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It was there.
    There,
    /// Another repository of the registry had it.
    Mounted,
    /// It was sent; so many of its bytes now, the others before a cut.
    Uploaded(u64),
}

/// A file that belongs into a repository.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// An upload that was begun.
struct Upload {
    /// Where the next request goes.
    url: String,
    /// How much the registry has.
    offset: u64,
    /// Smallest chunk that it takes.
    least: u64,
}

impl Upload {
    /// Reads where an upload goes on; a range that the registry gives wins over what we think.
    fn of(answer: &Response<Incoming>, from: &str, what: &str, offset: u64) -> Result<Self, Error> {
        let protocol = |reason: &str| Error::Protocol {
            what: what.to_owned(),
            reason: reason.to_owned(),
        };
        let from: Uri = from.parse().map_err(|_| protocol("its URL is none"))?;
        let url = location(answer).and_then(|target| resolve(&from, &target));
        let url = url.ok_or_else(|| protocol("the registry does not say where the upload goes"))?;
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let offset = match header(RANGE.as_str()).and_then(range_end) {
            Some(said) if offset > 0 => said,
            _ => offset,
        };
        Ok(Self {
            url: url.to_string(),
            offset,
            least: header(MIN_LENGTH)
                .and_then(|least| least.parse().ok())
                .unwrap_or_default(),
        })
    }
}

/// How chunks fare.
enum Chunked {
    Done,
    /// The registry does not take chunks: all must go in one.
    Unwanted,
}

impl Session {
    /// Whether the repository has a file, and as large as this.
    pub(crate) async fn has(&self, blob: &Blob) -> Result<bool, Error> {
        let what = format!("ask `{}` for {}", self.repository, blob.digest.short());
        let url = self.url(&format!("blobs/{}", blob.digest));
        let statuses = [StatusCode::OK, StatusCode::NOT_FOUND];
        let answer = self
            .ask(&Ask::new(what.clone(), Method::HEAD, url, &statuses))
            .await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        match length(&answer) {
            Some(found) if found != blob.size => Err(Error::Protocol {
                what,
                reason: format!(
                    "the registry has it with {found} bytes, where there are {}",
                    blob.size
                ),
            }),
            _ => Ok(true),
        }
    }

    /// Brings a file into the repository.
    pub(super) async fn upload(&self, blob: &Blob) -> Result<Sent, Error> {
        if self.has(blob).await? {
            self.forget(&blob.digest);
            return Ok(Sent::There);
        }
        let mut upload = match self.journalled(blob).await {
            Some(upload) => {
                tracing::info!(digest = %blob.digest.short(), offset = upload.offset, "going on with an upload that was cut");
                Some(upload)
            }
            None => None,
        };
        let mut sent = 0;
        let mut tries = 1;
        let mut whole = blob.size <= self.options.chunk;
        loop {
            let begun = match upload.take() {
                Some(upload) => upload,
                None => match self.begin(blob).await? {
                    Some(upload) => upload,
                    None => return Ok(Sent::Mounted),
                },
            };
            let error = match self.go_on(blob, begun, whole, &mut sent).await {
                Ok(Chunked::Done) => {
                    self.forget(&blob.digest);
                    return Ok(Sent::Uploaded(sent));
                }
                Ok(Chunked::Unwanted) => {
                    whole = true;
                    continue;
                }
                Err(error) => error,
            };
            if tries == TRIES || !may_pass(&error) {
                return Err(error);
            }
            tries += 1;
            tracing::debug!(digest = %blob.digest, %error, tries, "upload was cut");
            tokio::time::sleep(std::time::Duration::from_millis(100 << tries)).await;
            // It may have arrived although its answer did not.
            if self.has(blob).await? {
                self.forget(&blob.digest);
                return Ok(Sent::Uploaded(sent));
            }
            upload = self.journalled(blob).await;
        }
    }

    /// Begins an upload, unless the file can be mounted from another repository.
    async fn begin(&self, blob: &Blob) -> Result<Option<Upload>, Error> {
        let what = format!("begin to upload {}", blob.digest.short());
        let digest = blob.digest.to_string();
        let statuses = [StatusCode::ACCEPTED, StatusCode::CREATED];
        let plain = self.url("blobs/uploads/");
        let ask = |url: String| {
            let ask = Ask::new(what.clone(), Method::POST, url, &statuses);
            ask.with(CONTENT_LENGTH.as_str(), "0")
        };
        let mount = self
            .options
            .mount_from
            .as_ref()
            .filter(|from| from.host == self.repository.host);
        let answer = match mount {
            Some(from) => {
                let query = encode([("mount", digest.as_str()), ("from", &from.path)].into_iter());
                match self.ask(&ask(format!("{plain}?{query}"))).await {
                    // One that may not be read there is sent like any other.
                    Err(Error::Refused { .. }) => self.ask(&ask(plain)).await?,
                    answer => answer?,
                }
            }
            None => self.ask(&ask(plain)).await?,
        };
        if answer.status() == StatusCode::CREATED {
            return Ok(None);
        }
        let upload = Upload::of(&answer, &self.url(""), &what, 0)?;
        self.journal(blob, &upload.url);
        Ok(Some(upload))
    }

    /// Sends what is missing.
    async fn go_on(
        &self,
        blob: &Blob,
        mut upload: Upload,
        whole: bool,
        sent: &mut u64,
    ) -> Result<Chunked, Error> {
        let what = format!("upload {}", blob.digest.short());
        if !whole || upload.offset > 0 {
            while upload.offset < blob.size {
                let chunk = self.options.chunk.max(upload.least);
                let length = chunk.min(blob.size - upload.offset);
                let end = upload.offset + length - 1;
                let statuses = [StatusCode::ACCEPTED];
                let mut ask = Ask::new(what.clone(), Method::PATCH, upload.url.clone(), &statuses)
                    .with(CONTENT_TYPE.as_str(), OCTETS)
                    .with(CONTENT_RANGE.as_str(), format!("{}-{end}", upload.offset));
                ask.content = part(blob, upload.offset, length);
                // A chunk is never sent blindly a second time: what arrived is asked for first.
                ask.tries = 1;
                let answer = match self.ask(&ask).await {
                    Err(Error::Refused { status, .. })
                        if upload.offset == 0 && refuses_chunks(status) =>
                    {
                        return Ok(Chunked::Unwanted);
                    }
                    answer => answer?,
                };
                *sent += length;
                upload = Upload::of(&answer, &upload.url, &what, upload.offset + length)?;
                self.journal(blob, &upload.url);
            }
        }
        let separator = if upload.url.contains('?') { '&' } else { '?' };
        let digest = blob.digest.to_string();
        let url = format!(
            "{}{separator}{}",
            upload.url,
            encode([("digest", digest.as_str())].into_iter())
        );
        let length = blob.size - upload.offset;
        let statuses = [StatusCode::CREATED, StatusCode::NO_CONTENT];
        let mut ask = Ask::new(what, Method::PUT, url, &statuses)
            .with(CONTENT_TYPE.as_str(), OCTETS)
            .with(CONTENT_LENGTH.as_str(), length.to_string());
        ask.content = if length == 0 {
            Content::None
        } else {
            part(blob, upload.offset, length)
        };
        ask.tries = 1;
        self.ask(&ask).await?;
        *sent += length;
        Ok(Chunked::Done)
    }

    /// Finds an upload that was cut, and asks the registry how much of it arrived.
    async fn journalled(&self, blob: &Blob) -> Option<Upload> {
        if blob.size <= self.options.chunk {
            return None;
        }
        let url = fs::read_to_string(self.journal_path(&blob.digest)).ok()?;
        let what = format!("ask how much of {} arrived", blob.digest.short());
        let statuses = [StatusCode::NO_CONTENT];
        let answer = self
            .ask(&Ask::new(what.clone(), Method::GET, url.clone(), &statuses))
            .await
            .ok()?;
        let said = answer
            .headers()
            .get(RANGE)
            .and_then(|range| range_end(range.to_str().ok()?));
        let mut upload = Upload::of(&answer, &url, &what, 0).ok()?;
        upload.offset = said.unwrap_or(0);
        (upload.offset > 0 && upload.offset <= blob.size).then_some(upload)
    }

    /// Remembers where an upload goes on. It is a help, no more: without it the upload begins anew.
    fn journal(&self, blob: &Blob, url: &str) {
        if blob.size <= self.options.chunk {
            return;
        }
        let path = self.journal_path(&blob.digest);
        let written = fs::create_dir_all(&self.options.journal)
            .and_then(|()| tempfile::NamedTempFile::new_in(&self.options.journal))
            .and_then(|mut file| {
                file.write_all(url.as_bytes())?;
                file.persist(&path).map(drop).map_err(|error| error.error)
            });
        if let Err(error) = written {
            tracing::debug!(path = %path.display(), %error, "an upload is not remembered");
        }
    }

    fn forget(&self, digest: &Digest) {
        // It is there only for uploads in chunks.
        drop(fs::remove_file(self.journal_path(digest)));
    }

    fn journal_path(&self, digest: &Digest) -> PathBuf {
        let place = format!("{} {digest}", self.repository);
        self.options
            .journal
            .join(Digest::of(place.as_bytes()).hex())
    }
}

fn part(blob: &Blob, offset: u64, length: u64) -> Content {
    Content::File {
        path: blob.path.clone(),
        offset,
        length,
    }
}

/// How many bytes there are by a range `0-N`. An empty upload is `0-0` for some and has no range for others, so one byte counts
/// as none.
fn range_end(range: &str) -> Option<u64> {
    let range = range.trim().trim_start_matches("bytes=");
    let end: u64 = range.strip_prefix("0-")?.parse().ok()?;
    Some(if end == 0 { 0 } else { end.checked_add(1)? })
}

/// Some registries know only whole uploads (Google), others only small chunks (GitHub).
fn refuses_chunks(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::BAD_REQUEST
            | StatusCode::NOT_IMPLEMENTED
    )
}

fn may_pass(error: &Error) -> bool {
    match error {
        Error::Transport { .. } => true,
        Error::Refused { status, .. } => {
            status.is_server_error()
                || matches!(
                    *status,
                    StatusCode::RANGE_NOT_SATISFIABLE
                        | StatusCode::NOT_FOUND
                        | StatusCode::TOO_MANY_REQUESTS
                )
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_registries_write_them() {
        let cases = [
            ("0-1023", Some(1024)),
            ("bytes=0-9", Some(10)),
            ("0-0", Some(0)),
            ("1-2", None),
            ("0-18446744073709551615", None),
            ("", None),
        ];
        for (range, expected) in cases {
            assert_eq!(range_end(range), expected, "{range}");
        }
    }
}
