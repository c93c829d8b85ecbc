//! The head of an HTTP/1.1 response, as bytes (RFC 9112 §4-§6).
//!
//! It accepts what our appliance and plain file servers send, and nothing else: no chunked body,
//! no folded line, no interim response. What is not understood is an error, never a guess.

use std::str;

/// No head may be longer.
pub(super) const LONGEST: usize = 16 * 1024;

/// What the head of a response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The status code.
    pub(crate) status: u16,
    /// Bytes in the body.
    pub(crate) length: u64,
    /// Which bytes of the whole the body holds.
    pub(crate) range: Option<ContentRange>,
    /// Another request may follow on the same connection.
    pub(crate) keep_alive: bool,
}

/// `Content-Range: bytes first-last/whole`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) whole: u64,
}

/// What a response is that we do not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("its head has more than {LONGEST} bytes")]
    Long,
    #[error("its status line is malformed")]
    StatusLine,
    #[error("it is an interim or upgrade response")]
    Interim,
    #[error("a header line is malformed")]
    Header,
    #[error("its length is not given, or not clearly")]
    Length,
    #[error("its body is encoded")]
    Encoded,
    #[error("its content range is malformed")]
    Range,
}

/// Reads a head; returns it with its length in bytes, or nothing while bytes are missing.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
    let window = &bytes[..bytes.len().min(LONGEST)];
    let Some(end) = window.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() >= LONGEST {
            Err(Malformed::Long)
        } else {
            Ok(None)
        };
    };
    let text = str::from_utf8(&bytes[..end]).map_err(|_| Malformed::Header)?;
    let mut lines = text.split("\r\n");
    let (minor, status) = status_line(lines.next().unwrap_or_default())?;
    if status < 200 {
        return Err(Malformed::Interim);
    }
    let mut length = None;
    let mut range = None;
    let mut keep_alive = minor == 1;
    for line in lines {
        let (name, value) = header(line)?;
        if name.eq_ignore_ascii_case("content-length") {
            let value = number(value).ok_or(Malformed::Length)?;
            // RFC 9112 §6.3: two of them are an attack or an accident.
            if length.replace(value).is_some() {
                return Err(Malformed::Length);
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding")
            || name.eq_ignore_ascii_case("content-encoding")
        {
            return Err(Malformed::Encoded);
        } else if name.eq_ignore_ascii_case("content-range") && status == 206 {
            range = Some(content_range(value).ok_or(Malformed::Range)?);
        } else if name.eq_ignore_ascii_case("connection") {
            keep_alive &= !value.eq_ignore_ascii_case("close");
        }
    }
    let bodiless = matches!(status, 204 | 304);
    let length = match (length, range) {
        (None | Some(0), _) if bodiless => 0,
        (None, _) => return Err(Malformed::Length),
        (Some(length), Some(range)) if range.last - range.first + 1 != length => {
            return Err(Malformed::Range);
        }
        (Some(length), _) => length,
    };
    let head = Head {
        status,
        length,
        range,
        keep_alive,
    };
    Ok(Some((head, end + 4)))
}

fn status_line(line: &str) -> Result<(u8, u16), Malformed> {
    let mut parts = line.splitn(3, ' ');
    let minor = match parts.next() {
        Some("HTTP/1.1") => 1,
        Some("HTTP/1.0") => 0,
        _ => return Err(Malformed::StatusLine),
    };
    let status = parts.next().filter(|code| code.len() == 3);
    let status = status.and_then(number).filter(|code| *code >= 100);
    let status = status.and_then(|code| u16::try_from(code).ok());
    Ok((minor, status.ok_or(Malformed::StatusLine)?))
}

fn header(line: &str) -> Result<(&str, &str), Malformed> {
    let (name, value) = line.split_once(':').ok_or(Malformed::Header)?;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(token) {
        return Err(Malformed::Header);
    }
    let value = value.trim_matches([' ', '\t']);
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Malformed::Header);
    }
    Ok((name, value))
}

fn content_range(value: &str) -> Option<ContentRange> {
    let (range, whole) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let range = ContentRange {
        first: number(first)?,
        last: number(last)?,
        whole: number(whole)?,
    };
    (range.first <= range.last && range.last < range.whole).then_some(range)
}

/// Reads digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u64> {
    let digits = (1..=19).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(head: &str) -> Result<Option<(Head, usize)>, Malformed> {
        parse(head.replace('\n', "\r\n").as_bytes())
    }

    #[test]
    fn heads_of_good_servers_are_read() {
        let part =
            "HTTP/1.1 206 Partial Content\ncontent-length: 10\nContent-Range: bytes 5-14/20\n\n";
        let (head, length) = read(part).unwrap().unwrap();
        let range = ContentRange {
            first: 5,
            last: 14,
            whole: 20,
        };
        assert_eq!((head.range, length), (Some(range), part.len() + 4));

        let none = "HTTP/1.1 204 No Content\n\n";
        let last = "HTTP/1.1 404 Not Found\nConnection: Close\nContent-Length: 0\n\n";
        let odd = "HTTP/1.1 204 No Content\nContent-Length: 3\n\n";
        let cases = [
            ("a part", part, (206, 10, true)),
            (
                "a whole",
                "HTTP/1.1 200 OK\nContent-Length:3\n\n",
                (200, 3, true),
            ),
            (
                "an old server",
                "HTTP/1.0 200 OK\nContent-Length: 3\n\n",
                (200, 3, false),
            ),
            ("the last answer", last, (404, 0, false)),
            ("no body", none, (204, 0, true)),
            ("no reason", "HTTP/1.1 204 \n\n", (204, 0, true)),
            ("a body where none may be", odd, (204, 3, true)),
        ];
        for (name, text, expected) in cases {
            let (head, _) = read(text).unwrap().unwrap();
            let found = (head.status, head.length, head.keep_alive);
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(read("HTTP/1.1 200 OK\nContent-Length: 3\n"), Ok(None));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        use Malformed as M;
        let cases = [
            ("another protocol", "SSH-2.0-OpenSSH", M::StatusLine),
            ("HTTP/2", "HTTP/2 200", M::StatusLine),
            ("a long status", "HTTP/1.1 2000 OK", M::StatusLine),
            ("a signed status", "HTTP/1.1 +20 OK", M::StatusLine),
            ("interim", "HTTP/1.1 100 Continue", M::Interim),
            (
                "chunked",
                "HTTP/1.1 200 OK\nTransfer-Encoding: chunked",
                M::Encoded,
            ),
            (
                "compressed",
                "HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: 3",
                M::Encoded,
            ),
            ("no length", "HTTP/1.1 200 OK", M::Length),
            (
                "two lengths",
                "HTTP/1.1 200 OK\nContent-Length: 3\nContent-Length: 3",
                M::Length,
            ),
            (
                "a signed length",
                "HTTP/1.1 200 OK\nContent-Length: +3",
                M::Length,
            ),
            (
                "a huge length",
                "HTTP/1.1 200 OK\nContent-Length: 99999999999999999999",
                M::Length,
            ),
            (
                "folded",
                "HTTP/1.1 200 OK\nA: b\n c: d\nContent-Length: 3",
                M::Header,
            ),
            (
                "a blank in a name",
                "HTTP/1.1 200 OK\nContent-Length : 3",
                M::Header,
            ),
        ];
        for (name, text, expected) in cases {
            assert_eq!(read(&format!("{text}\n\n")), Err(expected), "{name}");
        }
        let ranges = [
            ("past the end", 10, "bytes 5-14/14"),
            ("of another length", 9, "bytes 5-14/20"),
            ("backwards", 9, "bytes 5-4/20"),
            ("of unknown whole", 10, "bytes 5-14/*"),
            ("in other units", 10, "lines 5-14/20"),
        ];
        for (name, length, range) in ranges {
            let text =
                format!("HTTP/1.1 206 P\nContent-Length: {length}\nContent-Range: {range}\n\n");
            assert_eq!(read(&text), Err(M::Range), "{name}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused() {
        assert_eq!(parse(&vec![b'a'; LONGEST]), Err(Malformed::Long));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut head = b"HTTP/1.1 206 OK\r\nContent-Length: 5\r\nX:".to_vec();
            head.extend(&bytes);
            head.extend(b"\r\n\r\n");
            for cut in [&head[..], &bytes] {
                if let Ok(Some((_, length))) = parse(cut) {
                    prop_assert!(length <= cut.len());
                }
            }
        }

        #[test]
        fn a_body_is_no_part_of_the_head(body in proptest::collection::vec(any::<u8>(), 0..50)) {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n";
            let bytes = [&head[..], &body].concat();
            let length = parse(&bytes).unwrap().unwrap().1;
            prop_assert_eq!(length, head.len());
        }
    }
}
