//! `netboot serve`: runs the appliance.
//!
//! It refuses to go into the background: a service manager does that.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::{DataDirectory, Exit, Failure, SiteDirectory};
use crate::data::DataError;
use crate::serve::{self, Options, ServeError};
use crate::tls::Given;

/// Serve the hosts of a site, and those who operate them: DHCP, TFTP, HTTP, HTTPS and the API.
///
/// A site that was applied is served instead of the directory. SIGHUP reads certificates and secrets again, and the
/// directory as long as none was applied; a site that has problems is reported, and the old one stays.
/// SIGTERM ends it. `RUST_LOG` chooses what is logged, such as `debug` for one line a packet.
#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    site: SiteDirectory,
    #[command(flatten)]
    data: DataDirectory,
    /// Directory with the images: an OCI image layout.
    #[arg(long, value_name = "DIR", env = "NETBOOT_STORE")]
    store: PathBuf,
    /// The server's certificate and those above it (PEM), the authority's last; the appliance makes its own without it.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Log as JSON, one object a line.
    #[arg(long)]
    json_log: bool,
}

impl Serve {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        log(self.json_log)?;
        let runtime = tokio::runtime::Runtime::new().map_err(Failure::new)?;
        let options = Options {
            site: self.site.site,
            data: self.data.data,
            store: self.store,
            certificate: self
                .tls_certificate
                .zip(self.tls_key)
                .map(|(certificate, key)| Given { certificate, key }),
        };
        runtime.block_on(serve::run(options)).map_err(failure)?;
        Ok(Exit::Done)
    }
}

fn log(json: bool) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let set = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_target(false).try_init()
    };
    set.map_err(Failure::new)
}

fn failure(error: ServeError) -> Failure {
    match error {
        ServeError::Site(error) => error.into(),
        ServeError::Bind(error) => {
            let help = error.help();
            Failure::new(error).help(help)
        }
        ServeError::Images(error) => Failure::new(ServeError::Images(error))
            .exit(Exit::Configuration)
            .help("build images into it with `imagebuild build images/… --store …`"),
        ServeError::Data(error @ DataError::InUse { .. }) => Failure::new(error)
            .help("stop the other one, or give this one a directory of its own with `--data`"),
        ServeError::Tls(error) => {
            let help = error.help();
            let failure = Failure::new(error).exit(Exit::Configuration);
            match help {
                Some(help) => failure.help(help),
                None => failure,
            }
        }
        error => Failure::new(error),
    }
}
