//! Paths, and what they name.
//!
//! It refuses to look further than the path: tokens are judged where a route is answered.

use std::str::FromStr;

use hyper::StatusCode;
use image_manifest::Digest;
use netboot_core::Mac;

use super::Refusal;

/// Longest name of a boot.
const MAX_BOOT: usize = 128;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Loader(String),
    Artifact(Digest),
    Signed(Digest),
    Script(Mac),
    Credential(String),
    Host(String),
    Secrets(String),
    Reports(String),
}

impl Route {
    /// Reads the path of a request. Empty parts are skipped: iPXE and firmware join URLs with two slashes.
    pub(super) fn parse(path: &str) -> Result<Self, Refusal> {
        let path = percent_decode(path)
            .ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "the path is not text"))?;
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            ["boot", name] => Ok(Self::Loader((*name).to_owned())),
            ["blob", digest] => parse(digest).map(Self::Artifact),
            ["signed", digest] => parse(digest).map(Self::Signed),
            ["ipxe", mac] => parse(mac).map(Self::Script),
            ["v1", "boots", boot, "credential"] => Ok(Self::Credential(boot_id(boot)?)),
            ["v1", "boots", boot, "host"] => Ok(Self::Host(boot_id(boot)?)),
            ["v1", "boots", boot, "secrets"] => Ok(Self::Secrets(boot_id(boot)?)),
            ["v1", "boots", boot, "reports"] => Ok(Self::Reports(boot_id(boot)?)),
            _ => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "nothing is served under this path",
            )),
        }
    }

    /// Lists the methods that can be asked for, as `Allow` does.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Loader(_) | Self::Artifact(_) => "GET, HEAD",
            // A script starts a boot, so HEAD must not ask for one.
            Self::Script(_) | Self::Host(_) | Self::Signed(_) => "GET",
            // What is asked of these is done, and answered, once.
            Self::Credential(_) | Self::Secrets(_) | Self::Reports(_) => "POST",
        }
    }

    /// Tells whether it is answered over TLS only: a token or a credential has to be shown.
    pub(super) fn is_confidential(&self) -> bool {
        match self {
            Self::Loader(_) | Self::Artifact(_) | Self::Signed(_) | Self::Script(_) => false,
            Self::Credential(_) | Self::Host(_) | Self::Secrets(_) | Self::Reports(_) => true,
        }
    }
}

fn boot_id(boot: &str) -> Result<String, Refusal> {
    if boot.len() > MAX_BOOT {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "no boot has a name this long",
        ));
    }
    Ok(boot.to_owned())
}

fn parse<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Refusal> {
    text.parse()
        .map_err(|error: T::Err| Refusal::new(StatusCode::NOT_FOUND, error.to_string()))
}

/// Undoes `%3A` and the like.
fn percent_decode(path: &str) -> Option<String> {
    if !path.contains('%') {
        return Some(path.to_owned());
    }
    let mut bytes = path.bytes();
    let mut decoded = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (high, low) = (hex(bytes.next()?)?, hex(bytes.next()?)?);
            decoded.push(high << 4 | low);
        } else {
            decoded.push(byte);
        }
    }
    let text = String::from_utf8(decoded).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_they_always_named() {
        let digest = Digest::of(b"x");
        let mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
        let loader = || Ok(Route::Loader("ipxe.efi".to_owned()));
        let blob = format!("/blob/{digest}");
        let signed = format!("/signed/{digest}");
        let encoded = format!("/blob/sha256%3a{}", digest.hex());
        let cases = [
            ("/boot/ipxe.efi", loader()),
            ("//boot//ipxe.efi", loader()),
            ("/boot/ipxe%2Eefi", loader()),
            (&blob, Ok(Route::Artifact(digest))),
            (&encoded, Ok(Route::Artifact(digest))),
            (&signed, Ok(Route::Signed(digest))),
            ("/ipxe/52-54-00-00-00-01", Ok(Route::Script(mac))),
            ("/v1/boots/b1/host", Ok(Route::Host("b1".to_owned()))),
            ("/v1/boots/b1/secrets", Ok(Route::Secrets("b1".to_owned()))),
            (
                "/v1/boots/b1/credential",
                Ok(Route::Credential("b1".to_owned())),
            ),
            ("/v1/boots/b1/reports", Ok(Route::Reports("b1".to_owned()))),
            ("/", Err(404)),
            ("/boot", Err(404)),
            ("/boot/a/b", Err(404)),
            ("/blob/sha256:00", Err(404)),
            ("/ipxe/52-54", Err(404)),
            ("/v1/boots/b1/other", Err(404)),
            ("/boot/%zz", Err(400)),
            ("/boot/%00", Err(400)),
            ("/boot/%ff", Err(400)),
        ];
        for (path, expected) in cases {
            let found = Route::parse(path).map_err(|refusal| refusal.status.as_u16());
            assert_eq!(found, expected, "{path}");
        }
    }
}
