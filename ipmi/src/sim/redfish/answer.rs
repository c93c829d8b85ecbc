//! What the simulated service answers: JSON with an ETag, or an error in the words of DMTF's base registry.
//!
//! It refuses to answer an error without a message.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Option<Value>,
    pub(super) text: Option<String>,
    pub(super) headers: Vec<(HeaderName, String)>,
}

impl Answer {
    pub(super) fn new(status: StatusCode) -> Self {
        Self {
            status,
            body: None,
            text: None,
            headers: Vec::new(),
        }
    }

    /// Done, with nothing to say.
    pub(super) fn done() -> Self {
        Self::new(StatusCode::NO_CONTENT)
    }

    /// A resource.
    pub(super) fn resource(body: Value) -> Self {
        Self::new(StatusCode::OK).with_body(body)
    }

    /// An error with the id of a message of the base registry.
    pub(super) fn error(status: StatusCode, id: &str, message: &str) -> Self {
        let id = if id.contains('.') {
            id.to_owned()
        } else {
            format!("Base.1.18.{id}")
        };
        Self::new(status).with_body(json!({ "error": {
            "code": id,
            "message": message,
            "@Message.ExtendedInfo": [{
                "@odata.type": "#Message.v1_2_0.Message",
                "MessageId": id,
                "Message": message,
                "MessageSeverity": "Critical",
                "Resolution": "None",
            }],
        }}))
    }

    pub(super) fn with_body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    pub(super) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn into_response(self) -> Response<Bytes> {
        let (kind, body) = match (self.body, self.text) {
            (Some(body), _) => ("application/json", body.to_string()),
            (None, Some(text)) => ("application/xml", text),
            (None, None) => ("", String::new()),
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert("OData-Version", HeaderValue::from_static("4.0"));
        headers.insert("Cache-Control", HeaderValue::from_static("no-cache"));
        if !kind.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// The ETag of a resource: a digest of what it says.
pub(super) fn etag(resource: &Value) -> String {
    let digest = Sha256::digest(resource.to_string());
    format!("\"{}\"", hex(&digest[..8]))
}

/// Adds a resource's ETag, in its header and in its body.
pub(super) fn tagged(mut body: Value, tag: &str) -> Answer {
    if let Some(object) = body.as_object_mut() {
        object.insert("@odata.etag".to_owned(), Value::from(tag));
    }
    Answer::resource(body).with(ETAG, tag)
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}
