//! The small values of a site file, each with its own rule: names, domains, durations, keys.
//!
//! It refuses to guess: `10` is no duration, since it does not say of what.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use image_manifest::Digest;

use super::ImageRef;

/// A text that breaks the rule of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct MalformedWord {
    text: String,
    expected: &'static str,
}

fn malformed(text: &str, expected: &'static str) -> MalformedWord {
    MalformedWord {
        text: text.chars().take(80).collect(),
        expected,
    }
}

/// Reads and writes an enum as one of a few words.
macro_rules! words {
    ($type:ident, $expected:literal, $($word:literal => $value:ident),+) => {
        impl std::str::FromStr for $type {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$value),)+
                    _ => Err(concat!("expected ", $expected)),
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    $(Self::$value => $word,)+
                })
            }
        }
    };
}
pub(super) use words;

/// One label of a host name (RFC 1123 §2.1), in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Label(pub(super) Arc<str>);

impl FromStr for Label {
    type Err = MalformedWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_label(text) {
            Ok(Self(text.into()))
        } else {
            Err(malformed(
                text,
                "a name: at most 63 of a-z, 0-9 and `-`, with a letter or digit at both ends",
            ))
        }
    }
}

fn is_label(text: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    !text.is_empty()
        && text.len() <= 63
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.as_bytes().iter().all(inner)
}

/// A domain name without a dot at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Domain(pub(super) Arc<str>);

impl FromStr for Domain {
    type Err = MalformedWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_domain(text) {
            Ok(Self(text.into()))
        } else {
            Err(malformed(text, "a domain such as `rack1.example.net`"))
        }
    }
}

pub(super) fn is_domain(text: &str) -> bool {
    text.len() <= 200 && text.split('.').all(is_label)
}

/// Defines a text with a rule of its own.
macro_rules! texts {
    ($($(#[$doc:meta])* $type:ident: $expected:literal, $rule:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(super) struct $type(pub(super) Arc<str>);

        impl FromStr for $type {
            type Err = MalformedWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let rule: fn(&str) -> bool = $rule;
                if rule(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(malformed(text, $expected))
                }
            }
        }
    )+};
}

texts! {
    /// A text on one line, such as a serial number.
    Line: "one line of at most 255 characters", is_line;
    /// An account of a BMC: what is not ASCII becomes another account on the way.
    BmcUser: "a user: at most 255 printable ASCII characters",
        |text| is_line(text) && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    /// A file of the site directory.
    RelativePath: "a path in the site directory, without `..`", is_relative_path;
    /// A file of the site directory, or of the appliance.
    SecretPath: "a path in the site directory or an absolute one, without `..`",
        |text| is_relative_path(text.strip_prefix('/').unwrap_or(text));
    /// An environment variable.
    VariableName: "an environment variable such as `BMC_PASSWORD`",
        |text| is_name(text, b"_") && !text.starts_with(|c: char| c.is_ascii_digit());
    /// A credential of systemd: a file name.
    CredentialName: "a credential's name: a-z, A-Z, 0-9, `-`, `_` and `.`",
        |text| is_name(text, b"-_.") && !text.starts_with('.');
    /// A parameter, or the key of a label.
    ParameterName: "a name: at most 63 of a-z, A-Z, 0-9, `-`, `_` and `.`, that begins with a letter",
        |text| text.len() <= 63 && is_name(text, b"-_.")
            && text.starts_with(|c: char| c.is_ascii_alphabetic());
    /// The value of a label, which selectors can name.
    LabelValue: "a label's value: at most 63 of a-z, A-Z, 0-9, `-`, `_` and `.`",
        |text| text.len() <= 63 && is_name(text, b"-_.");
}

fn is_line(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && !text.contains(char::is_control)
}

fn is_name(text: &str, punctuation: &[u8]) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || punctuation.contains(&byte);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(good)
}

fn is_relative_path(text: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    is_line(text) && text.split('/').all(plain)
}

/// A time such as `90s`, `10m`, `12h` or `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl FromStr for Span {
    type Err = MalformedWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "a time such as `90s`, `10m`, `12h` or `7d`";
        let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
        let unit = match &text[digits.len()..] {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            _ => return Err(malformed(text, expected)),
        };
        let count = digits.bytes().all(|byte| byte.is_ascii_digit());
        let count: Option<u64> = count.then(|| digits.parse().ok()).flatten();
        count
            .and_then(|count| count.checked_mul(unit))
            .map(|seconds| Self(Duration::from_secs(seconds)))
            .ok_or_else(|| malformed(text, expected))
    }
}

/// One line of `authorized_keys` without options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SshKey(pub(super) Arc<str>);

impl FromStr for SshKey {
    type Err = MalformedWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "a public key such as `ssh-ed25519 AAAA… name`";
        let mut words = text.split(' ');
        let kind = words.next().unwrap_or_default();
        let key = words.next().unwrap_or_default();
        let known = ["ssh-", "ecdsa-", "sk-"]
            .iter()
            .any(|start| kind.starts_with(start));
        let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
        let good = known && key.starts_with("AAAA") && key.bytes().all(base64);
        if good && text.len() <= 16 * 1024 && !text.contains(char::is_control) {
            Ok(Self(text.into()))
        } else {
            Err(malformed(text, expected))
        }
    }
}

/// Arguments of the kernel's command line, separated by single spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommandLine(pub(super) Arc<str>);

impl FromStr for CommandLine {
    type Err = MalformedWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match crate::script::check_command_line(text) {
            Ok(()) => Ok(Self(text.into())),
            Err(_) => Err(malformed(
                text,
                "a command line: printable ASCII without `${`, `&&`, `||` or words that begin with `#`",
            )),
        }
    }
}

impl FromStr for ImageRef {
    type Err = MalformedWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "an image: a name, or `name@sha256:…`";
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let digest = digest.map(str::parse::<Digest>).transpose();
        match digest {
            Ok(digest) if is_label(name) => Ok(Self {
                name: name.into(),
                digest,
            }),
            _ => Err(malformed(text, expected)),
        }
    }
}

impl std::fmt::Display for ImageRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for ImageRef {
    type Error = MalformedWord;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> Self {
        image.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_name_their_unit() {
        let cases = [
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("2d", Some(172_800)),
            ("10", None),
            ("m", None),
            ("", None),
            ("1hm", None),
            ("+5s", None),
            ("99999999999999999999d", None),
        ];
        for (text, seconds) in cases {
            let span = text.parse::<Span>().ok().map(|span| span.0.as_secs());
            assert_eq!(span, seconds, "{text}");
        }
    }

    #[test]
    fn images_are_named_or_pinned() {
        let digest = Digest::of(b"x");
        assert_eq!("host".parse::<ImageRef>().unwrap().digest, None);
        let pinned: ImageRef = format!("host@{digest}").parse().unwrap();
        assert_eq!(pinned.digest, Some(digest));
        assert_eq!(pinned.to_string(), format!("host@{digest}"));
        for text in ["", "@", "Host", "host@", "host@sha256:00", "../host"] {
            assert!(text.parse::<ImageRef>().is_err(), "{text}");
        }
    }

    #[test]
    fn keys_are_one_line_of_a_known_kind() {
        assert!("ssh-ed25519 AAAAC3Nza lab".parse::<SshKey>().is_ok());
        for text in [
            "",
            "ssh-ed25519",
            "AAAA",
            "ssh-ed25519 AAAA\nssh-rsa AAAA",
            "command=\"x\" ssh-rsa AAAA",
        ] {
            assert!(text.parse::<SshKey>().is_err(), "{text}");
        }
    }
}
