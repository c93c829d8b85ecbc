//! Who logs in to a BMC, and as what.

use std::fmt;
use std::sync::Arc;

use secrecy::ExposeSecret as _;

use crate::bmc::{Credentials, Error};
use crate::crypto::{Key, key};

/// What a session may do (IPMI 2.0 §6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privilege {
    /// Read.
    User,
    /// Act on power and boot devices.
    Operator,
    /// Change the BMC; some want it for SOL.
    Administrator,
}

impl Privilege {
    /// Its number in IPMI.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::User => 2,
            Self::Operator => 3,
            Self::Administrator => 4,
        }
    }
}

/// Who logs in to a BMC.
#[derive(Clone)]
pub struct Login {
    /// The account's name.
    pub user: Arc<str>,
    pub(super) password: Key,
    pub(super) kg: Option<Key>,
    /// As what.
    pub privilege: Privilege,
}

impl fmt::Debug for Login {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Login")
            .field("user", &self.user)
            .field("privilege", &self.privilege)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// The credentials as IPMI keeps them.
    ///
    /// # Errors
    /// [`Error::Credentials`] if something is too long.
    pub fn new(credentials: &Credentials, privilege: Privilege) -> Result<Self, Error> {
        let long = |what: &str| Error::Credentials {
            detail: format!("the {what} is longer than 20 bytes"),
        };
        let password =
            key(credentials.password.expose_secret().as_bytes()).ok_or_else(|| long("password"))?;
        let kg = match &credentials.kg {
            Some(kg) => Some(key(kg.expose_secret()).ok_or_else(|| long("bmc key"))?),
            None => None,
        };
        Ok(Self {
            user: Arc::clone(&credentials.user),
            password,
            kg,
            privilege,
        })
    }

    /// The same account with another privilege.
    #[must_use]
    pub fn with(&self, privilege: Privilege) -> Self {
        Self {
            privilege,
            ..self.clone()
        }
    }

    /// The role byte of RAKP 1: the user is looked up by name alone, whatever its privilege (IPMI 2.0 §13.20);
    /// without that bit an operator's account is not found by somebody who asks for more.
    pub(super) fn role(&self) -> u8 {
        0x10 | self.privilege.number()
    }
}
