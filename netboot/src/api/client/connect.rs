//! Connections to an appliance.
//!
//! It refuses plain HTTP, and certificates of other authorities.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cli::{Exit, Failure};

const HTTPS: u16 = 443;
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens connections to one appliance.
pub(super) struct Dialer {
    url: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
    ca: PathBuf,
    tls: TlsConnector,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Nobody is there.
    #[error("failed to reach the appliance at {url}")]
    Reach {
        /// Where it was looked for.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// The certificate is of somebody else.
    #[error("{url} is not the appliance whose authority is in `{}`", ca.display())]
    Stranger {
        /// Where it was looked for.
        url: String,
        /// The authority's file.
        ca: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ConnectError {
    /// Returns what may help.
    pub(super) fn help(&self) -> String {
        let help = match self {
            Self::Reach { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                "nothing listens there: is `netboot serve` running, and is `appliance.api` of its site this address?"
            }
            Self::Reach { .. } => "check `--url`, and that this computer can reach it",
            Self::Stranger { source, .. } if is_about_the_name(source) => {
                "its certificate is for other names: use the address of `appliance.api` or of a network, or the \
                 computer's own name"
            }
            Self::Stranger { .. } => {
                "if the appliance was installed anew, or restored without its authority, copy its `ca.pem` again; \
                 if not, do not send your token there"
            }
        };
        help.to_owned()
    }
}

impl Dialer {
    /// Reads an address and an authority.
    pub(super) fn new(url: &str, ca: &(PathBuf, Vec<u8>)) -> Result<Self, Failure> {
        let wrong = || {
            Failure::new(format!("`{url}` is not the address of an API"))
                .exit(Exit::Usage)
                .help("it looks like `https://10.0.0.5:9443`")
        };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let plain_path = matches!(uri.path(), "" | "/");
        if uri.scheme_str() != Some("https") || uri.query().is_some() || !plain_path {
            return Err(wrong());
        }
        let host = uri.host().ok_or_else(wrong)?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
        let mut roots = RootCertStore::empty();
        let found = CertificateDer::pem_slice_iter(&ca.1).filter_map(Result::ok);
        let (added, _) = roots.add_parsable_certificates(found);
        if added == 0 {
            return Err(
                Failure::new(format!("`{}` holds no certificate", ca.0.display()))
                    .exit(Exit::Configuration)
                    .help("copy `ca.pem` out of the appliance's data directory"),
            );
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(Failure::new)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            host,
            port: uri.port_u16().unwrap_or(HTTPS),
            name,
            ca: ca.0.clone(),
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn authority(&self) -> &str {
        self.url.trim_start_matches("https://")
    }

    /// Opens a connection.
    pub(super) async fn dial(&self) -> Result<TlsStream<TcpStream>, ConnectError> {
        let reach = |source| ConnectError::Reach {
            url: self.url.clone(),
            source,
        };
        let connect = async {
            let stream = TcpStream::connect((&*self.host, self.port))
                .await
                .map_err(reach)?;
            stream.set_nodelay(true).map_err(reach)?;
            let shaken = self.tls.connect(self.name.clone(), stream).await;
            shaken.map_err(|source| {
                if about_the_certificate(&source).is_some() {
                    ConnectError::Stranger {
                        url: self.url.clone(),
                        ca: self.ca.clone(),
                        source,
                    }
                } else {
                    reach(source)
                }
            })
        };
        match tokio::time::timeout(PATIENCE, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(reach(io::ErrorKind::TimedOut.into())),
        }
    }
}

fn about_the_certificate(error: &io::Error) -> Option<&CertificateError> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(reason) => Some(reason),
        _ => None,
    }
}

fn is_about_the_name(error: &io::Error) -> bool {
    matches!(
        about_the_certificate(error),
        Some(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })
    )
}
