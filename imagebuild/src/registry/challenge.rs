//! What a registry asks for when it answers 401 (RFC 9110 §11.6.1, and Docker's token specification).
//!
//! It refuses schemes other than Basic and Bearer.

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password, with every request.
    Basic,
    /// A token of somebody who knows name and password.
    Bearer {
        /// URL that gives tokens.
        realm: String,
        /// What the token is for.
        service: Option<String>,
        /// What it lets do.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads one header; Bearer is taken before Basic when it offers both.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let mut basic = false;
        let mut rest = header.trim();
        while !rest.is_empty() {
            let (scheme, after) = rest.split_once(' ').unwrap_or((rest, ""));
            let (parameters, after) = parameters(after);
            let find = |name: &str| {
                let mut found = parameters.iter();
                found
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = find("realm")
            {
                return Some(Self::Bearer {
                    realm,
                    service: find("service"),
                    scope: find("scope"),
                });
            }
            basic |= scheme.trim_end_matches(',').eq_ignore_ascii_case("basic");
            rest = after;
        }
        basic.then_some(Self::Basic)
    }
}

/// Takes `name=value` pairs until the next scheme begins.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((name, after)) = rest.split_once('=') {
        // A word before the name is the next scheme.
        if name.trim().contains([' ', '"']) || found.len() == 16 {
            break;
        }
        let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
            quote(quoted)
        } else {
            let end = after.find([',', ' ']).unwrap_or(after.len());
            (after[..end].to_owned(), &after[end..])
        };
        found.push((name.trim().to_owned(), value));
        rest = after.trim_start_matches([' ', ',']);
    }
    (found, rest)
}

/// Takes the rest of a quoted text.
fn quote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            plain => value.push(plain),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(str::to_owned),
                scope: scope.map(str::to_owned),
            })
        };
        let cases = [
            (
                r#"Bearer realm="https://a/token",service="r",scope="repository:a/b:pull,push""#,
                bearer(
                    "https://a/token",
                    Some("r"),
                    Some("repository:a/b:pull,push"),
                ),
            ),
            (
                "bearer realm=https://a/token, service=r",
                bearer("https://a/token", Some("r"), None),
            ),
            (
                r#"Basic realm="x y", Bearer realm="https://a""#,
                bearer("https://a", None, None),
            ),
            (r#"Bearer realm="a\"b""#, bearer("a\"b", None, None)),
            (r#"Basic realm="Registry""#, Some(Challenge::Basic)),
            ("Basic", Some(Challenge::Basic)),
            ("Negotiate", None),
            ("Bearer service=x", None),
            ("", None),
        ];
        for (header, expected) in cases {
            assert_eq!(Challenge::parse(header), expected, "{header}");
        }
    }
}
