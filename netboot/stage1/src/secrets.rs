//! What the site gives to the programs of one host: secrets, and parameters that everybody may read.
//!
//! Both stand in memory only, under `/run`, which the running system takes over. A secret is where systemd looks for
//! credentials (`ImportCredential=`, `LoadCredential=`), and only root can read it. It refuses names that are no plain
//! file names.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use image_manifest::HostSecrets;

/// Where systemd looks for credentials that are not encrypted.
const STORE: &str = "credstore";
/// Beside the agent and the image.
const PARAMETERS: &str = "firstboot/parameters.json";

/// Why a host does not have what its site gives it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the secret `{0}` is not among those that the appliance gave")]
    Missing(String),
    #[error("`{0}` is no name of a secret")]
    Name(String),
    #[error("failed to write the secret `{name}`")]
    Secret { name: String, source: io::Error },
    #[error("failed to make the directory of secrets")]
    Store(#[source] io::Error),
    #[error("failed to write the host's parameters")]
    Parameters(#[source] io::Error),
}

/// Writes the secrets of a host below `/run`; each one that it was promised has to be there.
pub(crate) fn place(promised: &[String], given: &HostSecrets, run: &Path) -> Result<(), Error> {
    if let Some(missing) = promised
        .iter()
        .find(|name| !given.secrets.contains_key(*name))
    {
        return Err(Error::Missing(missing.clone()));
    }
    if given.secrets.is_empty() {
        return Ok(());
    }
    let store = run.join(STORE);
    let mut directory = DirBuilder::new();
    let made = directory.recursive(true).mode(0o700).create(&store);
    made.map_err(Error::Store)?;
    for (name, secret) in &given.secrets {
        if !is_name(name) {
            return Err(Error::Name(name.clone()));
        }
        write(&store.join(name), 0o400, secret.expose()).map_err(|source| Error::Secret {
            name: name.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Writes the parameters of a host below `/run`.
pub(crate) fn place_parameters(
    parameters: &BTreeMap<String, serde_json::Value>,
    run: &Path,
) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(parameters);
    let text = text.map_err(|error| Error::Parameters(error.into()))?;
    write(&run.join(PARAMETERS), 0o444, &text).map_err(Error::Parameters)
}

/// A name that systemd takes for a credential, and that leads nowhere else.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=255).contains(&name.len()) && !name.starts_with('.') && name.chars().all(allowed)
}

fn write(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use image_manifest::Secret;

    use super::*;

    fn given(names: &[&str]) -> HostSecrets {
        let secret = |name: &&str| ((*name).to_owned(), Secret::new(b"s3\0cret".to_vec()));
        HostSecrets {
            secrets: names.iter().map(secret).collect(),
        }
    }

    #[test]
    fn secrets_are_roots_alone() {
        let run = tempfile::tempdir().unwrap();
        place(&["db".to_owned()], &given(&["db", "tls.key"]), run.path()).unwrap();
        let store = run.path().join("credstore");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&store), 0o700);
        for name in ["db", "tls.key"] {
            assert_eq!(mode(&store.join(name)), 0o400, "{name}");
            assert_eq!(fs::read(store.join(name)).unwrap(), b"s3\0cret");
        }
    }

    #[test]
    fn what_was_promised_is_there_and_nothing_is_written_elsewhere() {
        let run = tempfile::tempdir().unwrap();
        let missing = place(&["db".to_owned()], &given(&["other"]), run.path());
        assert!(matches!(missing, Err(Error::Missing(name)) if name == "db"));
        for name in ["../passwd", "a/b", "", ".hidden", "..", "a b"] {
            let refused = place(&[], &given(&[name]), run.path());
            assert!(matches!(refused, Err(Error::Name(_))), "{name}");
        }
        assert!(!run.path().join("passwd").exists());
    }

    #[test]
    fn parameters_are_json_for_everybody() {
        let run = tempfile::tempdir().unwrap();
        fs::create_dir(run.path().join("firstboot")).unwrap();
        let parameters = BTreeMap::from([
            ("tier".to_owned(), "front".into()),
            ("n".to_owned(), 3.into()),
        ]);
        place_parameters(&parameters, run.path()).unwrap();
        let text = fs::read(run.path().join(PARAMETERS)).unwrap();
        let read: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&text).unwrap();
        assert_eq!(read, parameters);
    }
}
