//! Logins: a client with its secret, or with somebody's assertion, gets a token for one audience.

use serde_json::json;

use super::super::server::{Reply, Request};
use super::{State, World};

#[derive(Debug)]
pub(super) struct Issued {
    text: String,
    audience: String,
    left: Option<u32>,
}

/// Whether a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Good {
    Yes,
    /// It is none of ours, or old.
    No,
    /// It is for something else.
    Elsewhere,
}

pub(super) fn answer(world: &World, state: &mut State, request: &Request) -> Reply {
    let form = request.form();
    let value = |name: &str| {
        let found = form.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value.as_str())
    };
    let refuse = |word: &str, sentence: &str| {
        Reply::json(
            401,
            &json!({ "error": word, "error_description": sentence }),
        )
    };
    if !request.path.ends_with("/oauth2/v2.0/token") || request.method != hyper::Method::POST {
        return Reply::empty(404);
    }
    if value("grant_type") != "client_credentials" || value("client_id") != world.client.0 {
        return refuse("unauthorized_client", "AADSTS700016: no such application");
    }
    let assertion = value("client_assertion");
    let asserted = value("client_assertion_type").ends_with(":jwt-bearer")
        && world.assertions.iter().any(|known| known == assertion);
    if value("client_secret") != world.client.1 && !asserted {
        return refuse(
            "invalid_client",
            "AADSTS7000215: Invalid client secret provided.",
        );
    }
    let Some(audience) = value("scope").strip_suffix("/.default") else {
        return refuse("invalid_scope", "AADSTS70011: the scope is not valid");
    };
    let (text, life) = (state.issue(audience), state.mood.life.unwrap_or(3599));
    let token = json!({ "token_type": "Bearer", "expires_in": life, "access_token": text });
    Reply::json(200, &token)
}

impl State {
    pub(super) fn issue(&mut self, audience: &str) -> String {
        self.clock += 1;
        let text = format!("token-{}", self.clock);
        self.tokens.push(Issued {
            text: text.clone(),
            audience: audience.to_owned(),
            left: self.mood.uses,
        });
        text
    }
}

pub(super) fn check(state: &mut State, request: &Request, audience: &str) -> Good {
    let text = request.header("authorization").unwrap_or_default();
    let text = text.strip_prefix("Bearer ").unwrap_or_default();
    let issued = state.tokens.iter_mut().find(|issued| issued.text == text);
    match issued {
        None => Good::No,
        Some(issued) if issued.audience != audience => Good::Elsewhere,
        Some(issued) => match &mut issued.left {
            None => Good::Yes,
            Some(0) => Good::No,
            Some(left) => {
                *left -= 1;
                Good::Yes
            }
        },
    }
}
