//! A small HTTP/1.1 client over one kept connection: the requests of stage1 and the agent.
//!
//! It follows no redirect, resolves no name, and reads no body without a length. It does not try
//! again: its callers know how long a try is worth.

mod response;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::ops::Range;
use std::time::Duration;

pub(crate) use response::{ContentRange, Head, Malformed};

use crate::cmdline::Appliance;

/// A host in the same rack answers in milliseconds; lost packets are sent again within this time.
const CONNECT: Duration = Duration::from_secs(3);
/// A connection on which nothing moves for so long is dead.
const SILENCE: Duration = Duration::from_secs(10);
/// An answer to a person or a program, not an artifact.
const SHORT_BODY: u64 = 1024 * 1024;

/// What went wrong with one request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no connection to {server}")]
    Connect {
        server: SocketAddrV4,
        source: io::Error,
    },
    #[error("the connection to {server} was cut")]
    Cut {
        server: SocketAddrV4,
        source: io::Error,
    },
    #[error("{url} is not answered in HTTP")]
    NotHttp { url: String, source: Malformed },
    #[error("{url} is answered with {status} {reason}")]
    Status {
        url: String,
        status: u16,
        reason: String,
    },
    #[error("{url} is answered with other bytes than those asked for")]
    OtherRange { url: String },
    #[error("the answer of {url} has {length} bytes, more than {SHORT_BODY}")]
    LongBody { url: String, length: u64 },
}

impl Error {
    /// Tells whether asking again cannot help: the appliance understood, and will say no again.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Status { status, .. } if (400..500).contains(status) && !matches!(status, 408 | 429))
    }
}

/// One connection to the appliance.
#[derive(Debug)]
pub(crate) struct Connection {
    server: SocketAddrV4,
    stream: TcpStream,
    /// Bytes that came behind the last head.
    ahead: Vec<u8>,
    /// Bytes of the present body that were not read yet.
    remaining: u64,
    keep_alive: bool,
}

impl Connection {
    /// Connects.
    pub(crate) fn open(server: SocketAddrV4) -> Result<Self, Error> {
        let connect = || {
            let stream = TcpStream::connect_timeout(&server.into(), CONNECT)?;
            stream.set_read_timeout(Some(SILENCE))?;
            stream.set_write_timeout(Some(SILENCE))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = connect().map_err(|source| Error::Connect { server, source })?;
        Ok(Self {
            server,
            stream,
            ahead: Vec::new(),
            remaining: 0,
            keep_alive: true,
        })
    }

    /// Tells whether another request may be sent.
    pub(crate) fn is_reusable(&self) -> bool {
        self.keep_alive && self.remaining == 0 && self.ahead.is_empty()
    }

    /// Asks for some bytes of a file; its body is read with [`Connection::read`].
    pub(crate) fn get_range(
        &mut self,
        path: &str,
        range: &Range<u64>,
        whole: u64,
    ) -> Result<(), Error> {
        let last = range.end.saturating_sub(1);
        let lines = format!("Range: bytes={}-{last}\r\n", range.start);
        let head = self.request("GET", path, &lines, b"")?;
        let asked = ContentRange {
            first: range.start,
            last,
            whole,
        };
        // RFC 9110 §14.2: a server may send the whole instead; that is what was asked for only
        // when the whole is one piece.
        let right = match head.status {
            206 => head.range == Some(asked),
            200 => range.start == 0 && range.end == whole && head.length == whole,
            _ => return Err(self.refusal(path, &head)),
        };
        let url = self.url(path);
        right.then_some(()).ok_or(Error::OtherRange { url })
    }

    /// Asks for a short answer of the appliance about this boot.
    pub(crate) fn get(&mut self, appliance: &Appliance, path: &str) -> Result<Vec<u8>, Error> {
        let head = self.request("GET", path, &authorization(appliance), b"")?;
        if head.status != 200 {
            return Err(self.refusal(path, &head));
        }
        self.short_body(path, head.length)
    }

    /// Sends a report about this boot.
    pub(crate) fn post(
        &mut self,
        appliance: &Appliance,
        path: &str,
        body: &[u8],
    ) -> Result<(), Error> {
        let lines = format!(
            "{}Content-Type: application/json\r\nContent-Length: {}\r\n",
            authorization(appliance),
            body.len()
        );
        let head = self.request("POST", path, &lines, body)?;
        if !(200..300).contains(&head.status) {
            return Err(self.refusal(path, &head));
        }
        self.short_body(path, head.length).map(drop)
    }

    /// Reads more of the present body; 0 at its end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let wanted = wanted.min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = if self.ahead.is_empty() {
            self.receive(&mut buffer[..wanted])?
        } else {
            let read = wanted.min(self.ahead.len());
            buffer[..read].copy_from_slice(&self.ahead[..read]);
            self.ahead.drain(..read);
            read
        };
        self.remaining -= read as u64;
        Ok(read)
    }

    fn request(
        &mut self,
        method: &str,
        path: &str,
        lines: &str,
        body: &[u8],
    ) -> Result<Head, Error> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{lines}\r\n",
            self.server
        )
        .into_bytes();
        request.extend(body);
        let server = self.server;
        self.stream
            .write_all(&request)
            .map_err(|source| Error::Cut { server, source })?;
        let mut buffer = [0; 4096];
        loop {
            let head = response::parse(&self.ahead).map_err(|source| Error::NotHttp {
                url: self.url(path),
                source,
            })?;
            if let Some((head, length)) = head {
                self.ahead.drain(..length);
                self.remaining = head.length;
                self.keep_alive = head.keep_alive;
                return Ok(head);
            }
            let read = self.receive(&mut buffer)?;
            self.ahead.extend(&buffer[..read]);
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let received = loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                // The kernel's word for a timeout of a blocking socket is misleading.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    break Err(io::ErrorKind::TimedOut.into());
                }
                other => break other,
            }
        };
        let server = self.server;
        received.map_err(|source| Error::Cut { server, source })
    }

    fn short_body(&mut self, path: &str, length: u64) -> Result<Vec<u8>, Error> {
        if length > SHORT_BODY {
            let url = self.url(path);
            return Err(Error::LongBody { url, length });
        }
        let mut body = vec![0; usize::try_from(length).unwrap_or(0)];
        let mut filled = 0;
        while filled < body.len() {
            filled += self.read(&mut body[filled..])?;
        }
        Ok(body)
    }

    /// Reads why the appliance said no: the body's first line, as it is meant for people.
    fn refusal(&mut self, path: &str, head: &Head) -> Error {
        let body = self
            .short_body(path, head.length.min(1024))
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&body);
        let line = text.lines().next().unwrap_or_default();
        let reason = line.chars().filter(|c| !c.is_control()).take(200).collect();
        Error::Status {
            url: self.url(path),
            status: head.status,
            reason,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server)
    }
}

fn authorization(appliance: &Appliance) -> String {
    format!("Authorization: Bearer {}\r\n", appliance.token.expose())
}

#[cfg(test)]
mod tests;
