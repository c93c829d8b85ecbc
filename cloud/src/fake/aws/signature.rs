//! Signature Version 4, verified by the documentation's recipe and not by the code that signs.

use hyper::Method;
use reqsign_core::hash::{hex_hmac_sha256, hex_sha256, hmac_sha256};
use time::OffsetDateTime;
use time::macros::format_description;

use super::state::State;
use super::{Context, Refused};
use crate::escape::escape;
use crate::fake::server::Request;

/// Region and interface that a request is signed for.
pub(super) fn scope(request: &Request) -> Option<(String, String)> {
    let credential = part(request.header("authorization")?, "Credential=")?;
    let mut parts = credential.split('/').skip(2);
    Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
}

fn part<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = header.split_once(name)?;
    rest.split([',', ' ']).next()
}

pub(super) fn verify(
    state: &mut State,
    context: &Context,
    request: &Request,
) -> Result<(), Refused> {
    let broken = |message: &str| Refused {
        status: 403,
        code: match context.service {
            "ec2" => "AuthFailure",
            "sts" => "SignatureDoesNotMatch",
            _ => "InvalidSignatureException",
        },
        message: message.to_owned(),
    };
    let header = request
        .header("authorization")
        .ok_or_else(|| broken("no signature"))?;
    let read = |name| part(header, name).ok_or_else(|| broken("malformed signature"));
    let (credential, names, signature) = (
        read("Credential=")?,
        read("SignedHeaders=")?,
        read("Signature=")?,
    );
    let credential: Vec<&str> = credential.split('/').collect();
    let [key, date, region, service, "aws4_request"] = credential[..] else {
        return Err(broken("malformed scope"));
    };
    if service != context.service {
        return Err(broken("signed for another service"));
    }
    let keys = state
        .keys
        .get_mut(key)
        .ok_or_else(|| broken("unknown access key"))?;
    if keys.token.as_deref() != request.header("x-amz-security-token") {
        return Err(broken("wrong session token"));
    }
    let stamp = request
        .header("x-amz-date")
        .ok_or_else(|| broken("no date"))?;
    check_date(stamp, date).map_err(broken)?;
    let signed: Vec<&str> = names.split(';').collect();
    check_signed(request, &signed).map_err(broken)?;
    let payload = payload(request, context).map_err(broken)?;
    let canonical = canonical(request, &signed, names, &payload);
    let scope = format!("{date}/{region}/{service}/aws4_request");
    let text = format!(
        "AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}",
        hex_sha256(canonical.as_bytes())
    );
    let mut secret = hmac_sha256(format!("AWS4{}", keys.secret).as_bytes(), date.as_bytes());
    for step in [region, service, "aws4_request"] {
        secret = hmac_sha256(&secret, step.as_bytes());
    }
    if hex_hmac_sha256(&secret, text.as_bytes()) != signature {
        return Err(broken("the signature does not match"));
    }
    match &mut keys.left {
        Some(0) => Err(Refused {
            status: 400,
            code: if context.service == "ec2" {
                "RequestExpired"
            } else {
                "ExpiredTokenException"
            },
            message: "The security token included in the request is expired".to_owned(),
        }),
        Some(left) => {
            *left -= 1;
            Ok(())
        }
        None => Ok(()),
    }
}

fn check_date(stamp: &str, date: &str) -> Result<(), &'static str> {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let at = time::PrimitiveDateTime::parse(stamp, format).map_err(|_| "malformed date")?;
    let away = (OffsetDateTime::now_utc() - at.assume_utc()).abs();
    if away > time::Duration::minutes(15) || !stamp.starts_with(date) {
        return Err("the date is too far away");
    }
    Ok(())
}

/// Everything that means something is signed.
fn check_signed(request: &Request, signed: &[&str]) -> Result<(), &'static str> {
    if !signed.is_sorted() || !signed.contains(&"host") {
        return Err("`host` is not signed, or names are not sorted");
    }
    let means = |name: &str| name.starts_with("x-amz-");
    let forgotten = request
        .headers
        .keys()
        .any(|name| means(name.as_str()) && !signed.contains(&name.as_str()));
    if forgotten {
        Err("a header is not signed")
    } else {
        Ok(())
    }
}

fn payload(request: &Request, context: &Context) -> Result<String, &'static str> {
    let found = hex_sha256(&request.body);
    match request.header("x-amz-content-sha256") {
        Some("UNSIGNED-PAYLOAD") if context.action == "PutSnapshotBlock" => {
            Ok("UNSIGNED-PAYLOAD".to_owned())
        }
        Some("UNSIGNED-PAYLOAD") => Err("the body is not signed"),
        Some(digest) if digest != found => Err("the body is not what was signed"),
        _ => Ok(found),
    }
}

fn canonical(request: &Request, signed: &[&str], names: &str, payload: &str) -> String {
    let mut query: Vec<_> = request
        .query
        .iter()
        .map(|(name, value)| (escape(name), escape(value)))
        .collect();
    query.sort();
    let query: Vec<_> = query
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let headers = signed.iter().map(|name| {
        let values = request.headers.get_all(*name).iter();
        let values: Vec<_> = values
            .filter_map(|value| value.to_str().ok())
            .map(str::trim)
            .collect();
        format!("{name}:{}\n", values.join(","))
    });
    let method: &Method = &request.method;
    let headers: String = headers.collect();
    format!(
        "{method}\n{}\n{}\n{headers}\n{names}\n{payload}",
        request.path,
        query.join("&")
    )
}
