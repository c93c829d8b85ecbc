//! The calls of EBS direct: snapshots that are written block by block, without a volume or a bucket.
//!
//! It refuses to decide how fast and how often: that is the upload's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderName;
use image_manifest::{BlockMap, Digest};
use serde::Deserialize;
use serde_json::json;

use super::client::Client;
use crate::api::Call;
use crate::error::Error;
use crate::http::Content;

const CHECKSUM: &str = "x-amz-checksum";
/// Minutes for which an unfinished snapshot stays: a day, so that tomorrow's run can go on with it.
const IDLE: u32 = 24 * 60;
/// Pages of a list; the largest snapshot has 64 Ti / 512 Ki blocks in pages of 10,000.
const PAGES: usize = 14_000;

/// What a snapshot is begun with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beginning<'a> {
    /// Size of its volume in GiB.
    pub size: u64,
    pub description: &'a str,
    pub tags: &'a [(String, String)],
    /// ARN of the key that encrypts it.
    pub key: Option<&'a str>,
    pub token: &'a str,
}

/// A snapshot that was begun, by this call or by one before it with the same token.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Begun {
    pub snapshot_id: String,
    #[serde(default)]
    pub status: String,
    /// Seconds since 1970.
    #[serde(default)]
    pub start_time: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    blocks: Vec<Listed>,
    next_token: Option<String>,
    block_size: Option<u64>,
}

/// A block that a snapshot has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub block_index: u64,
    pub block_token: String,
}

impl Client {
    pub(super) async fn begin(&self, beginning: &Beginning<'_>) -> Result<Begun, Error> {
        let tag = |(key, value): &(String, String)| json!({ "Key": key, "Value": value });
        let mut body = json!({
            "VolumeSize": beginning.size,
            "Description": beginning.description,
            "Tags": beginning.tags.iter().map(tag).collect::<Vec<_>>(),
            "ClientToken": beginning.token,
            "Timeout": IDLE,
        });
        if let Some(key) = beginning.key {
            body["Encrypted"] = json!(true);
            body["KmsKeyArn"] = json!(key);
        }
        let what = format!("begin a snapshot in {}", self.region);
        let call = self.ebs(what, Method::POST, "/snapshots", &body.to_string());
        let answer = self.api("ebs").call(&call).await?;
        answer.json(&call.what)
    }

    /// The call that sends one block. Its answer names the checksum of what arrived.
    pub(super) fn put(&self, snapshot: &str, index: u64, bytes: Bytes, digest: &Digest) -> Call {
        let what = format!("write block {index} of {snapshot}");
        let name = HeaderName::from_static;
        let headers = [
            (name("x-amz-data-length"), BlockMap::BLOCK.to_string()),
            (name(CHECKSUM), STANDARD.encode(digest.as_bytes())),
            (name("x-amz-checksum-algorithm"), "SHA256".to_owned()),
        ];
        let path = format!("/snapshots/{snapshot}/blocks/{index}");
        self.block(what, &path, headers)
            .sending(Content::Bytes(bytes))
    }

    /// Says that all blocks are there: how many, and the digest of their digests in order.
    pub(super) async fn complete(
        &self,
        snapshot: &str,
        count: u64,
        digest: &Digest,
    ) -> Result<(), Error> {
        let what = format!("complete {snapshot} in {}", self.region);
        let path = format!("/snapshots/completion/{snapshot}");
        let name = HeaderName::from_static;
        let call = self
            .ebs(what, Method::POST, &path, "")
            .with(name("x-amz-changedblockscount"), count.to_string())
            .with(name(CHECKSUM), STANDARD.encode(digest.as_bytes()))
            .with(name("x-amz-checksum-algorithm"), "SHA256")
            .with(name("x-amz-checksum-aggregation-method"), "LINEAR");
        self.api("ebs").call(&call).await.map(drop)
    }

    /// The blocks that a completed snapshot has, in order.
    pub(super) async fn blocks(&self, snapshot: &str) -> Result<Vec<Listed>, Error> {
        let what = format!("list the blocks of {snapshot} in {}", self.region);
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..PAGES {
            let mut query = vec![("maxResults", "10000")];
            if let Some(token) = &next {
                query.push(("pageToken", token.as_str()));
            }
            let query = super::wire::form(query.into_iter());
            let path = format!("/snapshots/{snapshot}/blocks?{query}");
            let call = self.ebs(what.clone(), Method::GET, &path, "");
            let page: Page = self.api("ebs").call(&call).await?.json(&what)?;
            if page.block_size.is_some_and(|size| size != BlockMap::BLOCK) {
                let reason = "its blocks are not of 512 KiB".to_owned();
                return Err(Error::Protocol { what, reason });
            }
            found.extend(page.blocks);
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(found);
            }
        }
        Err(Error::Protocol {
            what,
            reason: "the list does not end".to_owned(),
        })
    }

    /// One block of a completed snapshot.
    pub(super) async fn read(&self, snapshot: &str, block: &Listed) -> Result<Vec<u8>, Error> {
        let index = block.block_index;
        let query = super::wire::form([("blockToken", block.block_token.as_str())].into_iter());
        let what = format!("read block {index} of {snapshot}");
        let path = format!("/snapshots/{snapshot}/blocks/{index}?{query}");
        let call = self.ebs(what, Method::GET, &path, "");
        Ok(self.api("ebs").call(&call).await?.body)
    }
}

/// The checksum that an answer names, when it names one.
pub(super) fn told(answer: &crate::api::Answer) -> Option<Vec<u8>> {
    STANDARD.decode(answer.header(CHECKSUM)?).ok()
}
