//! Who we are to a registry: the files and helpers that podman, skopeo and docker use.
//!
//! It refuses to show a secret: none is in an argument, a log, an error or a debug text.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::reference::Repository;

/// Variable that names the file, before all others.
pub const VARIABLE: &str = "REGISTRY_AUTH_FILE";
/// Largest file, and largest answer of a helper, that is read.
const LIMIT: usize = 1 << 20;
/// What a helper calls the user of an identity token.
const TOKEN_USER: &str = "<token>";
/// Docker Hub's key in files that docker wrote.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What a registry is shown.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// A token that others are asked for with.
    Identity(SecretString),
}

/// Why credentials could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be; what it holds is not told.
    #[error("`{}` is no file of credentials", .0.display())]
    Malformed(PathBuf),
    /// A helper could not be run, or gave no credentials that can be used.
    #[error("`{helper}` gave no credentials for `{host}`: {reason}")]
    Helper {
        /// The program.
        helper: String,
        /// The registry.
        host: String,
        /// Why.
        reason: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<SecretString>,
    identitytoken: Option<SecretString>,
    username: Option<String>,
    password: Option<SecretString>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: SecretString,
}

/// Finds credentials for a repository, if there are any.
///
/// # Errors
/// When a file or helper that should have them is broken.
pub fn find(repository: &Repository) -> Result<Option<Credentials>, Error> {
    for path in files() {
        let text = match fs::read(&path) {
            Ok(text) if text.len() <= LIMIT => text,
            Ok(_) => return Err(Error::Malformed(path)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                continue;
            }
            Err(source) => return Err(Error::Read { path, source }),
        };
        if text.trim_ascii().is_empty() {
            continue;
        }
        let file: AuthFile =
            serde_json::from_slice(&text).map_err(|_| Error::Malformed(path.clone()))?;
        if let Some(found) = file.find(repository, &path)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The files, in the order in which podman and skopeo read them (containers-auth.json(5)).
fn files() -> Vec<PathBuf> {
    let variable = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(given) = variable(VARIABLE) {
        return vec![given];
    }
    let home = variable("HOME");
    let below = |name: &str| home.as_ref().map(|home| home.join(name));
    let places = [
        variable("XDG_RUNTIME_DIR").map(|place| place.join("containers/auth.json")),
        variable("XDG_CONFIG_HOME")
            .or_else(|| below(".config"))
            .map(|place| place.join("containers/auth.json")),
        variable("DOCKER_CONFIG")
            .or_else(|| below(".docker"))
            .map(|place| place.join("config.json")),
    ];
    places.into_iter().flatten().collect()
}

impl AuthFile {
    fn find(&self, repository: &Repository, path: &Path) -> Result<Option<Credentials>, Error> {
        let host = &repository.host;
        if let Some(helper) = self.cred_helpers.get(host) {
            return ask(helper, host);
        }
        for key in keys(repository) {
            let Some(entry) = self.auths.get(&key) else {
                continue;
            };
            let found = entry.credentials();
            if let Some(found) = found.map_err(|Broken| Error::Malformed(path.to_owned()))? {
                return Ok(Some(found));
            }
        }
        match &self.creds_store {
            Some(helper) => ask(helper, host),
            None => Ok(None),
        }
    }
}

/// An entry that does not read as credentials.
struct Broken;

impl Entry {
    fn credentials(&self) -> Result<Option<Credentials>, Broken> {
        let given = |text: &&SecretString| !text.expose_secret().is_empty();
        if let Some(token) = self.identitytoken.as_ref().filter(given) {
            return Ok(Some(Credentials::Identity(token.clone())));
        }
        if let (Some(user), Some(password)) = (&self.username, &self.password) {
            return Ok(Some(Credentials::Password {
                user: user.clone(),
                password: password.clone(),
            }));
        }
        let Some(text) = self.auth.as_ref().filter(given) else {
            return Ok(None);
        };
        let bytes = STANDARD.decode(text.expose_secret().trim()).ok();
        let text = bytes
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(SecretString::from)
            .ok_or(Broken)?;
        let (user, password) = text.expose_secret().split_once(':').ok_or(Broken)?;
        Ok(Some(Credentials::Password {
            user: user.to_owned(),
            password: SecretString::from(password.trim_end_matches('\0')),
        }))
    }
}

/// The keys that a repository may stand under, the most specific first.
fn keys(repository: &Repository) -> Vec<String> {
    let mut keys = Vec::new();
    let mut key = repository.to_string();
    loop {
        keys.push(key.clone());
        match key.rfind('/') {
            Some(at) => key.truncate(at),
            None => break,
        }
    }
    keys.extend([
        format!("https://{}", repository.host),
        format!("https://{}/v1/", repository.host),
    ]);
    if repository.server() != repository.host {
        keys.push(HUB_KEY.to_owned());
    }
    keys
}

/// Asks a helper (docker-credential-helpers: the host goes in, JSON comes out).
fn ask(helper: &str, host: &str) -> Result<Option<Credentials>, Error> {
    let program = format!("docker-credential-{helper}");
    let failed = |reason: String| Error::Helper {
        helper: program.clone(),
        host: host.to_owned(),
        reason,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !helper.chars().all(plain) {
        return Err(failed("its name is none".to_owned()));
    }
    let mut command = Command::new(&program);
    let command = command
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not listen says so by its exit code.
        drop(input.write_all(host.as_bytes()));
    }
    let output = child
        .wait_with_output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).to_lowercase();
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(format!("it ended with {}", output.status)));
    }
    let malformed = || failed("its answer is malformed".to_owned());
    if output.stdout.len() > LIMIT {
        return Err(malformed());
    }
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|_| malformed())?;
    Ok(Some(if answer.username == TOKEN_USER {
        Credentials::Identity(answer.secret)
    } else {
        Credentials::Password {
            user: answer.username,
            password: answer.secret,
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_entry_is_taken_and_no_secret_is_shown() {
        let entry = |text: &str| STANDARD.encode(text);
        let text = format!(
            r#"{{"auths":{{"r.example":{{"auth":"{}"}},"r.example/team":{{"auth":"{}"}},"t.example":{{"identitytoken":"secret-t"}},
            "b.example":{{"auth":"%%"}},"e.example":{{}}}},"other":1}}"#,
            entry("a:secret-a"),
            entry("b:secret:b")
        );
        let file: AuthFile = serde_json::from_str(&text).unwrap();
        let find = |host: &str, path: &str| {
            let repository = Repository {
                host: host.to_owned(),
                path: path.to_owned(),
            };
            file.find(&repository, Path::new("auth.json"))
        };
        let told = |found: Option<Credentials>| match found {
            None => "none".to_owned(),
            Some(Credentials::Identity(token)) => format!("token {}", token.expose_secret()),
            Some(Credentials::Password { user, password }) => {
                format!("{user} {}", password.expose_secret())
            }
        };
        let cases = [
            ("r.example", "host", "a secret-a"),
            ("r.example", "team/host", "b secret:b"),
            ("r.example", "teams/host", "a secret-a"),
            ("t.example", "host", "token secret-t"),
            ("e.example", "host", "none"),
            ("r.example.evil", "host", "none"),
        ];
        for (host, path, expected) in cases {
            let found = find(host, path).unwrap();
            assert!(!format!("{found:?}").contains("secret-"), "{host}");
            assert_eq!(told(found), expected, "{host}/{path}");
        }
        let error = find("b.example", "host").unwrap_err();
        assert_eq!(error.to_string(), "`auth.json` is no file of credentials");
    }
}
