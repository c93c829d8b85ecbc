//! What the boot script, or the image on a disk, says to stage1 on the kernel's command line.
//!
//! It reads text only. Every problem is collected, so that one look at the console tells all.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

use image_manifest::{Digest, Token};

use crate::session::Appliance;
use crate::verity::RootHash;

/// Where the root comes from.
pub(crate) enum Way {
    /// From an appliance, whose boot script says so.
    Network(Box<Parameters>),
    /// From a disk, whose root file system has this hash.
    Disk(RootHash),
}

/// What stage1 has to know before it can speak to the appliance.
pub(crate) struct Parameters {
    /// Address and port of the appliance's HTTP server, for artifacts.
    pub(crate) server: SocketAddrV4,
    /// Which boot of which host this is, and how to say so to the appliance.
    pub(crate) appliance: Appliance,
    /// What lets this boot have its credential.
    pub(crate) token: Token,
    /// The interface that the host booted from.
    pub(crate) mac: Mac,
    /// The host's address.
    pub(crate) address: Ipv4Addr,
    /// Length of the network's prefix.
    pub(crate) prefix: u8,
    /// The default router, if there is one.
    pub(crate) router: Option<Ipv4Addr>,
}

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

/// Everything that is wrong with the command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel command line is no boot script's: {}", .0.join(", "))]
pub(crate) struct UnusableCommandLine(Vec<String>);

/// Reads `/proc/cmdline`: a boot script's words count more than a root hash, because the appliance writes behind
/// the image.
pub(crate) fn way(text: &str) -> Result<Way, UnusableCommandLine> {
    let words = words(text);
    let is_scripted = words
        .iter()
        .any(|word| unquoted(word).starts_with("firstboot."));
    let mut hashes = words
        .iter()
        .filter_map(|word| unquoted(word).strip_prefix("roothash="))
        .map(unquoted);
    match (hashes.next(), hashes.next()) {
        (Some(hash), None) if !is_scripted => match hash.parse() {
            Ok(hash) => Ok(Way::Disk(hash)),
            Err(()) => Err(UnusableCommandLine(vec![
                "`roothash` is malformed".to_owned(),
            ])),
        },
        // Which of them was signed is not known.
        (Some(_), Some(_)) if !is_scripted => Err(UnusableCommandLine(vec![
            "`roothash` stands twice".to_owned(),
        ])),
        _ => parse(text).map(|parameters| Way::Network(Box::new(parameters))),
    }
}

/// Reads the parameters of `/proc/cmdline`; of one that stands twice the last counts, because
/// the appliance writes behind the image.
fn parse(text: &str) -> Result<Parameters, UnusableCommandLine> {
    let words = words(text);
    let mut problems = Vec::new();
    let server = required(
        &words,
        "url",
        |text| address_of(text, "http://", 80),
        &mut problems,
    );
    let secure = required(
        &words,
        "tls",
        |text| address_of(text, "https://", 443),
        &mut problems,
    );
    let authority = required(
        &words,
        "ca",
        |text| text.parse::<Digest>().ok(),
        &mut problems,
    );
    let boot = required(&words, "boot", boot, &mut problems);
    let token = required(
        &words,
        "token",
        |text| text.parse::<Token>().ok(),
        &mut problems,
    );
    let mac = required(&words, "mac", |text| text.parse().ok(), &mut problems);
    let address = required(&words, "ip", address, &mut problems);
    let router = match value(&words, "gw") {
        None | Some("") => Some(None),
        Some(_) => required(&words, "gw", |text| text.parse().ok(), &mut problems).map(Some),
    };
    match (server, secure, authority, boot, token, mac, address, router) {
        (
            Some(server),
            Some(secure),
            Some(authority),
            Some(boot),
            Some(token),
            Some(mac),
            Some((address, prefix)),
            Some(router),
        ) => Ok(Parameters {
            server,
            appliance: Appliance {
                server: secure,
                authority,
                boot,
            },
            token,
            mac,
            address,
            prefix,
            router,
        }),
        _ => Err(UnusableCommandLine(problems)),
    }
}

/// Returns the command line without the token, for those who may read it on the running host.
pub(crate) fn redact(text: &str) -> String {
    let kept: Vec<_> = words(text)
        .into_iter()
        .filter(|word| !unquoted(word).starts_with("firstboot.token="))
        .collect();
    kept.join(" ") + "\n"
}

/// Splits at white space outside of double quotes, as the kernel does.
fn words(text: &str) -> Vec<&str> {
    let mut quoted = false;
    text.split(|c: char| {
        if c == '"' {
            quoted = !quoted;
        }
        c.is_ascii_whitespace() && !quoted
    })
    .filter(|word| !word.is_empty())
    .collect()
}

fn unquoted(word: &str) -> &str {
    word.trim_matches('"')
}

fn value<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().rev().find_map(|word| {
        let rest = unquoted(word).strip_prefix("firstboot.")?;
        let (found, value) = rest.split_once('=')?;
        (found == name).then(|| unquoted(value))
    })
}

fn required<T>(
    words: &[&str],
    name: &str,
    read: impl Fn(&str) -> Option<T>,
    problems: &mut Vec<String>,
) -> Option<T> {
    let Some(text) = value(words, name) else {
        problems.push(format!("`firstboot.{name}` is missing"));
        return None;
    };
    let read = read(text);
    if read.is_none() {
        // The value stays out of the message: it may be a token.
        problems.push(format!("`firstboot.{name}` is malformed"));
    }
    read
}

fn address_of(text: &str, scheme: &str, port: u16) -> Option<SocketAddrV4> {
    let rest = text.strip_prefix(scheme)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    rest.parse()
        .or_else(|_| rest.parse().map(|address| SocketAddrV4::new(address, port)))
        .ok()
}

fn boot(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let fits = (1..=128).contains(&text.len()) && text.chars().all(allowed);
    fits.then(|| text.to_owned())
}

fn address(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
    Some((address.parse().ok()?, prefix))
}

impl FromStr for Mac {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let two_digits = |part: &&str| {
                // `from_str_radix` alone would take a sign.
                part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit())
            };
            let part = parts.next().filter(two_digits).ok_or(())?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| ())?;
        }
        parts.next().is_none().then_some(Self(bytes)).ok_or(())
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "console=ttyS0 initrd=initrd firstboot.url=http://10.77.0.1 \
        firstboot.tls=https://10.77.0.1:8443 \
        firstboot.ca=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 \
        firstboot.boot=b-1 firstboot.token=s3cret firstboot.mac=52:54:00:77:00:01 \
        firstboot.ip=10.77.0.11/24 firstboot.gw=10.77.0.1\n";

    #[test]
    fn a_boot_script_is_understood() {
        let parameters = parse(GOOD).ok().unwrap();
        assert_eq!(parameters.server.to_string(), "10.77.0.1:80");
        assert_eq!(parameters.appliance.server.to_string(), "10.77.0.1:8443");
        assert_eq!(parameters.appliance.authority, Digest::of(b""));
        assert_eq!(parameters.appliance.boot, "b-1");
        assert_eq!(parameters.token.expose(), "s3cret");
        assert_eq!(parameters.mac.to_string(), "52:54:00:77:00:01");
        assert_eq!(
            (parameters.address, parameters.prefix),
            ([10, 77, 0, 11].into(), 24)
        );
        assert_eq!(parameters.router, Some([10, 77, 0, 1].into()));
    }

    #[test]
    fn every_problem_is_named_and_no_value_repeated() {
        let missing = "is missing";
        let malformed = "is malformed";
        let cases = [
            ("nothing", String::new(), "firstboot.token", missing),
            (
                "a name",
                GOOD.replace("http://10.77.0.1", "http://boot.test"),
                "firstboot.url",
                malformed,
            ),
            (
                "https",
                GOOD.replace("http:", "https:"),
                "firstboot.url",
                malformed,
            ),
            (
                "no https",
                GOOD.replace("https:", "http:"),
                "firstboot.tls",
                malformed,
            ),
            (
                "a short authority",
                GOOD.replace("sha256:e3", "sha256:"),
                "firstboot.ca",
                malformed,
            ),
            (
                "a path",
                GOOD.replace("http://10.77.0.1", "http://10.77.0.1/x"),
                "firstboot.url",
                malformed,
            ),
            (
                "a slash in the boot",
                GOOD.replace("b-1", "../b"),
                "firstboot.boot",
                malformed,
            ),
            (
                "a long prefix",
                GOOD.replace("/24", "/33"),
                "firstboot.ip",
                malformed,
            ),
            (
                "no prefix",
                GOOD.replace("/24", ""),
                "firstboot.ip",
                malformed,
            ),
            (
                "a short mac",
                GOOD.replace("52:54:", "52:"),
                "firstboot.mac",
                malformed,
            ),
            (
                "a signed mac",
                GOOD.replace("52:54:", "+5:54:"),
                "firstboot.mac",
                malformed,
            ),
            (
                "a bad router",
                GOOD.replace("gw=10.", "gw=300."),
                "firstboot.gw",
                malformed,
            ),
            (
                "a bad token",
                GOOD.replace("s3cret", "s3\"cret"),
                "firstboot.token",
                malformed,
            ),
        ];
        for (name, text, parameter, kind) in cases {
            let problem = parse(&text)
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default();
            assert!(
                problem.contains(&format!("`{parameter}` {kind}")),
                "{name}: {problem}"
            );
            assert!(!problem.contains("s3"), "{name}: {problem}");
        }
    }

    #[test]
    fn a_root_hash_leads_to_the_disk_unless_an_appliance_speaks() {
        let hash = "c83ce6dc4aafd8c7bd45d5a2d9a3e9df4ff4b8b7b4b7a53da14c4e0a4d4f5b6a";
        let disk = format!("console=ttyS0 roothash={hash} panic=30\n");
        let Some(Way::Disk(found)) = way(&disk).ok() else {
            panic!("a disk");
        };
        assert_eq!(found.to_string(), hash);
        assert!(matches!(way(GOOD), Ok(Way::Network(_))));
        let both = format!("{disk} {GOOD}");
        assert!(matches!(way(&both), Ok(Way::Network(_))));
        let problem = |text: &str| way(text).err().map(|e| e.to_string()).unwrap_or_default();
        let cases = [
            ("short", disk.replace("c83", ""), "`roothash` is malformed"),
            ("twice", format!("{disk} {disk}"), "`roothash` stands twice"),
            (
                "half a script",
                format!("{disk} firstboot.boot=b"),
                "`firstboot.url` is missing",
            ),
            ("nothing", String::new(), "`firstboot.url` is missing"),
        ];
        for (name, text, expected) in cases {
            assert!(
                problem(&text).contains(expected),
                "{name}: {}",
                problem(&text)
            );
        }
    }

    #[test]
    fn a_port_and_the_last_of_two_count() {
        let text = format!("{GOOD} firstboot.url=http://10.77.0.2:8080/ firstboot.gw=");
        let parameters = parse(&text).ok().unwrap();
        assert_eq!(parameters.server.to_string(), "10.77.0.2:8080");
        assert_eq!(parameters.router, None);
    }

    #[test]
    fn the_running_host_shows_no_token() {
        let cases = [
            ("plain", "a=b firstboot.token=s3cret c", "a=b c\n"),
            ("quoted", "a \"firstboot.token=s3 cret\" c", "a c\n"),
            ("value quoted", "firstboot.token=\"s3 cret\"", "\n"),
            ("without", "a=\"b c\" d\n", "a=\"b c\" d\n"),
        ];
        for (name, text, expected) in cases {
            assert_eq!(redact(text), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_or_shows_its_token(text in ".{0,80}", tail in "[a-z0-9]{8,20}") {
            let text = format!("{text} firstboot.token={tail}");
            let shown = parse(&text).err().map(|error| error.to_string()).unwrap_or_default();
            prop_assert!(!shown.contains(&tail));
        }
    }
}
