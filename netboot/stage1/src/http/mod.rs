//! A small HTTP/1.1 client over one kept connection: the requests of stage1 and the agent.
//!
//! Artifacts come in the clear, because their digests are known; whatever shows a token goes over TLS only. It
//! follows no redirect, resolves no name, and reads no body without a length. It does not try again: its callers know
//! how long a try is worth.

mod response;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::ops::Range;
use std::time::Duration;

use image_manifest::Token;
pub(crate) use response::{ContentRange, Head, Malformed};
use zeroize::Zeroizing;

use crate::tls::{self, Trust};

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
    #[error("{server} is not trusted")]
    Untrusted {
        server: SocketAddrV4,
        source: rustls::Error,
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
    /// Tells whether asking again cannot help: the appliance understood, and will say no again; or it is another
    /// appliance than the boot script spoke of, and only a new script can tell why.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                (400..500).contains(status) && !matches!(status, 408 | 429)
            }
            Self::Untrusted { .. } => true,
            _ => false,
        }
    }

    /// Tells whether the appliance has what it was sent already.
    pub(crate) fn is_repetition(&self) -> bool {
        matches!(self, Self::Status { status: 409, .. })
    }
}

/// What carries a connection.
#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Secure(Box<tls::Stream>),
}

/// One connection to the appliance.
#[derive(Debug)]
pub(crate) struct Connection {
    server: SocketAddrV4,
    stream: Stream,
    /// Bytes that came behind the last head.
    ahead: Vec<u8>,
    /// Bytes of the present body that were not read yet.
    remaining: u64,
    keep_alive: bool,
}

impl Connection {
    /// Connects in the clear, for artifacts.
    pub(crate) fn open(server: SocketAddrV4) -> Result<Self, Error> {
        let stream = connect(server).map_err(|source| Error::Connect { server, source })?;
        Ok(Self::over(server, Stream::Plain(stream)))
    }

    /// Connects over TLS to whoever is trusted; its certificate is judged before a byte is sent.
    pub(crate) fn open_secure(server: SocketAddrV4, trust: &Trust) -> Result<Self, Error> {
        let stream = connect(server).map_err(|source| Error::Connect { server, source })?;
        let untrusted = |source| Error::Untrusted { server, source };
        let mut stream = trust.connect(server, stream).map_err(untrusted)?;
        while stream.conn.is_handshaking() {
            if let Err(error) = stream.conn.complete_io(&mut stream.sock) {
                let refused = error.get_ref().and_then(|inner| inner.downcast_ref());
                return Err(match refused {
                    Some(rustls::Error::InvalidCertificate(reason)) => {
                        untrusted(rustls::Error::InvalidCertificate(reason.clone()))
                    }
                    _ => Error::Connect {
                        server,
                        source: timed_out(error),
                    },
                });
            }
        }
        Ok(Self::over(server, Stream::Secure(Box::new(stream))))
    }

    fn over(server: SocketAddrV4, stream: Stream) -> Self {
        Self {
            server,
            stream,
            ahead: Vec::new(),
            remaining: 0,
            keep_alive: true,
        }
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
    pub(crate) fn get(&mut self, path: &str, bearer: &Token) -> Result<Zeroizing<Vec<u8>>, Error> {
        let head = self.request("GET", path, &authorization(bearer), b"")?;
        if head.status != 200 {
            return Err(self.refusal(path, &head));
        }
        self.short_body(path, head.length)
    }

    /// Sends something about this boot; returns what the appliance says to it.
    pub(crate) fn post(
        &mut self,
        path: &str,
        bearer: &Token,
        body: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut lines = authorization(bearer);
        lines.push_str("Content-Type: application/json\r\nContent-Length: ");
        lines.push_str(&body.len().to_string());
        lines.push_str("\r\n");
        let head = self.request("POST", path, &lines, body)?;
        if !(200..300).contains(&head.status) {
            return Err(self.refusal(path, &head));
        }
        self.short_body(path, head.length)
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
        let start = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.server);
        let parts = [start.as_bytes(), lines.as_bytes(), b"\r\n", body];
        // Made in one piece, so that none with a token in it is left behind when it grows.
        let request = Zeroizing::new(parts.concat());
        let server = self.server;
        self.stream.send(&request).map_err(|source| Error::Cut {
            server,
            source: timed_out(source),
        })?;
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
                other => break other.map_err(timed_out),
            }
        };
        let server = self.server;
        received.map_err(|source| Error::Cut { server, source })
    }

    fn short_body(&mut self, path: &str, length: u64) -> Result<Zeroizing<Vec<u8>>, Error> {
        if length > SHORT_BODY {
            let url = self.url(path);
            return Err(Error::LongBody { url, length });
        }
        let mut body = Zeroizing::new(vec![0; usize::try_from(length).unwrap_or(0)]);
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
        let scheme = match self.stream {
            Stream::Plain(_) => "http",
            Stream::Secure(_) => "https",
        };
        format!("{scheme}://{}{path}", self.server)
    }
}

impl Stream {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Secure(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Secure(stream) => stream.read(buffer),
        }
    }
}

fn connect(server: SocketAddrV4) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server.into(), CONNECT)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The kernel's word for a timeout of a blocking socket is misleading.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

/// Returns the header line that shows a token, with room for what follows it.
fn authorization(bearer: &Token) -> Zeroizing<String> {
    let mut line = Zeroizing::new(String::with_capacity(512));
    line.push_str("Authorization: Bearer ");
    line.push_str(bearer.expose());
    line.push_str("\r\n");
    line
}

#[cfg(test)]
mod tests;
