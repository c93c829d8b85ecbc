//! Whether nobody on the way sees what is sent to a URL: it goes by TLS, or no further than this computer.

use hyper::Uri;

/// Whether a URL may be shown credentials.
#[must_use]
pub fn is_private(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let address = host.parse::<std::net::IpAddr>();
    let loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    match url.scheme_str() {
        Some("https") => true,
        Some("http") => loopback,
        _ => false,
    }
}

/// What is wrong with an address of an interface that somebody wrote down.
///
/// # Errors
/// When it is no such address, or what is sent there could be seen on the way.
pub fn check(text: &str) -> Result<(), String> {
    let url = text.parse::<Uri>();
    match url {
        Ok(url) if is_private(&url) && url.query().is_none() => Ok(()),
        _ => Err(format!(
            "`{text}` is no URL of `https`, or of `http` on this computer"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_computer() {
        let cases = [
            ("https://ec2.eu-west-1.amazonaws.com/", true),
            ("http://127.0.0.1:4566/", true),
            ("http://[::1]:4566/", true),
            ("http://localhost:4566/", true),
            ("http://127.0.0.1.example/", false),
            ("http://10.0.0.1/", false),
            ("ftp://127.0.0.1/", false),
            ("127.0.0.1:4566", false),
            ("", false),
        ];
        for (url, allowed) in cases {
            assert_eq!(check(url).is_ok(), allowed, "{url}");
        }
        assert!(check("https://a.example/?x").is_err());
    }
}
