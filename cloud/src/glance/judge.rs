//! What answers of OpenStack's interfaces mean.
//!
//! It refuses to try again what a policy forbids.

use serde_json::Value;

use crate::api::{Answer, Call, Refusal, Verdict};
use crate::error::Error;

/// Reads what an answer means. What is not there, or is in the way, is an answer.
pub(super) fn judge(call: &Call, answer: &Answer) -> Verdict {
    match answer.status.as_u16() {
        ..=399 | 404 | 409 | 410 => Verdict::Answer,
        401 => Verdict::Expired(refusal(answer)),
        403 => Verdict::Denied(policy(call).to_owned(), refusal(answer)),
        408 | 500.. => Verdict::Passing(refusal(answer)),
        429 => Verdict::Throttled,
        _ => Verdict::Refused(refusal(answer)),
    }
}

/// The error of an answer that a caller does not know what to do with.
pub(super) fn refused(call: &Call, answer: &Answer) -> Error {
    let Refusal { code, message } = refusal(answer);
    Error::Refused {
        what: call.what.clone(),
        status: answer.status.as_u16(),
        code,
        message,
    }
}

/// Glance answers in JSON or in HTML, Keystone in JSON of another shape.
fn refusal(answer: &Answer) -> Refusal {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let said = [&body["error"]["message"], &body["message"]];
    let message = said
        .into_iter()
        .find_map(Value::as_str)
        .map_or_else(|| text(&answer.body), str::to_owned);
    let message = message.chars().filter(|c| !c.is_control()).take(400);
    let code = answer.status.canonical_reason().unwrap_or_default();
    Refusal {
        code: code.to_owned(),
        message: message.collect(),
    }
}

/// The words of a page, without its marks.
fn text(body: &[u8]) -> String {
    let page = String::from_utf8_lossy(body);
    let page = page.rsplit("</title>").next().unwrap_or_default();
    let mut words = String::new();
    let mut inside = false;
    for c in page.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                words.push(' ');
            }
            c if !inside => words.push(c),
            _ => {}
        }
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The rule of Glance's policy that a call is judged by.
fn policy(call: &Call) -> &'static str {
    let path = call.url.split('?').next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let publishes = call.what.contains(" visible to ");
    match call.method.as_str() {
        _ if last == "tokens" => "identity",
        "GET" => "get_image",
        "POST" if last == "members" => "add_member",
        "POST" => "add_image",
        "PUT" if last == "file" => "upload_image",
        "PATCH" if publishes && call.what.ends_with("`public`") => "publicize_image",
        "PATCH" if publishes && call.what.ends_with("`community`") => "communitize_image",
        "DELETE" if !path.contains("/tags/") => "delete_image",
        _ => "modify_image",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_for_its_words() {
        let page = "<html><head><title>413 Request Entity Too Large</title></head><body><h1>413</h1>\nThe quota is used up.<br /></body></html>";
        assert_eq!(text(page.as_bytes()), "413 The quota is used up.");
    }
}
