//! What is kept about layers, so that none is made twice: parents by the digest of their inputs, segments by what they hold.
//!
//! It refuses to be missed: whatever is absent, damaged or of another version is made again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use image_manifest::layout::Layout;
use image_manifest::{Digest, Layer, LayerBlob, Role};
use image_oci::compress;
use image_oci::layer::{Earlier, Segment};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Error, Writer};
use crate::assemble::Plan;

/// Largest file that is read: a listing of a million paths.
const LIMIT: u64 = 256 << 20;

/// A definition as others extend it: its layers, and the listing of its tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The listing.
    pub listing: Vec<u8>,
    /// Its layers, lowest first, without what is only for a boot.
    pub layers: Vec<Layer>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    listing: Digest,
    layers: Vec<Layer>,
}

#[derive(Serialize, Deserialize)]
struct LayerRecord {
    settings: String,
    gzip: Digest,
    zstd: Digest,
    segments: Vec<Segment>,
}

/// Finds a parent: an image of the store that was made of the same, or one whose layers were written for another child.
pub(super) fn find(writer: &Writer<'_>, parent: &Plan) -> Option<Kept> {
    let kept = published(writer.store, parent).or_else(|| recorded(writer, parent))?;
    let mut blobs = kept
        .layers
        .iter()
        .flat_map(|layer| [&layer.gzip, &layer.zstd]);
    let whole = |blob: &LayerBlob| {
        let found = fs::metadata(writer.store.blob(&blob.digest));
        found.is_ok_and(|found| found.len() == blob.size)
    };
    let known = blobs.all(whole);
    drop(blobs);
    known.then_some(kept)
}

fn published(store: &Layout, parent: &Plan) -> Option<Kept> {
    let manifest = store.resolve(&parent.name).ok()?.manifest;
    if manifest.inputs != parent.inputs || manifest.layers.is_empty() {
        return None;
    }
    let listing = read(&store.blob(&manifest.artifact(Role::Listing)?.digest)).ok()?;
    let mut layers = manifest.layers;
    // The definition's own layer is the last but for what is for a boot.
    let own = layers
        .iter()
        .rposition(|layer| layer.definition == parent.name)?;
    layers.truncate(own + 1);
    (Digest::of(&listing) == manifest.tree).then_some(Kept { listing, layers })
}

fn recorded(writer: &Writer<'_>, parent: &Plan) -> Option<Kept> {
    let [record, listing] = paths(writer.cache, parent);
    let record: Record = read_json(&record)?;
    let listing = read(&listing).ok()?;
    (Digest::of(&listing) == record.listing).then_some(Kept {
        listing,
        layers: record.layers,
    })
}

/// Keeps a parent for its other children.
pub(super) fn remember(writer: &Writer<'_>, parent: &Plan, kept: &Kept) -> Result<(), Error> {
    let [record, listing] = paths(writer.cache, parent);
    write(&listing, &kept.listing)?;
    let text = Record {
        listing: Digest::of(&kept.listing),
        layers: kept.layers.clone(),
    };
    write(&record, &serde_json::to_vec(&text).unwrap_or_default())
}

fn paths(cache: &Path, parent: &Plan) -> [PathBuf; 2] {
    let name = parent.inputs.hex();
    ["json", "listing"].map(|end| cache.join("parents").join(format!("{name}.{end}")))
}

/// Opens the layer that a definition of this image had before.
pub(super) fn earlier(writer: &Writer<'_>, plan: &Plan, definition: &str) -> Option<Earlier> {
    let known: LayerRecord = read_json(&segments_path(writer.cache, plan, definition))?;
    if known.settings != compress::settings() {
        return None;
    }
    let [gzip, zstd] =
        [known.gzip, known.zstd].map(|digest| File::open(writer.store.blob(&digest)).ok());
    Some(Earlier::new(gzip?, zstd?, &known.segments))
}

/// Keeps what a layer is made of.
pub(super) fn segments(
    writer: &Writer<'_>,
    plan: &Plan,
    layer: &Layer,
    segments: Vec<Segment>,
) -> Result<(), Error> {
    let known = LayerRecord {
        settings: compress::settings(),
        gzip: layer.gzip.digest,
        zstd: layer.zstd.digest,
        segments,
    };
    let path = segments_path(writer.cache, plan, &layer.definition);
    write(&path, &serde_json::to_vec(&known).unwrap_or_default())
}

fn segments_path(cache: &Path, plan: &Plan, definition: &str) -> PathBuf {
    let name = format!("{}.{}.{definition}.json", plan.name, plan.architecture);
    cache.join("segments").join(name)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if file.metadata()?.len() > LIMIT {
        return Err(io::Error::other("larger than anything that is kept here"));
    }
    fs::read(path)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&read(path).ok()?).ok()
}

/// Writes a file that readers see as it was or as it will be.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let directory = path.parent().unwrap_or(path);
    let written = fs::create_dir_all(directory)
        .and_then(|()| tempfile::NamedTempFile::new_in(directory))
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        });
    written.map_err(|source| Error::Keep {
        path: path.to_owned(),
        source,
    })
}
