//! Who asks in an OpenStack cloud: the `OS_…` settings of its own tools, from the environment or a file.
//!
//! It refuses to run a file of settings as the shell would, and to print a secret.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::error::Error;

/// How credentials errors name the cloud.
pub(super) const PROVIDER: &str = "OpenStack";

/// Who asks, and where.
#[derive(Debug)]
pub(super) struct Settings {
    /// Keystone, with its version.
    pub(super) auth_url: String,
    pub(super) region: Option<String>,
    /// `public`, `internal` or `admin`.
    pub(super) interface: String,
    identity: Identity,
    scope: Option<Value>,
}

#[derive(Debug)]
enum Identity {
    Password {
        user: Value,
        password: SecretString,
    },
    Application {
        application: Value,
        secret: SecretString,
    },
    Token(SecretString),
}

impl Settings {
    /// Reads the settings.
    ///
    /// # Errors
    /// When they are not whole.
    pub(super) fn load(openrc: Option<&str>) -> Result<Self, Error> {
        let all = match openrc {
            Some(path) => {
                let text = std::fs::read_to_string(Path::new(path));
                parse(&text.map_err(|error| bad(format!("failed to read `{path}`: {error}")))?)
            }
            None => std::env::vars()
                .filter(|(name, _)| name.starts_with("OS_"))
                .collect(),
        };
        Self::of(&all)
    }

    fn of(all: &BTreeMap<String, String>) -> Result<Self, Error> {
        let find = |name: &str| all.get(name).filter(|value| !value.is_empty()).cloned();
        let need = |name: &str| find(name).ok_or_else(|| bad(format!("`{name}` is not set")));
        let url = need("OS_AUTH_URL")?.trim_end_matches('/').to_owned();
        let auth_url = if url.ends_with("/v3") {
            url
        } else {
            format!("{url}/v3")
        };
        let domain = |what: &str| {
            let id = find(&format!("OS_{what}_DOMAIN_ID")).or_else(|| find("OS_DEFAULT_DOMAIN"));
            match find(&format!("OS_{what}_DOMAIN_NAME")) {
                Some(name) => json!({ "name": name }),
                None => json!({ "id": id.unwrap_or_else(|| "default".to_owned()) }),
            }
        };
        let user = || match find("OS_USER_ID") {
            Some(id) => Ok(json!({ "id": id })),
            None => {
                need("OS_USERNAME").map(|name| json!({ "name": name, "domain": domain("USER") }))
            }
        };
        let kind = find("OS_AUTH_TYPE").unwrap_or_default();
        let secret = |name: &str| need(name).map(SecretString::from);
        let identity = if kind == "v3applicationcredential"
            || all.contains_key("OS_APPLICATION_CREDENTIAL_SECRET")
        {
            let application = match find("OS_APPLICATION_CREDENTIAL_ID") {
                Some(id) => json!({ "id": id }),
                None => json!({ "name": need("OS_APPLICATION_CREDENTIAL_NAME")?, "user": user()? }),
            };
            Identity::Application {
                application,
                secret: secret("OS_APPLICATION_CREDENTIAL_SECRET")?,
            }
        } else if matches!(kind.as_str(), "token" | "v3token")
            || find("OS_PASSWORD").is_none() && find("OS_TOKEN").is_some()
        {
            Identity::Token(secret("OS_TOKEN")?)
        } else {
            Identity::Password {
                user: user()?,
                password: secret("OS_PASSWORD")?,
            }
        };
        let project = match (find("OS_PROJECT_ID"), find("OS_PROJECT_NAME")) {
            (Some(id), _) => Some(json!({ "project": { "id": id } })),
            (None, Some(name)) => {
                Some(json!({ "project": { "name": name, "domain": domain("PROJECT") } }))
            }
            (None, None) => None,
        };
        // An application credential is of one project, and may not be asked for another.
        let scope = project.filter(|_| !matches!(identity, Identity::Application { .. }));
        Ok(Self {
            auth_url,
            region: find("OS_REGION_NAME"),
            interface: find("OS_INTERFACE")
                .unwrap_or_else(|| "public".to_owned())
                .trim_end_matches("URL")
                .to_owned(),
            identity,
            scope,
        })
    }

    /// What Keystone is asked for a token with.
    pub(super) fn request(&self) -> Value {
        let identity = match &self.identity {
            Identity::Password { user, password } => {
                let mut user = user.clone();
                user["password"] = password.expose_secret().into();
                json!({ "methods": ["password"], "password": { "user": user } })
            }
            Identity::Application {
                application,
                secret,
            } => {
                let mut application = application.clone();
                application["secret"] = secret.expose_secret().into();
                json!({ "methods": ["application_credential"], "application_credential": application })
            }
            Identity::Token(token) => {
                json!({ "methods": ["token"], "token": { "id": token.expose_secret() } })
            }
        };
        let mut auth = json!({ "identity": identity });
        if let Some(scope) = &self.scope {
            auth["scope"] = scope.clone();
        }
        json!({ "auth": auth })
    }
}

pub(super) fn bad(reason: String) -> Error {
    Error::Credentials {
        provider: PROVIDER,
        reason,
    }
}

/// Lines `export NAME=value`, with or without quotes; all else of a script is left out.
fn parse(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim);
    let pairs =
        lines.filter_map(|line| line.strip_prefix("export ").unwrap_or(line).split_once('='));
    let ours = pairs.filter(|(name, _)| name.starts_with("OS_"));
    let plain = ours.filter_map(|(name, value)| {
        let value = value.trim();
        let quoted = ['"', '\'']
            .into_iter()
            .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
        let value = quoted.unwrap_or(value);
        // `$OS_PASSWORD_INPUT` and the like are for a shell that asks.
        (!value.starts_with('$')).then(|| (name.to_owned(), value.to_owned()))
    });
    plain.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, Error> {
        Settings::of(&parse(text))
    }

    #[test]
    fn a_file_is_read_as_the_dashboard_writes_it() {
        let text = "#!/usr/bin/env bash\nexport OS_AUTH_URL=https://keystone.example:5000/\n# a comment\nread -sr OS_PASSWORD_INPUT\n\
            export OS_USERNAME=\"ci user\"\nexport OS_PASSWORD='s=\"esam'\nexport OS_USER_DOMAIN_NAME=Default\nexport OS_PROJECT_NAME=images\n\
            export OS_PROJECT_DOMAIN_ID=abc\nif [ -z \"$OS_REGION_NAME\" ]; then unset OS_REGION_NAME; fi\nexport OS_INTERFACE=internalURL\n";
        let found = settings(text).unwrap();
        assert_eq!(found.auth_url, "https://keystone.example:5000/v3");
        assert_eq!(
            (found.region.as_deref(), found.interface.as_str()),
            (None, "internal")
        );
        let expected = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": { "name": "ci user", "domain": { "name": "Default" }, "password": "s=\"esam" } } },
            "scope": { "project": { "name": "images", "domain": { "id": "abc" } } },
        } });
        assert_eq!(found.request(), expected);
        assert!(!format!("{found:?}").contains("esam"));
    }

    #[test]
    fn each_kind_of_credentials_is_asked_with_as_keystone_wants_it() {
        let url = "OS_AUTH_URL=https://k/v3\n";
        let cases = [
            (
                "application credential",
                "OS_APPLICATION_CREDENTIAL_ID=i\nOS_APPLICATION_CREDENTIAL_SECRET=s\nOS_PROJECT_ID=p",
                json!({ "auth": { "identity": { "methods": ["application_credential"], "application_credential": { "id": "i", "secret": "s" } } } }),
            ),
            (
                "token",
                "OS_TOKEN=t\nOS_PROJECT_ID=p",
                json!({ "auth": { "identity": { "methods": ["token"], "token": { "id": "t" } }, "scope": { "project": { "id": "p" } } } }),
            ),
        ];
        for (name, text, expected) in cases {
            assert_eq!(
                settings(&format!("{url}{text}")).unwrap().request(),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let cases = [
            ("", "`OS_AUTH_URL`"),
            ("OS_AUTH_URL=https://k", "`OS_USERNAME`"),
            ("OS_AUTH_URL=https://k\nOS_USERNAME=u", "`OS_PASSWORD`"),
            (
                "OS_AUTH_URL=https://k\nOS_USERNAME=u\nexport OS_PASSWORD=$OS_PASSWORD_INPUT",
                "`OS_PASSWORD`",
            ),
            ("OS_AUTH_URL=https://k\nOS_AUTH_TYPE=v3token", "`OS_TOKEN`"),
        ];
        for (text, expected) in cases {
            let error = settings(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
