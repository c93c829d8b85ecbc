//! Names of images in registries: `HOST[:PORT]/PATH[:TAG][@sha256:…]`.
//!
//! It refuses to guess a registry: a name without a host is none.

use std::fmt;
use std::net::IpAddr;

use image_manifest::Digest;

/// The tag where none is given.
const LATEST: &str = "latest";
/// Docker Hub's name, and the host that answers for it.
const HUB: [&str; 2] = ["docker.io", "registry-1.docker.io"];

/// A repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Repository {
    /// Host, and port where it is not the usual one.
    pub host: String,
    /// Path of the repository.
    pub path: String,
}

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Where it is.
    pub repository: Repository,
    /// Its tag.
    pub tag: String,
    /// Its digest, when exactly that one is meant.
    pub digest: Option<Digest>,
}

/// A text that names no image of a registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no image in a registry: {reason}")]
pub struct Malformed {
    text: String,
    reason: &'static str,
}

impl Remote {
    /// Reads a name.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let malformed = |reason| Malformed {
            text: text.chars().take(300).collect(),
            reason,
        };
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => {
                let digest = digest.parse();
                (
                    name,
                    Some(digest.map_err(|_| malformed("its digest is malformed"))?),
                )
            }
        };
        let Some((host, path)) = name.split_once('/') else {
            return Err(malformed("it is HOST[:PORT]/PATH[:TAG]"));
        };
        let (path, tag) = match path.split_once(':') {
            Some((path, tag)) => (path, tag),
            None => (path, LATEST),
        };
        if !is_host(host) {
            return Err(malformed(
                "it begins with the registry's host, which has a `.` or a port or is `localhost`",
            ));
        }
        if !path.split('/').all(is_component) || path.len() > 255 {
            return Err(malformed(
                "a path has lowercase letters, digits, and `.`, `_` or `-` between them",
            ));
        }
        if !is_tag(tag) {
            return Err(malformed(
                "a tag has 1 to 128 letters, digits, `.`, `_` and `-`",
            ));
        }
        Ok(Self {
            repository: Repository {
                host: host.to_owned(),
                path: path.to_owned(),
            },
            tag: tag.to_owned(),
            digest,
        })
    }
}

impl Repository {
    /// The host that answers for the registry.
    #[must_use]
    pub fn server(&self) -> &str {
        if self.host == HUB[0] {
            HUB[1]
        } else {
            &self.host
        }
    }

    /// Whether the registry is on this computer.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// Whether an authority is of this computer.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn is_host(host: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    let said = host.contains(['.', ':']) || host == "localhost";
    said && host.chars().all(plain) && host.len() <= 255
}

fn is_component(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(plain)
        && part.ends_with(plain)
        && part
            .chars()
            .all(|c| plain(c) || matches!(c, '.' | '_' | '-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.starts_with(word)
        && tag.len() <= 128
        && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)?;
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_host_a_path_and_a_tag() {
        let digest = Digest::of(b"x");
        let cases = [
            (
                "localhost:5000/host",
                Some("localhost:5000/host:latest".to_owned()),
            ),
            (
                "127.0.0.1:5000/a/b:v1",
                Some("127.0.0.1:5000/a/b:v1".to_owned()),
            ),
            (
                "registry.example/a",
                Some("registry.example/a:latest".to_owned()),
            ),
            (
                &format!("registry.example/a:v1@{digest}"),
                Some(format!("registry.example/a:v1@{digest}")),
            ),
            ("host", None),
            ("team/host", None),
            ("registry.example/Host", None),
            ("registry.example/a/../b", None),
            ("registry.example/a:", None),
            ("registry.example/a@sha256:12", None),
            ("evil.example@x/a", None),
            ("registry.example/a?x=y", None),
        ];
        for (text, expected) in cases {
            let found = Remote::parse(text).ok().map(|remote| remote.to_string());
            assert_eq!(found, expected, "{text}");
        }
        for (host, expected) in [
            ("localhost:5000", true),
            ("127.0.0.2", true),
            ("[::1]:5000", true),
            ("127.0.0.1.example", false),
            ("localhost.example", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
