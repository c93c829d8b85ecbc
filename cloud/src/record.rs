//! The publish record: which AMI, GCE image, Azure image, container and netboot image are one build. It is read offline.
//!
//! It has no clock in it, so that publishing again writes the same bytes; it is signed as a DSSE envelope, which other
//! tools read too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image_manifest::{Digest, Form};
use serde::{Deserialize, Serialize};

use crate::provider::{Receipt, Stage};

/// Media type of a record.
pub const TYPE: &str = "application/vnd.firstboot.publish-record.v1+json";
/// Media type of the envelope around it.
pub const ENVELOPE_TYPE: &str = "application/vnd.dsse.envelope.v1+json";

/// What one build became.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Record {
    /// Version of this format; this code reads and writes 1.
    pub schema: u32,
    /// Name of the image.
    pub image: String,
    /// Its version.
    pub version: String,
    /// Debian's name of its architecture.
    pub architecture: String,
    /// Distribution and release.
    pub distribution: String,
    /// Digest of the manifest: the netboot image, and what all the others were made from.
    pub manifest: Digest,
    /// The tree digest.
    pub tree: Digest,
    /// Digest of the lock.
    pub lock: Digest,
    /// The only clock of the build, in seconds since 1970.
    pub source_date: i64,
    /// The root file system that hosts boot from the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<Digest>,
    /// The container image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Digest>,
    /// The forms of its disk.
    pub forms: Vec<Form>,
    /// How far it is published in all targets that are listed.
    pub stage: Stage,
    /// Targets that were asked and are not finished, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfinished: Vec<String>,
    /// What there is, sorted.
    pub receipts: Vec<Receipt>,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no envelope with a record in it.
    #[error("it is no publish record: {0}")]
    Malformed(String),
    /// No signature of a known key is on it.
    #[error("no key that is trusted signed it")]
    Unsigned,
}

/// An envelope (DSSE 1.0): bytes, what they are, and who vouches for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    sig: String,
}

/// Signs bytes.
pub type Sign<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

impl Record {
    /// The version of the format.
    pub const SCHEMA: u32 = 1;

    /// Takes over what an earlier record says about targets that were not asked this time.
    #[must_use]
    pub fn with_others_of(mut self, earlier: &Self, asked: &[String]) -> Self {
        let other = |target: &String| !asked.contains(target);
        let receipts = earlier.receipts.iter();
        let receipts = receipts.filter(|one| other(&one.target));
        self.receipts.extend(receipts.cloned());
        self.receipts.sort();
        let unfinished = earlier.unfinished.iter().filter(|target| other(target));
        self.unfinished.extend(unfinished.cloned());
        self.unfinished.sort();
        let stages = self.receipts.iter().map(|one| one.stage);
        self.stage = stages.min().unwrap_or(self.stage).min(self.stage);
        self
    }

    /// Whether a digest, an id or a name is of this build, and as what.
    #[must_use]
    pub fn knows(&self, what: &str) -> Option<&'static str> {
        let digest: Option<Digest> = what.parse().ok().or_else(|| Digest::from_hex(what).ok());
        if let Some(digest) = digest {
            let forms = self.forms.iter().any(|form| form.digest == digest);
            let found = [
                (self.manifest == digest, "manifest"),
                (self.tree == digest, "tree"),
                (self.lock == digest, "lock"),
                (self.rootfs == Some(digest), "root file system"),
                (self.container == Some(digest), "container image"),
                (forms, "disk form"),
            ];
            if let Some((_, kind)) = found.into_iter().find(|(is, _)| *is) {
                return Some(kind);
            }
        }
        let is = |one: &&Receipt| {
            one.id == what || one.name == what || one.id.rsplit('/').next() == Some(what)
        };
        self.receipts.iter().find(is).map(|_| "published object")
    }
}

impl Envelope {
    /// Wraps a record; `sign` is given the bytes that DSSE signs.
    #[must_use]
    pub fn seal(record: &Record, sign: Option<Sign<'_>>) -> Self {
        // A record is texts and numbers, which always can be written.
        let bytes = serde_json::to_vec(record).unwrap_or_default();
        let signatures = sign.map(|sign| Signature {
            sig: STANDARD.encode(sign(&signed_bytes(TYPE, &bytes))),
        });
        Self {
            payload_type: TYPE.to_owned(),
            payload: STANDARD.encode(bytes),
            signatures: signatures.into_iter().collect(),
        }
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map_err(|error| Error::Malformed(error.to_string()))
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // It is made of texts, which always can be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Whether anybody signed it.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        !self.signatures.is_empty()
    }

    /// Opens the record, whoever signed it.
    ///
    /// # Errors
    /// When there is none in it.
    pub fn open(&self) -> Result<Record, Error> {
        if self.payload_type != TYPE {
            return Err(Error::Malformed(format!("it is a `{}`", self.payload_type)));
        }
        let bytes = STANDARD.decode(&self.payload);
        let bytes = bytes.map_err(|error| Error::Malformed(error.to_string()))?;
        let record: Record =
            serde_json::from_slice(&bytes).map_err(|error| Error::Malformed(error.to_string()))?;
        if record.schema == Record::SCHEMA {
            Ok(record)
        } else {
            Err(Error::Malformed(format!(
                "its version is {}",
                record.schema
            )))
        }
    }

    /// Opens the record when a trusted key signed it; `verify` is given the signed bytes and a signature.
    ///
    /// # Errors
    /// When none did, or there is no record in it.
    pub fn open_signed(&self, verify: &dyn Fn(&[u8], &[u8]) -> bool) -> Result<Record, Error> {
        let bytes = STANDARD.decode(&self.payload);
        let bytes = bytes.map_err(|error| Error::Malformed(error.to_string()))?;
        let message = signed_bytes(&self.payload_type, &bytes);
        let mut signatures = self.signatures.iter();
        let good = signatures.any(|one| {
            let signature = STANDARD.decode(&one.sig);
            signature.is_ok_and(|signature| verify(&message, &signature))
        });
        if good {
            self.open()
        } else {
            Err(Error::Unsigned)
        }
    }
}

/// DSSE 1.0, "Signature Definition": the pre-authentication encoding.
fn signed_bytes(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(target: &str, id: &str, stage: Stage) -> Receipt {
        Receipt {
            target: target.to_owned(),
            provider: "aws".to_owned(),
            kind: "ami".to_owned(),
            place: "eu-west-1".to_owned(),
            id: id.to_owned(),
            name: "host".to_owned(),
            stage,
        }
    }

    fn record(receipts: Vec<Receipt>) -> Record {
        Record {
            schema: Record::SCHEMA,
            image: "host".to_owned(),
            version: "1".to_owned(),
            architecture: "amd64".to_owned(),
            distribution: "debian/trixie".to_owned(),
            manifest: Digest::of(b"manifest"),
            tree: Digest::of(b"tree"),
            lock: Digest::of(b"lock"),
            source_date: 0,
            rootfs: None,
            container: Some(Digest::of(b"container")),
            forms: Vec::new(),
            stage: Stage::Current,
            unfinished: Vec::new(),
            receipts,
        }
    }

    #[test]
    fn the_signed_bytes_are_those_of_the_specification() {
        let expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(
            signed_bytes("http://example.com/HelloWorld", b"hello world"),
            expected
        );
    }

    #[test]
    fn a_record_is_opened_by_whoever_trusts_its_key() {
        let record = record(vec![receipt("prod", "ami-1", Stage::Current)]);
        let key = |bytes: &[u8]| Digest::of(bytes).as_bytes().to_vec();
        let verify = |bytes: &[u8], signature: &[u8]| key(bytes) == signature;
        let sealed = Envelope::seal(&record, Some(&key));
        let read = Envelope::parse(&sealed.to_bytes()).unwrap();
        assert_eq!(read.open_signed(&verify).unwrap(), record);
        assert!(matches!(
            read.open_signed(&|_, _| false),
            Err(Error::Unsigned)
        ));
        let open = Envelope::seal(&record, None);
        assert!(!open.is_signed());
        assert_eq!(open.open().unwrap(), record);
        assert!(matches!(open.open_signed(&verify), Err(Error::Unsigned)));
        let mut foreign = sealed;
        foreign.payload_type = "text/plain".to_owned();
        assert!(matches!(foreign.open(), Err(Error::Malformed(_))));
        assert!(matches!(foreign.open_signed(&verify), Err(Error::Unsigned)));
    }

    #[test]
    fn what_is_of_a_build_is_known() {
        let id = "projects/p/global/images/host-1";
        let record = record(vec![
            receipt("prod", "ami-1", Stage::Current),
            receipt("g", id, Stage::Private),
        ]);
        let cases = [
            (record.manifest.to_string(), Some("manifest")),
            (record.tree.hex(), Some("tree")),
            (
                Digest::of(b"container").to_string(),
                Some("container image"),
            ),
            ("ami-1".to_owned(), Some("published object")),
            ("host-1".to_owned(), Some("published object")),
            ("ami-2".to_owned(), None),
            (Digest::of(b"other").to_string(), None),
        ];
        for (what, expected) in cases {
            assert_eq!(record.knows(&what), expected, "{what}");
        }
    }

    #[test]
    fn targets_that_were_not_asked_now_are_not_forgotten() {
        let earlier = record(vec![
            receipt("a", "ami-1", Stage::Private),
            receipt("b", "ami-2", Stage::Current),
        ]);
        let now = record(vec![receipt("b", "ami-3", Stage::Current)]);
        let both = now.clone().with_others_of(&earlier, &["b".to_owned()]);
        let ids: Vec<_> = both.receipts.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, ["ami-1", "ami-3"]);
        assert_eq!(both.stage, Stage::Private);
        let mut broken = earlier;
        broken.unfinished = vec!["a".to_owned(), "b".to_owned()];
        let both = now.with_others_of(&broken, &["b".to_owned()]);
        assert_eq!(both.unfinished, ["a"]);
    }

    proptest::proptest! {
        #[test]
        fn what_a_registry_gives_is_a_record_or_is_refused(
            kind in "[ -~]{0,40}",
            payload in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
            sig in "[A-Za-z0-9+/=]{0,40}",
            rest in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        ) {
            proptest::prop_assert!(Envelope::parse(&rest).is_err());
            for kind in [kind.as_str(), TYPE] {
                let text = serde_json::json!({
                    "payloadType": kind,
                    "payload": STANDARD.encode(&payload),
                    "signatures": [{"sig": sig}],
                });
                let envelope = Envelope::parse(text.to_string().as_bytes()).unwrap();
                proptest::prop_assert!(envelope.open().is_err());
                proptest::prop_assert!(envelope.open_signed(&|_, _| true).is_err());
            }
        }
    }
}
