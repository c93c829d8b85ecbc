//! The way back for who lost the first token: another one, made beside an appliance that does not run.
//!
//! It refuses to leave no trace: the audit log gets a record in the same transaction, with the name of the local user.

use std::path::{Path, PathBuf};

use netboot_core::Timestamp;
use serde_json::json;

use super::TokenError;
use super::tokens::{FIRST_FILE, Replaced, Tokens};
use crate::audit::{self, Chain};
use crate::data::{DataError, Held, name_of};
use crate::operate::{Deed, Who};
use crate::store::{self, Sqlite, Store as _, StoreError};

/// Why there is no other first token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResetError {
    /// The data directory cannot be had.
    #[error(transparent)]
    Data(#[from] DataError),
    /// No appliance ever ran there.
    #[error("`{}` is no data directory of an appliance: it holds no `{}`", path.display(), store::FILE)]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// The token could not be made or written.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was done.
#[derive(Debug)]
pub(crate) struct Reset {
    /// The file with the new token.
    pub(crate) file: PathBuf,
    /// Its name.
    pub(crate) made: String,
    /// The names of those that admit nobody any more.
    pub(crate) revoked: Vec<String>,
}

/// Somebody at the appliance's own computer.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    /// Who they say they are: the user that `sudo` was called by, else the user of this process.
    name: String,
    /// The user of this process.
    user: String,
}

impl Local {
    /// Finds out who runs this program.
    pub(crate) fn user() -> Self {
        let user = name_of(nix::unistd::getuid());
        let name = std::env::var("SUDO_USER")
            .ok()
            .filter(|name| !name.is_empty());
        Self {
            name: name.unwrap_or_else(|| user.clone()),
            user,
        }
    }
}

/// Revokes the first tokens of a data directory and writes another one, which is recorded.
///
/// # Errors
/// When an appliance runs there, none ever did, or it cannot be written: then the old ones are as they were.
pub(crate) async fn reset(data: &Path, by: &Local, now: Timestamp) -> Result<Reset, ResetError> {
    if !data.join(store::FILE).is_file() {
        let path = data.to_owned();
        return Err(ResetError::Empty { path });
    }
    let _held = Held::take_as_owner(data)?;
    let mut store = Sqlite::open(data).await?;
    let stored = store.load().await?;
    let tokens = Tokens::restore(&stored.documents);
    let Replaced {
        made,
        revoked,
        mut changes,
    } = tokens.replace_first(data, now)?;
    changes.push(audit::change(&Deed {
        at: now,
        who: Who {
            name: by.name.clone(),
            role: "local".to_owned(),
            peer: None,
            scope: None,
        },
        action: "token reset",
        object: made.clone(),
        request: json!({ "user": by.user, "revoked": revoked }),
        outcome: "done".to_owned(),
    }));
    Chain::after(&stored.newest).link(&mut changes);
    store.commit(&changes).await?;
    store.close().await?;
    Ok(Reset {
        file: data.join(FIRST_FILE),
        made,
        revoked,
    })
}
