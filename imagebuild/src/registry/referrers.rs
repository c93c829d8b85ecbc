//! What is attached to a manifest in a registry: by the referrers interface, or by the tag that stands in for it.
//!
//! It refuses to believe that a registry took an attachment because it says so: what was sent is read back.

use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, StatusCode};
use image_manifest::Digest;
use image_oci::spec::{self, Descriptor, Document, Index};

use super::Error;
use super::session::{Ask, Session, read};
use cloud::http::Content;

/// Times that the tag is written when others write it too.
const TRIES: u32 = 5;

impl Session {
    /// Puts a document under a tag or its digest.
    pub(crate) async fn put(
        &self,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let what = format!("put `{}:{reference}`", self.repository);
        let statuses = [StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED];
        let mut ask = Ask::new(
            what,
            Method::PUT,
            self.url(&format!("manifests/{reference}")),
            &statuses,
        );
        ask.content = Content::Bytes(bytes.to_vec().into());
        self.ask(&ask.with(CONTENT_TYPE.as_str(), media_type))
            .await
            .map(drop)
    }

    /// Lists what is attached to a manifest, whichever way the registry knows it.
    pub(crate) async fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        if let Some(index) = self.referrers_interface(subject).await? {
            // A registry that got the interface later may still have what came before only under the tag.
            if !index.manifests.is_empty() {
                return Ok(index.manifests);
            }
        }
        Ok(self
            .stand_in(subject)
            .await?
            .map(|index| index.manifests)
            .unwrap_or_default())
    }

    /// Makes sure that an attachment is found; the document itself was sent before.
    pub(crate) async fn attach(
        &self,
        subject: &Digest,
        attachment: &Descriptor,
    ) -> Result<(), Error> {
        let lists = |index: &Index| {
            index
                .manifests
                .iter()
                .any(|one| one.digest == attachment.digest)
        };
        if self
            .referrers_interface(subject)
            .await?
            .is_some_and(|index| lists(&index))
        {
            return Ok(());
        }
        for _ in 0..TRIES {
            let mut index = self.stand_in(subject).await?.unwrap_or_else(empty);
            if lists(&index) {
                return Ok(());
            }
            index.manifests.push(attachment.clone());
            self.put(&tag(subject), spec::INDEX, &spec::to_json(&index))
                .await?;
        }
        Err(Error::Protocol {
            what: format!(
                "attach {} in `{}`",
                attachment.digest.short(),
                self.repository
            ),
            reason: "it is not there when it is read back".to_owned(),
        })
    }

    async fn referrers_interface(&self, subject: &Digest) -> Result<Option<Index>, Error> {
        let what = format!("list what is attached to {}", subject.short());
        // What a registry answers that does not know the question is anything but an index.
        let statuses = [
            StatusCode::OK,
            StatusCode::NOT_FOUND,
            StatusCode::METHOD_NOT_ALLOWED,
            StatusCode::NOT_IMPLEMENTED,
            StatusCode::BAD_REQUEST,
        ];
        let ask = Ask::new(
            what.clone(),
            Method::GET,
            self.url(&format!("referrers/{subject}")),
            &statuses,
        );
        let answer = self.ask(&ask.with(ACCEPT.as_str(), spec::INDEX)).await?;
        let is_index = answer.status() == StatusCode::OK
            && answer
                .headers()
                .get(CONTENT_TYPE)
                .is_some_and(|said| said.as_bytes().starts_with(spec::INDEX.as_bytes()));
        if !is_index {
            return Ok(None);
        }
        let bytes = read(answer, spec::LIMIT, &what).await?;
        match Document::parse(&bytes, Some(spec::INDEX)) {
            Ok(Document::Index(index)) => Ok(Some(index)),
            Ok(Document::Manifest(_)) => Ok(None),
            Err(source) => Err(Error::Document { what, source }),
        }
    }

    async fn stand_in(&self, subject: &Digest) -> Result<Option<Index>, Error> {
        let found = self.document(&tag(subject)).await?;
        Ok(found.and_then(|found| match found.document {
            Document::Index(index) => Some(index),
            Document::Manifest(_) => None,
        }))
    }
}

/// The tag that lists what is attached (OCI distribution specification, "Referrers Tag Schema").
pub(super) fn tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

fn empty() -> Index {
    Index {
        schema_version: 2,
        media_type: spec::INDEX.to_owned(),
        artifact_type: None,
        manifests: Vec::new(),
        subject: None,
        annotations: std::collections::BTreeMap::new(),
    }
}
