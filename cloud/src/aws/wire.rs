//! How Amazon's interfaces are spoken: forms in, XML or JSON out, and what a refusal means.
//!
//! It refuses to know any one call.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderName};
use image_manifest::Digest;
use roxmltree::{Document, Node};

use crate::api::{Answer, Call, Refusal, Verdict};
use crate::escape::escape;
use crate::http::Content;

/// The digest of a body goes into the signature; without it the body is not signed.
pub(super) const CONTENT_SHA256: &str = "x-amz-content-sha256";
/// What a form is sent as.
pub(super) const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// Which call of a JSON interface is meant.
pub(super) const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
/// What calls of Service Quotas begin with there.
pub(super) const QUOTAS: &str = "ServiceQuotasV20190624";

/// A digest as signatures have it.
pub(super) fn digest(body: &[u8]) -> String {
    Digest::of(body).hex()
}

/// A call whose body is signed.
pub(super) fn signed(what: String, method: Method, url: String, kind: &str, body: String) -> Call {
    let digest = digest(body.as_bytes());
    Call::new(what, method, url)
        .with(CONTENT_TYPE, kind)
        .with(HeaderName::from_static(CONTENT_SHA256), digest)
        .sending(Content::Bytes(Bytes::from(body)))
}

/// Encodes a form.
pub(super) fn form<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = pairs.map(|(name, value)| format!("{}={}", escape(name), escape(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Reads XML, of which none of a cloud has a document type.
pub(super) fn document(text: &str) -> Option<Document<'_>> {
    Document::parse(text).ok()
}

/// The first element of a name below another.
pub(super) fn find<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.descendants()
        .find(|node| node.tag_name().name() == name)
}

/// The child of a name.
pub(super) fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|node| node.tag_name().name() == name)
}

/// The text of the child of a name.
pub(super) fn text<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name)?.text()
}

/// The `item`s of the child of a name.
pub(super) fn items<'a, 'i>(node: Node<'a, 'i>, name: &str) -> impl Iterator<Item = Node<'a, 'i>> {
    let list = child(node, name).into_iter();
    let items = list.flat_map(|list| list.children());
    items.filter(|node| node.tag_name().name() == "item")
}

/// The code and message of a refusal, in XML or in JSON.
pub(super) fn refusal(body: &[u8]) -> (String, String) {
    let text = String::from_utf8_lossy(body);
    if let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) {
        let read = |names: [&str; 3]| {
            let mut found = names.iter().filter_map(|name| json.get(name)?.as_str());
            found.next().unwrap_or_default().to_owned()
        };
        let code = read(["__type", "code", "Code"]);
        let code = code.rsplit('#').next().unwrap_or_default();
        let mut message = read(["message", "Message", "errorMessage"]);
        if let Some(reason) = json.get("Reason").and_then(|reason| reason.as_str()) {
            message = format!("{reason}: {message}");
        }
        return (code.to_owned(), message);
    }
    let found = document(&text).and_then(|document| {
        let error = find(document.root(), "Error")?;
        let read = |name| {
            super::wire::text(error, name)
                .unwrap_or_default()
                .to_owned()
        };
        Some((read("Code"), read("Message")))
    });
    found.unwrap_or_default()
}

/// What an answer of any of Amazon's interfaces means.
pub(super) fn judge(call: &Call, answer: &Answer) -> Verdict {
    if answer.status.is_success() {
        return Verdict::Answer;
    }
    let (mut code, message) = refusal(&answer.body);
    if let Some(kind) = answer.header("x-amzn-errortype") {
        kind.split([':', '#'])
            .next()
            .unwrap_or_default()
            .clone_into(&mut code);
    }
    let said = Refusal {
        code: code.clone(),
        message: message.clone(),
    };
    match code.as_str() {
        "DryRunOperation" => Verdict::Answer,
        "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "TooManyUpdates"
        | "SlowDown"
        | "ConcurrentLimitExceededException"
        | "SnapshotCreationPerVolumeRateExceeded" => Verdict::Throttled,
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => Verdict::Expired(said),
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => {
            Verdict::Denied(permission(call, &message), said)
        }
        "InternalError"
        | "InternalFailure"
        | "InternalServerException"
        | "Unavailable"
        | "ServiceUnavailable"
        | "RequestTimeout" => Verdict::Passing(said),
        _ if answer.status == 429 => Verdict::Throttled,
        // Whoever stands at `endpoint` does not have this interface, and will not have it in a minute.
        _ if answer.status == 501 => Verdict::Refused(said),
        _ if answer.status.is_server_error() => Verdict::Passing(said),
        _ => Verdict::Refused(said),
    }
}

/// The permission that is missing: what the message says, or else that of the call.
fn permission(call: &Call, message: &str) -> String {
    let said = message.split_once("not authorized to perform: ");
    let said = said.and_then(|(_, rest)| rest.split([' ', '\n']).next());
    if let Some(said) = said.filter(|said| said.contains(':')) {
        return said.trim_end_matches(['.', ',']).to_owned();
    }
    action(call)
}

/// What a call is in policies, such as `ec2:CopyImage`.
fn action(call: &Call) -> String {
    if let Some((_, target)) = call.headers.iter().find(|(name, _)| *name == TARGET) {
        let action = target.rsplit('.').next().unwrap_or_default();
        let quotas = target.starts_with(QUOTAS);
        let service = if quotas { "servicequotas" } else { "ssm" };
        return format!("{service}:{action}");
    }
    if let Content::Bytes(body) = &call.content
        && let Some(action) = String::from_utf8_lossy(body)
            .split('&')
            .find_map(|pair| pair.strip_prefix("Action="))
    {
        let sts = action.starts_with("AssumeRole") || action == "GetCallerIdentity";
        return format!("{}:{action}", if sts { "sts" } else { "ec2" });
    }
    let path = call.url.splitn(4, '/').nth(3).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let action = match (&call.method, path) {
        (&Method::POST, "snapshots") => "StartSnapshot",
        (&Method::POST, _) => "CompleteSnapshot",
        (&Method::PUT, _) => "PutSnapshotBlock",
        (_, path) if path.ends_with("/blocks") => "ListSnapshotBlocks",
        _ => "GetSnapshotBlock",
    };
    format!("ebs:{action}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded_as_rfc_3986_has_it() {
        let pairs = [("a b", "1/2"), ("ä", "~x_y.z-")];
        assert_eq!(form(pairs.into_iter()), "a%20b=1%2F2&%C3%A4=~x_y.z-");
    }

    #[test]
    fn refusals_are_read_in_every_shape() {
        let cases = [
            (
                "<Response><Errors><Error><Code>A</Code><Message>b</Message></Error></Errors></Response>",
                ("A", "b"),
            ),
            (
                "<ErrorResponse><Error><Type>Sender</Type><Code>A</Code></Error></ErrorResponse>",
                ("A", ""),
            ),
            (
                r#"{"__type":"com.amazonaws.ssm#A","message":"b"}"#,
                ("A", "b"),
            ),
            (r#"{"Message":"b","Reason":"R"}"#, ("", "R: b")),
            ("<html>", ("", "")),
        ];
        for (body, (code, message)) in cases {
            assert_eq!(
                refusal(body.as_bytes()),
                (code.to_owned(), message.to_owned()),
                "{body}"
            );
        }
    }

    #[test]
    fn a_denied_call_names_its_permission() {
        let url = "https://ebs.eu-west-1.amazonaws.com";
        let query = |action| {
            signed(
                "x".to_owned(),
                Method::POST,
                url.to_owned(),
                FORM,
                format!("Action={action}&a=b"),
            )
        };
        let cases = [
            (query("CopyImage"), "", "ec2:CopyImage"),
            (query("GetCallerIdentity"), "", "sts:GetCallerIdentity"),
            (
                query("CopyImage"),
                "User: arn:aws:iam::1:user/a is not authorized to perform: ec2:CreateTags on resource: x",
                "ec2:CreateTags",
            ),
            (
                Call::new("x", Method::PUT, format!("{url}/snapshots/s/blocks/1")),
                "",
                "ebs:PutSnapshotBlock",
            ),
            (
                Call::new("x", Method::POST, format!("{url}/snapshots")),
                "",
                "ebs:StartSnapshot",
            ),
            (
                Call::new("x", Method::GET, format!("{url}/snapshots/s/blocks?a=b")),
                "",
                "ebs:ListSnapshotBlocks",
            ),
            (
                Call::new("x", Method::POST, url).with(TARGET, "AmazonSSM.PutParameter"),
                "",
                "ssm:PutParameter",
            ),
        ];
        for (call, message, expected) in cases {
            assert_eq!(permission(&call, message), expected);
        }
    }
}
