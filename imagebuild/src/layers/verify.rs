//! Layers back into the listing, in both encodings.
//!
//! It refuses to stop at "the digest is wrong": it says in which layer, and at which path.

use std::fs::File;
use std::io::{self, BufReader, Read};

use image_manifest::layout::Layout;
use image_manifest::{Digest, Hasher, Layer, LayerBlob, Manifest};
use image_oci::archive::read::Limits;
use image_oci::flatten::{self, Progress};
use image_tree::Tree;
use image_tree::listing::{self, Difference};

/// Why layers are not the tree.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A layer could not be read.
    #[error("failed to read {layer}")]
    Read {
        /// The layer.
        layer: String,
        /// Why.
        source: io::Error,
    },
    /// A layer has other bytes, which unpack to the same.
    #[error("{layer} has the digest {found}, the manifest says {expected}")]
    Digest {
        /// The layer.
        layer: String,
        /// What the manifest says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A layer cannot be unpacked.
    #[error("{layer} is damaged at `/{path}`")]
    Damaged {
        /// The layer.
        layer: String,
        /// The path at which it is.
        path: String,
        /// How.
        source: flatten::Error,
    },
    /// The layers hold another tree.
    #[error("{layer} differs from the listing at `{}`: {}", difference.path, told(difference))]
    Differs {
        /// The layer that says it.
        layer: String,
        /// Where and how.
        difference: Difference,
    },
}

fn told(difference: &Difference) -> String {
    match (&difference.left, &difference.right) {
        (Some(listed), Some(found)) => format!("listed as `{listed}`, found as `{found}`"),
        (Some(listed), None) => format!("listed as `{listed}`, not found"),
        (None, Some(found)) => format!("not listed, found as `{found}`"),
        (None, None) => "the texts differ".to_owned(),
    }
}

/// Takes the blob of one encoding out of a layer.
type BlobOf = fn(&Layer) -> &LayerBlob;

/// Turns the layers of an image back into its listing, under gzip and under zstd, and says what was verified.
/// An image that has no layers has no container form: nothing is verified.
///
/// # Errors
/// The first thing that is not as the manifest and the listing say.
pub fn verify(store: &Layout, manifest: &Manifest, listed: &[u8]) -> Result<Vec<String>, Error> {
    if manifest.layers.is_empty() {
        return Ok(Vec::new());
    }
    let encodings: [(&str, BlobOf); 2] =
        [("gzip", |layer| &layer.gzip), ("zstd", |layer| &layer.zstd)];
    let mut verified = Vec::new();
    for (encoding, blob_of) in encodings {
        let layers = manifest.layers.iter().map(|layer| {
            let name = format!("layer `{}` ({encoding})", layer.definition);
            (name, layer.diff_id, blob_of(layer).clone())
        });
        let layers: Vec<_> = layers.collect();
        verify_layers(store, &layers, listed)?;
        verified.extend(layers.into_iter().map(|(name, ..)| name));
    }
    Ok(verified)
}

/// Turns layers of a store (what they are called, digest of the archive, where it is) back into a listing.
///
/// # Errors
/// The first thing that is different.
pub fn verify_layers(
    store: &Layout,
    layers: &[(String, Digest, LayerBlob)],
    listed: &[u8],
) -> Result<(), Error> {
    let mut tree = Tree::new();
    let mut paths = Vec::new();
    for (index, (name, diff_id, blob)) in layers.iter().enumerate() {
        tracing::info!(layer = name, bytes = blob.size, "reading the tree");
        let mut progress = Progress::default();
        let laid = lay(store, name, diff_id, blob, &mut tree, &mut progress);
        if let Err(error) = laid {
            // What layers above say otherwise is not what is wrong with this one.
            for (name, diff_id, blob) in &layers[index + 1..] {
                let above = &mut Progress::default();
                drop(lay(store, name, diff_id, blob, &mut tree, above));
            }
            return Err(first_path(error, name, &tree, &progress, listed));
        }
        paths.push((name, progress.paths));
    }
    let Some(difference) = listing::difference(listed, &tree.listing()) else {
        return Ok(());
    };
    // The topmost layer that says anything about the path is the one that is wrong; where none does, all of them lack it.
    let path = path_of(&difference);
    let saying = paths
        .iter()
        .rev()
        .find(|(_, paths)| paths.contains(&path) || paths.contains(&whiteout(&path)));
    let layer = saying.map_or_else(
        || format!("every layer up to {}", names_last(layers)),
        |(name, _)| (*name).clone(),
    );
    Err(Error::Differs { layer, difference })
}

fn names_last(layers: &[(String, Digest, LayerBlob)]) -> &str {
    layers.last().map_or("the last", |(name, ..)| name)
}

fn lay(
    store: &Layout,
    name: &str,
    diff_id: &Digest,
    blob: &LayerBlob,
    tree: &mut Tree,
    progress: &mut Progress,
) -> Result<(), Error> {
    let read = |source| Error::Read {
        layer: name.to_owned(),
        source,
    };
    let file = File::open(store.blob(&blob.digest)).map_err(read)?;
    let mut bytes = BufReader::with_capacity(256 << 10, Hashed::new(file));
    let laid = flatten::lay(tree, &mut bytes, diff_id, Limits::default(), progress);
    laid.map_err(|source| Error::Damaged {
        layer: name.to_owned(),
        path: String::from_utf8_lossy(&progress.last).into_owned(),
        source,
    })?;
    let mut bytes = bytes.into_inner();
    io::copy(&mut bytes, &mut io::sink()).map_err(read)?;
    let found = bytes.hasher.finish();
    if found == blob.digest {
        return Ok(());
    }
    Err(Error::Digest {
        layer: name.to_owned(),
        expected: blob.digest,
        found,
    })
}

/// Finds the first path that came out of a bad layer differently than it is listed.
fn first_path(error: Error, name: &str, tree: &Tree, progress: &Progress, listed: &[u8]) -> Error {
    let text = tree.listing();
    let told: std::collections::BTreeMap<_, _> = listing::lines(listed).collect();
    let wrong = listing::lines(&text)
        .filter(|(path, _)| progress.paths.contains(path))
        .find(|(path, said)| told.get(path).is_none_or(|listed| listed != said));
    let Some((path, said)) = wrong else {
        return error;
    };
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Error::Differs {
        layer: name.to_owned(),
        difference: Difference {
            path: format!("/{}", words(&path)),
            left: told.get(&path).map(|listed| words(listed)),
            right: Some(words(said)),
        },
    }
}

fn path_of(difference: &Difference) -> Vec<u8> {
    // A listing of the one line gives the path back as bytes.
    let line = format!("{}\n{} d\n", listing::HEADER, difference.path);
    let mut lines = listing::lines(line.as_bytes());
    lines.next().map(|(path, _)| path).unwrap_or_default()
}

fn whiteout(path: &[u8]) -> Vec<u8> {
    let start = path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |at| at + 1);
    [
        &path[..start],
        image_oci::difference::WHITEOUT,
        &path[start..],
    ]
    .concat()
}

struct Hashed {
    file: File,
    hasher: Hasher,
}

impl Hashed {
    fn new(file: File) -> Self {
        Self {
            file,
            hasher: Hasher::new(),
        }
    }
}

impl Read for Hashed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use image_oci::{difference, layer};
    use image_tree::Entry;

    use super::*;

    fn store(layout: &Layout, parent: Option<&Tree>, tree: &Tree, name: &str) -> Layer {
        let listing = parent.map(Tree::listing);
        let changes = difference::changes(listing.as_deref(), tree).unwrap();
        let options = layer::Options {
            time: 0,
            threads: 2,
        };
        let mut gzip = layout.ingest().unwrap();
        let mut zstd = layout.ingest().unwrap();
        let written = layer::write(&changes, options, None, &mut gzip, &mut zstd).unwrap();
        let [gzip, zstd] = [gzip, zstd].map(|ingest| {
            let (digest, size) = ingest.finish().unwrap();
            LayerBlob { digest, size }
        });
        Layer {
            definition: name.to_owned(),
            diff_id: written.diff_id,
            gzip,
            zstd,
        }
    }

    fn check(layout: &Layout, layers: &[Layer], listed: &[u8]) -> Result<(), Error> {
        let gzip = layers
            .iter()
            .map(|layer| (layer.definition.clone(), layer.diff_id, layer.gzip.clone()));
        verify_layers(layout, &gzip.collect::<Vec<_>>(), listed)
    }

    #[test]
    fn the_layer_and_the_path_that_differ_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        let mut base = Tree::new();
        for name in ["a", "b", "c"] {
            let text: Vec<u8> = format!("{name} text ").into_bytes().repeat(40);
            base.insert_all(format!("etc/{name}").as_bytes(), Entry::file(text, 0o644))
                .unwrap();
        }
        let mut host = base.clone();
        host.insert(b"etc/b", Entry::file(&b"host"[..], 0o644))
            .unwrap();
        host.remove(b"etc/c");
        let layers = [
            store(&layout, None, &base, "base"),
            store(&layout, Some(&base), &host, "host"),
        ];
        check(&layout, &layers, &host.listing()).unwrap();

        let mut other = host.clone();
        other
            .insert(b"etc/b", Entry::file(&b"HOST"[..], 0o644))
            .unwrap();
        let mut more = host.clone();
        more.insert(b"etc/c", Entry::file(&b"c"[..], 0o644))
            .unwrap();
        let cases = [
            (
                "changed",
                &other,
                "host differs from the listing at `/etc/b`",
            ),
            (
                "removed",
                &more,
                "host differs from the listing at `/etc/c`",
            ),
        ];
        for (name, listed, expected) in cases {
            let error = check(&layout, &layers, &listed.listing())
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }

        // Each byte of a layer, flipped, is noticed, and what is noticed names the layer.
        let path = layout.blob(&layers[0].gzip.digest);
        let good = std::fs::read(&path).unwrap();
        let mut named = 0;
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            File::create(&path).unwrap().write_all(&bad).unwrap();
            let error = check(&layout, &layers, &host.listing())
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("base"), "{at}: {error}");
            // The layer above has this one differently, and that is no fault.
            let blamed = error.contains("/etc/b") && error.contains("listed as");
            assert!(!blamed, "{at}: {error}");
            named += usize::from(error.contains("`/"));
        }
        assert!(named * 10 > good.len() * 9, "{named} of {}", good.len());
    }
}
