//! Mirrors: where the bytes of an archive may be found today. Never part of a definition or a lock.
//!
//! It refuses to know any host by name: mirrors come from the command line, the environment, the user's file,
//! or the machine's own apt sources, in this order; the first that says anything is the only one asked.

mod apt;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Variable that lists mirrors, separated by blanks, as `--mirror` takes them.
pub const VARIABLE: &str = "IMAGEBUILD_MIRROR";
/// The archive that a mirror without a name carries.
const PLAIN: &str = "debian";
/// The archive of security updates, which stands beside the plain one on most mirrors.
const SECURITY: &str = "debian-security";

/// Base URLs by archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    bases: BTreeMap<String, Vec<Base>>,
    snapshot: Option<Base>,
}

/// A base URL without trailing slash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Base(String);

/// Why mirrors could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an HTTP URL.
    #[error(
        "`{0}` is not a mirror: expected `[ARCHIVE=]http://…` or `https://…`, without user and query"
    )]
    NotAUrl(String),
    /// The user's file cannot be read.
    #[error("failed to read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The user's file is malformed.
    #[error("failed to understand `{path}`")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// Nothing names a mirror.
    #[error(
        "no mirror is known for archive `{0}`; give `--mirror {0}=URL`, set `{VARIABLE}`, or write `mirrors.toml`"
    )]
    Unknown(String),
}

/// `mirrors.toml`: archives with their mirrors, and a snapshot archive.
#[derive(Debug, Deserialize)]
struct UserFile {
    snapshot: Option<String>,
    #[serde(flatten)]
    archives: BTreeMap<String, OneOrMore>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Base {
    /// Parses a URL.
    ///
    /// # Errors
    /// When it is no plain HTTP or HTTPS URL.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = || Error::NotAUrl(text.to_owned());
        let uri: hyper::Uri = text.parse().map_err(|_| bad())?;
        let plain = matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.query().is_none()
            && uri
                .authority()
                .is_some_and(|host| !host.as_str().contains('@'));
        if plain {
            Ok(Self(text.trim_end_matches('/').to_owned()))
        } else {
            Err(bad())
        }
    }

    /// The URL of a path below the base.
    #[must_use]
    pub fn join(&self, path: &str) -> String {
        format!("{}/{path}", self.0)
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Mirrors {
    /// Finds the mirrors: those given, else those of the environment, the user's file, or the machine's apt sources.
    ///
    /// # Errors
    /// When what is said is malformed. That nothing is said is an error only when a mirror is needed.
    pub fn find(given: &[String], snapshot: Option<&str>) -> Result<Self, Error> {
        let variable = std::env::var(VARIABLE).unwrap_or_default();
        let mut mirrors = Self::of(given.iter().map(String::as_str))?;
        if mirrors.bases.is_empty() {
            mirrors = Self::of(variable.split_ascii_whitespace())?;
        }
        if let Some(path) = user_file().filter(|path| path.is_file()) {
            let file = Self::load(&path)?;
            if mirrors.bases.is_empty() {
                mirrors.bases = file.bases;
            }
            mirrors.snapshot = file.snapshot;
        }
        if mirrors.bases.is_empty() {
            mirrors.bases = apt::bases(Path::new("/etc/apt"));
        }
        mirrors.add_security();
        match snapshot {
            Some(snapshot) => mirrors.with_snapshot(snapshot),
            None => Ok(mirrors),
        }
    }

    /// Names the snapshot archive.
    ///
    /// # Errors
    /// When it is no URL.
    pub fn with_snapshot(mut self, url: &str) -> Result<Self, Error> {
        self.snapshot = Some(Base::parse(url)?);
        Ok(self)
    }

    /// Takes mirrors as `--mirror` writes them: `[ARCHIVE=]URL`.
    ///
    /// # Errors
    /// When one is no URL.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let mut mirrors = Self::default();
        for text in texts {
            let (archive, url) = match text.split_once('=') {
                Some((archive, url)) if !archive.contains([':', '/']) => (archive, url),
                _ => (PLAIN, text),
            };
            mirrors.add(archive, Base::parse(url)?);
        }
        mirrors.add_security();
        Ok(mirrors)
    }

    /// Returns the mirrors of an archive, best first.
    ///
    /// # Errors
    /// When there is none.
    pub fn bases(&self, archive: &str) -> Result<&[Base], Error> {
        self.bases
            .get(archive)
            .map(Vec::as_slice)
            .ok_or_else(|| Error::Unknown(archive.to_owned()))
    }

    /// Returns the snapshot archive, if one is configured: its base holds `<archive>/<timestamp>/<path>`.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Base> {
        self.snapshot.as_ref()
    }

    fn add(&mut self, archive: &str, base: Base) {
        let bases = self.bases.entry(archive.to_owned()).or_default();
        if !bases.contains(&base) {
            bases.push(base);
        }
    }

    /// Looks for security updates beside the plain archive, unless it was said where they are.
    fn add_security(&mut self) {
        if !self.bases.contains_key(SECURITY)
            && let Some(plain) = self.bases.get(PLAIN)
        {
            let beside = plain
                .iter()
                .map(|base| Base(format!("{base}-security")))
                .collect();
            self.bases.insert(SECURITY.to_owned(), beside);
        }
    }

    fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_path_buf(),
            source,
        })?;
        let file: UserFile = toml::from_str(&text).map_err(|source| Error::Malformed {
            path: path.to_path_buf(),
            source: Box::new(source),
        })?;
        let mut mirrors = Self {
            bases: BTreeMap::new(),
            snapshot: file.snapshot.as_deref().map(Base::parse).transpose()?,
        };
        for (archive, urls) in file.archives {
            let urls = match urls {
                OneOrMore::One(url) => vec![url],
                OneOrMore::More(urls) => urls,
            };
            for url in urls {
                mirrors.add(&archive, Base::parse(&url)?);
            }
        }
        Ok(mirrors)
    }
}

fn user_file() -> Option<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("XDG_CONFIG_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".config")))
        .map(|config| config.join("imagebuild/mirrors.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(mirrors: &Mirrors, archive: &str) -> Vec<String> {
        let bases = mirrors.bases(archive).unwrap_or_default();
        bases.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn mirrors_are_kept_by_archive() {
        let given = [
            "http://one.test/debian/",
            "other=https://two.test",
            "http://one.test/debian",
        ];
        let mirrors = Mirrors::of(given).unwrap();
        assert_eq!(texts(&mirrors, "debian"), ["http://one.test/debian"]);
        assert_eq!(
            texts(&mirrors, "debian-security"),
            ["http://one.test/debian-security"]
        );
        assert_eq!(texts(&mirrors, "other"), ["https://two.test"]);
        assert!(matches!(mirrors.bases("absent"), Err(Error::Unknown(_))));
        let given = [
            "debian-security=http://sec.test/s",
            "http://one.test/debian",
        ];
        let mirrors = Mirrors::of(given).unwrap();
        assert_eq!(texts(&mirrors, "debian-security"), ["http://sec.test/s"]);
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in [
            "",
            "debian",
            "ftp://x/debian",
            "http://u:p@x/debian",
            "http://x/?q",
            "debian=",
            "http://",
        ] {
            assert!(Mirrors::of([text]).is_err(), "{text}");
        }
    }

    #[test]
    fn the_users_file_names_archives_and_a_snapshot() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mirrors.toml");
        let text = "snapshot = \"http://snap.test/archive\"\ndebian = \"http://a.test/d\"\nx = [\"http://b.test\", \"http://c.test\"]\n";
        std::fs::write(&path, text).unwrap();
        let mirrors = Mirrors::load(&path).unwrap();
        assert_eq!(
            mirrors.snapshot().unwrap().to_string(),
            "http://snap.test/archive"
        );
        assert_eq!(texts(&mirrors, "x"), ["http://b.test", "http://c.test"]);
        std::fs::write(&path, "debian = 1\n").unwrap();
        assert!(matches!(Mirrors::load(&path), Err(Error::Malformed { .. })));
    }
}
