//! Which hosts a command is about: `web1`, `role=web,rack=r1`, `label.tier=front`, `all`.
//!
//! It refuses words that select nothing in a site: a typing error must not become an empty change.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::site::{Host, Site};

/// Which hosts a command is about; a host is selected when any of the words selects it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Selector {
    words: Vec<Word>,
}

/// Conditions that a host must fulfil, all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Word(Vec<Term>);

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Term {
    All,
    Host(Arc<str>),
    Role(Arc<str>),
    Rack(Arc<str>),
    Environment(Arc<str>),
    Label { key: Arc<str>, value: Arc<str> },
}

/// Why a text selects nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// No word was given.
    #[error("no hosts are named; `all` is every host")]
    Empty,
    /// A word has another form.
    #[error(
        "`{word}` selects nothing; a selector is a host, `role=…`, `rack=…`, `environment=…`, `label.KEY=…`, several with `,` between, or `all`"
    )]
    Malformed {
        /// The word.
        word: String,
    },
    /// A word selects no host of the site.
    #[error("`{word}` selects no host of site `{site}`")]
    Nobody {
        /// The word.
        word: String,
        /// The site.
        site: Arc<str>,
    },
    /// There are too many words.
    #[error("a selector has at most {MOST_WORDS} words")]
    TooMany,
}

/// More than the largest site has racks, and few enough to match every host against.
const MOST_WORDS: usize = 1024;

impl Selector {
    /// Selects every host.
    #[must_use]
    pub fn all() -> Self {
        let words = vec![Word(vec![Term::All])];
        Self { words }
    }

    /// Selects one host.
    #[must_use]
    pub fn host(name: &Arc<str>) -> Self {
        let words = vec![Word(vec![Term::Host(Arc::clone(name))])];
        Self { words }
    }

    /// Reads several words; a host is selected when any of them selects it.
    ///
    /// # Errors
    /// When there is no word, or one has another form.
    pub fn of<T: AsRef<str>>(words: &[T]) -> Result<Self, SelectorError> {
        if words.is_empty() {
            return Err(SelectorError::Empty);
        }
        if words.len() > MOST_WORDS {
            return Err(SelectorError::TooMany);
        }
        let words = words.iter().map(|word| word.as_ref().parse());
        Ok(Self {
            words: words.collect::<Result<_, _>>()?,
        })
    }

    /// Tells whether a host is selected.
    #[must_use]
    pub fn selects(&self, host: &Host) -> bool {
        self.words.iter().any(|word| word.selects(host))
    }

    /// Checks that every word selects a host of a site.
    ///
    /// # Errors
    /// With the first word that does not.
    pub fn check(&self, site: &Site) -> Result<(), SelectorError> {
        let nobody = |word: &&Word| !site.hosts().any(|host| word.selects(host));
        match self.words.iter().find(nobody) {
            None => Ok(()),
            Some(word) => Err(SelectorError::Nobody {
                word: word.to_string(),
                site: Arc::clone(&site.name),
            }),
        }
    }
}

impl Word {
    fn selects(&self, host: &Host) -> bool {
        self.0.iter().all(|term| term.selects(host))
    }
}

impl Term {
    fn selects(&self, host: &Host) -> bool {
        match self {
            Self::All => true,
            Self::Host(name) => host.name == *name,
            Self::Role(role) => host.role == *role,
            Self::Rack(rack) => host.rack.as_ref() == Some(rack),
            Self::Environment(name) => host.environment.as_ref() == Some(name),
            Self::Label { key, value } => host.labels.get(key) == Some(value),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let good = |text: &str| !text.is_empty() && text.len() <= 63 && text.bytes().all(plain);
        let Some((key, value)) = text.split_once('=') else {
            return match text {
                "all" => Some(Self::All),
                name => good(name).then(|| Self::Host(name.into())),
            };
        };
        let wanted = good(value).then(|| Arc::from(value))?;
        match key {
            "host" => Some(Self::Host(wanted)),
            "role" => Some(Self::Role(wanted)),
            "rack" => Some(Self::Rack(wanted)),
            "environment" => Some(Self::Environment(wanted)),
            _ => {
                let key = key.strip_prefix("label.").filter(|key| good(key))?;
                Some(Self::Label {
                    key: key.into(),
                    value: wanted,
                })
            }
        }
    }
}

impl FromStr for Word {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let terms: Option<Vec<Term>> = text.split(',').map(Term::parse).collect();
        terms.map(Self).ok_or_else(|| SelectorError::Malformed {
            word: text.chars().take(200).collect(),
        })
    }
}

/// Reads words with spaces between.
impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        Self::of(&words)
    }
}

impl TryFrom<Vec<String>> for Selector {
    type Error = SelectorError;

    fn try_from(words: Vec<String>) -> Result<Self, Self::Error> {
        Self::of(&words)
    }
}

impl From<Selector> for Vec<String> {
    fn from(selector: Selector) -> Self {
        selector.words.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.words.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{word}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match term {
                Term::All => f.write_str("all"),
                // A host may be named `all`; only then it needs its key.
                Term::Host(name) if **name == *"all" => f.write_str("host=all"),
                Term::Host(name) => f.write_str(name),
                Term::Role(role) => write!(f, "role={role}"),
                Term::Rack(rack) => write!(f, "rack={rack}"),
                Term::Environment(name) => write!(f, "environment={name}"),
                Term::Label { key, value } => write!(f, "label.{key}={value}"),
            }?;
        }
        Ok(())
    }
}
