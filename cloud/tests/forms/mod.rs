//! A disk whose forms are at hand, and an image that has it.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::Arc;

use cloud::fake::{Act, Fault, Server, When};
use cloud::{Disk, Options, Progress, Provider, Stage, Step, Subject};
use image_manifest::{BlockMap, Digest, FormKind};

#[derive(Debug)]
pub(crate) struct Forms {
    blocks: BlockMap,
    forms: BTreeMap<FormKind, (Digest, Vec<u8>)>,
}

impl Disk for Forms {
    fn blocks(&self) -> &BlockMap {
        &self.blocks
    }

    fn form(&self, kind: FormKind) -> Option<(Digest, u64)> {
        let (digest, bytes) = self.forms.get(&kind)?;
        Some((*digest, bytes.len() as u64))
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn vhd_footer(&self) -> [u8; 512] {
        [0; 512]
    }

    fn open(&self, kind: FormKind, from: u64) -> io::Result<Box<dyn Read + Send>> {
        let (_, bytes) = self.forms.get(&kind).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(from).map_err(io::Error::other)?;
        Ok(Box::new(Cursor::new(bytes[from..].to_vec())))
    }
}

/// A disk of a size, with forms that were written elsewhere.
pub(crate) fn disk(size: u64, forms: &[(FormKind, &[u8])]) -> Arc<dyn Disk> {
    let blocks = BlockMap {
        schema: BlockMap::SCHEMA,
        block_size: BlockMap::BLOCK,
        size,
        runs: Vec::new(),
    };
    let forms = forms.iter();
    let forms = forms.map(|(kind, bytes)| (*kind, (Digest::of(bytes), bytes.to_vec())));
    Arc::new(Forms {
        blocks,
        forms: forms.collect(),
    })
}

/// Bytes that do not compress, and are the same every time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut word = 0x2545_f491_4f6c_dd1du64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend(word.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// An image of a build.
pub(crate) fn subject(version: &str, disk: Arc<dyn Disk>) -> Subject {
    Subject {
        name: "host".to_owned(),
        architecture: "amd64".to_owned(),
        distribution: "debian/trixie".to_owned(),
        version: version.to_owned(),
        manifest: Digest::of(version.as_bytes()),
        tree: Digest::of(b"tree"),
        source_date: 1_767_312_000,
        disk: Some(disk),
    }
}

pub(crate) fn options(journal: &std::path::Path) -> Options {
    Options {
        journal: journal.to_owned(),
        http: cloud::http::Http::new(),
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quiet;

impl Progress for Quiet {
    fn begins(&self, _: &Step) {}
    fn bytes(&self, _: &str, _: u64, _: u64) {}
    fn waits(&self, _: &str, _: &str) {}
}

/// Publishes as `imagebuild` does: every stage, in order.
pub(crate) async fn publish(publisher: &mut dyn Provider) -> Result<(), cloud::Error> {
    publisher.observe().await?;
    for stage in Stage::ALL {
        publisher.advance(stage, &Quiet).await?;
    }
    publisher.observe().await
}

/// Publishes and dies at a changing call, publishes again, and then once more without a change; says whether there was
/// such a call.
pub(crate) async fn kill<P: Provider>(
    server: &Server,
    (number, when): (u64, When),
    publisher: impl Fn() -> P,
) -> bool {
    server.fault(Fault {
        label: None,
        skip: number,
        times: 1,
        when,
        act: Act::Hang,
    });
    let mut first = publisher();
    let killed = tokio::select! {
        done = publish(&mut first) => { done.unwrap(); false }
        () = server.stopped() => true,
    };
    drop(first);
    let mut next = publisher();
    let done = publish(&mut next).await;
    done.unwrap_or_else(|error| panic!("{number} {when:?}: {error}"));
    assert_eq!(next.plan(), []);
    drop(next);
    server.reset();
    publish(&mut publisher()).await.unwrap();
    assert_eq!(server.changes(), 0, "{number} {when:?}");
    killed
}
