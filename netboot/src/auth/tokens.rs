//! All tokens of an appliance, in memory and in the store.
//!
//! It refuses to leave nobody in charge: when no token of an admin is live at start, it makes one.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use image_manifest::Digest;
use netboot_core::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use super::token::{self, KIND, TokenRow, TokenView, Wanted};
use super::{Role, token::TEXT_MAX};
use crate::durable::{self, Readable};
use crate::store::{Change, DocumentRow};

/// Name of the first token's file in the data directory.
pub(crate) const FIRST_FILE: &str = "admin.token";

/// Who makes first tokens.
const APPLIANCE: &str = "appliance";

/// Most tokens that are kept.
const MOST: usize = 1_000;

/// How long a token that ended can be seen.
const REMEMBERED: Duration = Duration::from_hours(90 * 24);

/// How exactly it is kept when a token was used: a write for each request would be one too many.
const USED_EVERY: Duration = Duration::from_mins(5);

/// Longest name of a token.
const NAME_MAX: usize = 63;

/// Who a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) hosts: Option<netboot_core::selector::Selector>,
}

/// Why a token admits nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// None was shown.
    #[error("no token was shown")]
    Missing,
    /// It is none of ours.
    #[error("this token is not known")]
    Unknown,
    /// Its time is over.
    #[error("this token has expired")]
    Expired,
    /// It was revoked.
    #[error("this token was revoked")]
    Revoked,
}

/// Why a token cannot be made, found or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The name cannot be one.
    #[error("`{name}` is no name for a token: 1 to {NAME_MAX} letters, digits, `-`, `_`, `.`")]
    Name {
        /// The name.
        name: String,
    },
    /// There is one with this name.
    #[error("there is a token `{name}`")]
    Taken {
        /// The name.
        name: String,
    },
    /// There is none with this name.
    #[error("there is no token `{name}`")]
    NotFound {
        /// The name.
        name: String,
    },
    /// There are too many.
    #[error("there are {MOST} tokens; revoke what is not used")]
    TooMany,
    /// It would be the last of an admin.
    #[error("`{name}` is the last live token of an admin for all hosts; make another one first")]
    Last {
        /// The name.
        name: String,
    },
    /// The system has no randomness to give.
    #[error("failed to make a token")]
    Random(#[source] getrandom::Error),
    /// The first token could not be written or read.
    #[error("failed to write or read `{}`", path.display())]
    File {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// All tokens.
#[derive(Debug)]
pub(crate) struct Tokens(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    rows: BTreeMap<String, TokenRow>,
    names: HashMap<Digest, String>,
}

impl Table {
    fn put(&mut self, row: &TokenRow) -> Change {
        let change = document(row);
        self.names.insert(row.digest, row.name.clone());
        if let Some(old) = self.rows.insert(row.name.clone(), row.clone())
            && old.digest != row.digest
        {
            self.names.remove(&old.digest);
        }
        change
    }

    fn remove(&mut self, name: &str) -> Option<[Change; 2]> {
        let row = self.rows.remove(name)?;
        self.names.remove(&row.digest);
        let removed = [KIND, token::USED_KIND].map(|kind| Change::Remove {
            kind: kind.to_owned(),
            name: name.to_owned(),
        });
        Some(removed)
    }

    /// Adds a first token under a name that is free, which it returns.
    fn put_first(&mut self, token: &SecretString, now: Timestamp) -> (String, Change) {
        // One of as many names and one more is free.
        let name = (1..=self.rows.len() + 1)
            .map(|number| match number {
                1 => "admin".to_owned(),
                _ => format!("admin-{number}"),
            })
            .find(|name| !self.rows.contains_key(name))
            .unwrap_or_default();
        let change = self.put(&TokenRow {
            name: name.clone(),
            digest: token::digest(token),
            role: Role::Admin,
            hosts: None,
            created: now,
            by: APPLIANCE.to_owned(),
            expires: None,
            revoked: None,
            used: None,
        });
        (name, change)
    }

    fn admins(&self, now: Timestamp) -> impl Iterator<Item = &TokenRow> {
        self.rows
            .values()
            .filter(move |row| row.role == Role::Admin && row.hosts.is_none() && row.is_live(now))
    }
}

/// A first token in place of others.
#[derive(Debug)]
pub(crate) struct Replaced {
    /// Its name.
    pub(crate) made: String,
    /// The names of those that admit nobody any more.
    pub(crate) revoked: Vec<String>,
    /// What must be stored.
    pub(crate) changes: Vec<Change>,
}

fn document(row: &TokenRow) -> Change {
    Change::Put(DocumentRow {
        kind: KIND.to_owned(),
        name: row.name.clone(),
        body: serde_json::json!(row).to_string(),
    })
}

impl Tokens {
    /// Takes what the store holds; what cannot be read admits nobody and is told.
    pub(crate) fn restore(documents: &[DocumentRow]) -> Self {
        let mut table = Table::default();
        for document in documents.iter().filter(|one| one.kind == KIND) {
            match serde_json::from_str(&document.body) {
                Ok(row) => drop(table.put(&row)),
                Err(error) => tracing::warn!(
                    token = document.name.as_str(), error = %error, "token cannot be read"
                ),
            }
        }
        for document in documents.iter().filter(|one| one.kind == token::USED_KIND) {
            if let (Some(row), Ok(at)) = (table.rows.get_mut(&document.name), document.body.parse())
            {
                row.used = Some(Timestamp(at));
            }
        }
        Self(Mutex::new(table))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the first token, or another one where nobody is in charge any more.
    ///
    /// The file comes before the store: after a crash between them the same token is taken up.
    pub(crate) fn ensure_admin(
        &self,
        data: &Path,
        now: Timestamp,
    ) -> Result<Option<Change>, TokenError> {
        let mut table = self.table();
        if table.admins(now).next().is_some() {
            return Ok(None);
        }
        let path = data.join(FIRST_FILE);
        let failed = |source| TokenError::File {
            path: path.clone(),
            source,
        };
        let there = read_token(&path).map_err(failed)?;
        let unused = there.filter(|token| !table.names.contains_key(&token::digest(token)));
        let token = match unused {
            Some(token) => token,
            None => write_first(data)?,
        };
        Ok(Some(table.put_first(&token, now).1))
    }

    /// Makes another first token, in place of all that the appliance made: whoever asks has lost it.
    ///
    /// Where it is not stored then, the file holds a token that admits nobody, and it is done again.
    pub(crate) fn replace_first(
        &self,
        data: &Path,
        now: Timestamp,
    ) -> Result<Replaced, TokenError> {
        let mut table = self.table();
        let first = |row: &&TokenRow| row.by == APPLIANCE && row.revoked.is_none();
        let lost: Vec<TokenRow> = table.rows.values().filter(first).cloned().collect();
        let token = write_first(data)?;
        let revoked = lost.into_iter().map(|row| TokenRow {
            revoked: Some(now),
            ..row
        });
        let revoked: Vec<TokenRow> = revoked.collect();
        let mut changes: Vec<Change> = revoked.iter().map(|row| table.put(row)).collect();
        let (made, change) = table.put_first(&token, now);
        changes.push(change);
        Ok(Replaced {
            made,
            revoked: revoked.into_iter().map(|row| row.name).collect(),
            changes,
        })
    }

    /// Finds out whose token a text is; a change, if there is one, may be stored some time.
    pub(crate) fn admit(
        &self,
        text: &str,
        now: Timestamp,
    ) -> Result<(Caller, Option<Change>), (Denied, Option<String>)> {
        if !token::is_plausible(text) {
            return Err((Denied::Unknown, None));
        }
        // A table keyed by hashes tells nothing by its timing: nobody can choose a hash.
        let digest = Digest::of(text.as_bytes());
        let mut table = self.table();
        let name = table.names.get(&digest).cloned();
        let row = name.and_then(|name| table.rows.get_mut(&name));
        let row = row.ok_or((Denied::Unknown, None))?;
        if row.revoked.is_some() {
            return Err((Denied::Revoked, Some(row.name.clone())));
        }
        if !row.is_live(now) {
            return Err((Denied::Expired, Some(row.name.clone())));
        }
        let caller = Caller {
            name: row.name.clone(),
            role: row.role,
            hosts: row.hosts.clone(),
        };
        let stale = row
            .used
            .is_none_or(|at| now < at || now.since(at) >= USED_EVERY);
        let change = stale.then(|| {
            row.used = Some(now);
            Change::Put(DocumentRow {
                kind: token::USED_KIND.to_owned(),
                name: row.name.clone(),
                body: now.0.to_string(),
            })
        });
        Ok((caller, change))
    }

    /// Makes a token; it admits nobody before [`Tokens::keep`].
    pub(crate) fn make(
        &self,
        wanted: &Wanted,
        by: &str,
        now: Timestamp,
    ) -> Result<(SecretString, TokenRow, Vec<Change>), TokenError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if wanted.name.is_empty() || wanted.name.len() > NAME_MAX || !wanted.name.bytes().all(plain)
        {
            let name = wanted.name.chars().take(NAME_MAX).collect();
            return Err(TokenError::Name { name });
        }
        let mut table = self.table();
        let old: Vec<String> = table
            .rows
            .values()
            .filter(|row| {
                let end = [row.revoked, row.expires].into_iter().flatten().min();
                end.is_some_and(|end| now.since(end) > REMEMBERED)
            })
            .map(|row| row.name.clone())
            .collect();
        let mut changes: Vec<Change> = old
            .iter()
            .filter_map(|name| table.remove(name))
            .flatten()
            .collect();
        if table.rows.contains_key(&wanted.name) {
            let name = wanted.name.clone();
            return Err(TokenError::Taken { name });
        }
        if table.rows.len() >= MOST {
            return Err(TokenError::TooMany);
        }
        let token = token::make().map_err(TokenError::Random)?;
        let row = TokenRow {
            name: wanted.name.clone(),
            digest: token::digest(&token),
            role: wanted.role,
            hosts: wanted.hosts.clone(),
            created: now,
            by: by.to_owned(),
            expires: wanted
                .valid_seconds
                .map(|seconds| now.after(Duration::from_secs(seconds))),
            revoked: None,
            used: None,
        };
        changes.push(document(&row));
        Ok((token, row, changes))
    }

    /// Finds the token that is to be revoked, as it will be; it admits until [`Tokens::keep`].
    pub(crate) fn revoke(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<(TokenRow, Vec<Change>), TokenError> {
        let table = self.table();
        let row = table.rows.get(name).ok_or_else(|| TokenError::NotFound {
            name: name.chars().take(NAME_MAX).collect(),
        })?;
        let mut admins = table.admins(now);
        if admins.next().is_some_and(|only| only.name == name) && admins.next().is_none() {
            let name = name.to_owned();
            return Err(TokenError::Last { name });
        }
        let revoked = TokenRow {
            revoked: row.revoked.or(Some(now)),
            ..row.clone()
        };
        let change = document(&revoked);
        Ok((revoked, vec![change]))
    }

    /// Lets a token count as it is stored now.
    pub(crate) fn keep(&self, row: TokenRow) {
        let mut table = self.table();
        let used = table.rows.get(&row.name).and_then(|row| row.used);
        drop(table.put(&TokenRow { used, ..row }));
    }

    /// Tells whether the token of this name admits somebody now: for what goes on after it was shown.
    pub(crate) fn is_live(&self, name: &str, now: Timestamp) -> bool {
        self.table()
            .rows
            .get(name)
            .is_some_and(|row| row.is_live(now))
    }

    /// Returns what may be read about all of them.
    pub(crate) fn views(&self, now: Timestamp) -> Vec<TokenView> {
        self.table()
            .rows
            .values()
            .map(|row| row.view(now))
            .collect()
    }
}

/// Makes a token and writes it where first tokens are.
fn write_first(data: &Path) -> Result<SecretString, TokenError> {
    let token = token::make().map_err(TokenError::Random)?;
    let line = zeroize::Zeroizing::new(format!("{}\n", token.expose_secret()));
    let written = durable::write(data, FIRST_FILE, line.as_bytes(), Readable::Owner);
    written.map(|()| token).map_err(|source| TokenError::File {
        path: data.join(FIRST_FILE),
        source,
    })
}

/// Reads the token of a file, if there is a whole one.
fn read_token(path: &Path) -> io::Result<Option<SecretString>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut text = zeroize::Zeroizing::new(String::new());
    file.take(TEXT_MAX as u64 + 2).read_to_string(&mut text)?;
    let text = text.trim();
    Ok(token::is_plausible(text).then(|| text.to_owned().into()))
}
