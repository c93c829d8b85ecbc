//! What one boot of one host says to the appliance, and how it proves that it is that boot.
//!
//! The token of the command line is shown once, for the credential that everything else shows. It refuses to show
//! either in the clear, or to whoever is not of the authority that the boot script named.

use std::fmt::Write as _;
use std::net::SocketAddrV4;

use image_manifest::{
    Credential, Digest, Exchange, HostConfig, HostSecrets, Report, Signed, Token,
};

use crate::http::{Connection, Error as HttpError};
use crate::tls::Trust;

/// The appliance, as one boot of one host sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Appliance {
    /// Address and port where it speaks TLS.
    pub(crate) server: SocketAddrV4,
    /// Digest of its authority's certificate.
    pub(crate) authority: Digest,
    /// Name of this boot.
    pub(crate) boot: String,
}

/// Why the appliance was not understood, or did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("TLS cannot be spoken")]
    Tls(#[from] rustls::Error),
    #[error("the kernel gives no randomness")]
    Random(#[source] getrandom::Error),
    #[error("the appliance's {0} is malformed")]
    Malformed(&'static str),
}

impl Error {
    /// Tells whether asking again cannot help.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Http(error) => error.is_final(),
            _ => true,
        }
    }

    /// Tells whether the appliance has what it was sent already.
    pub(crate) fn is_repetition(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_repetition())
    }
}

/// A boot that has its credential.
#[derive(Clone)]
pub(crate) struct Session {
    appliance: Appliance,
    trust: Trust,
    credential: Token,
}

/// Makes what no other run of stage1 knows.
pub(crate) fn nonce() -> Result<Exchange, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    let text = bytes
        .iter()
        .fold(String::with_capacity(32), |mut text, byte| {
            // Writing to a string cannot fail.
            write!(text, "{byte:02x}").ok();
            text
        });
    let nonce = text.parse().map_err(|_| Error::Malformed("nonce"))?;
    Ok(Exchange { nonce })
}

impl Session {
    /// Exchanges the boot's token for its credential; to be tried again with the same nonce only.
    pub(crate) fn begin(
        appliance: &Appliance,
        token: &Token,
        exchange: &Exchange,
    ) -> Result<Self, Error> {
        let trust = Trust::new(appliance.authority)?;
        let mut connection = Connection::open_secure(appliance.server, &trust)?;
        // Plain data: it always has a JSON form.
        let body = serde_json::to_vec(exchange).unwrap_or_default();
        let answer = connection.post(&appliance.path("credential"), token, &body)?;
        // The parser's own message could repeat a part of it.
        let answer: Credential =
            serde_json::from_slice(&answer).map_err(|_| Error::Malformed("credential"))?;
        Ok(Self {
            appliance: appliance.clone(),
            trust,
            credential: answer.credential,
        })
    }

    /// Goes on with the credential of a boot.
    pub(crate) fn resume(appliance: Appliance, credential: Token) -> Result<Self, Error> {
        let trust = Trust::new(appliance.authority)?;
        Ok(Self {
            appliance,
            trust,
            credential,
        })
    }

    /// Asks who this host is.
    pub(crate) fn host_config(&self) -> Result<HostConfig, Error> {
        let path = self.appliance.path("host");
        let answer = self.connect()?.get(&path, &self.credential)?;
        serde_json::from_slice(&answer).map_err(|_| Error::Malformed("host configuration"))
    }

    /// Asks who vouches for the image that has a root file system.
    pub(crate) fn signed(&self, rootfs: &Digest) -> Result<Signed, Error> {
        let path = format!("/signed/{rootfs}");
        let answer = self.connect()?.get(&path, &self.credential)?;
        serde_json::from_slice(&answer).map_err(|_| Error::Malformed("signature"))
    }

    /// Asks for the secrets of this host; only the run of stage1 that knows the nonce is given them.
    pub(crate) fn secrets(&self, exchange: &Exchange) -> Result<HostSecrets, Error> {
        let path = self.appliance.path("secrets");
        let body = serde_json::to_vec(exchange).unwrap_or_default();
        let answer = self.connect()?.post(&path, &self.credential, &body)?;
        serde_json::from_slice(&answer).map_err(|_| Error::Malformed("answer with secrets"))
    }

    /// Sends a report, once.
    pub(crate) fn report(&self, report: &Report) -> Result<(), Error> {
        let body = serde_json::to_vec(report).unwrap_or_default();
        let path = self.appliance.path("reports");
        self.connect()?.post(&path, &self.credential, &body)?;
        Ok(())
    }

    /// Returns what the agent has to know to go on.
    pub(crate) fn parts(&self) -> (&Appliance, &Token) {
        (&self.appliance, &self.credential)
    }

    fn connect(&self) -> Result<Connection, HttpError> {
        Connection::open_secure(self.appliance.server, &self.trust)
    }
}

impl Appliance {
    fn path(&self, what: &str) -> String {
        format!("/v1/boots/{}/{what}", self.boot)
    }
}
