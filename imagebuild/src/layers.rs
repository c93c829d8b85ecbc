//! The container image of a build: one layer for each definition that it is made of, and one for what only a boot needs.
//!
//! It refuses to split a tree by guesses: the layer of a parent is what the parent's own build makes from the parent's own
//! lock, so two images that share a parent share its layer byte for byte; what a child differs in is the child's layer.

mod documents;
mod keep;
mod verify;

use std::io;
use std::path::{Path, PathBuf};

use image_manifest::layout::{self, Entry, Layout};
use image_manifest::{Digest, Layer, LayerBlob, Manifest};
use image_oci::compress::Encoding;
use image_oci::difference::{self, Change};
use image_oci::image::{self, About};
use image_oci::spec::{self, Document, Run};
use image_oci::{archive, layer};
use image_tree::Tree;

use crate::assemble::{self, Plan};
use crate::definition::{self, Definition, Oci, Output};
use crate::fetch::FetchedPackage;
use crate::lock::{Lock, Locked};
pub use documents::{Container, Error as DocumentsError, check as check_documents};
pub use keep::Kept;
pub use verify::{Error as VerifyError, verify, verify_layers};

/// What the layer is called that holds what only a boot needs.
pub const BOOT: &str = "boot";
/// How the name of a container image ends in the store.
const SUFFIX: &str = "-oci";

/// A definition that others extend, as one layer of theirs.
#[derive(Clone, Debug)]
pub struct Parent {
    /// The definition and its lock.
    pub locked: Locked,
    /// What its own build would do.
    pub plan: Plan,
    /// What is known of it from before, if anything.
    pub kept: Option<Kept>,
    /// Its packages, when it must be built.
    pub packages: Vec<FetchedPackage>,
}

/// Why a container image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tree holds a name that no layer can hold.
    #[error(transparent)]
    Reserved(#[from] difference::Reserved),
    /// A layer could not be written.
    #[error("failed to write the layer of `{definition}`")]
    Write {
        /// Whose layer.
        definition: String,
        /// Why.
        source: layer::Error,
    },
    /// The store could not be read or written.
    #[error("failed to put the container image into the store")]
    Store(#[source] layout::Error),
    /// What is known about earlier layers could not be kept.
    #[error("failed to keep what is known about layers in `{}`", path.display())]
    Keep {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// Whether the tree holds what no layer can: a retry gives the same.
    #[must_use]
    pub fn is_of_the_definition(&self) -> bool {
        let entry = |error: &layer::Error| {
            matches!(
                error,
                layer::Error::Entry(
                    archive::write::Error::Socket(_) | archive::write::Error::Device(_)
                )
            )
        };
        match self {
            Self::Reserved(_) => true,
            Self::Write { source, .. } => entry(source),
            Self::Store(_) | Self::Keep { .. } => false,
        }
    }
}

/// The name of the container image of an image.
#[must_use]
pub fn name_of(image: &str) -> String {
    format!("{image}{SUFFIX}")
}

/// Finds the parents of a definition that has a container image: those that have a lock of their own. One without it has
/// no layer of its own: what it adds is in the layer of the next.
#[must_use]
pub fn parents(definition: &Definition) -> Vec<Locked> {
    if !definition.outputs.contains(&Output::Oci) {
        return Vec::new();
    }
    let Some((_, above)) = definition.ancestors.split_last() else {
        return Vec::new();
    };
    above
        .iter()
        .filter_map(|directory| locked(directory, &definition.architecture))
        .collect()
}

/// Plans the parents of an image: from the last one that is known from before, or else from the first.
///
/// # Errors
/// When a file that one of them names cannot be read.
pub fn plan_parents(
    definition: &Definition,
    writer: &Writer<'_>,
) -> Result<Vec<Parent>, assemble::Error> {
    let mut planned = Vec::new();
    for locked in parents(definition).into_iter().rev() {
        let plan = locked.plan()?;
        let kept = writer.find(&plan);
        let known = kept.is_some();
        planned.insert(
            0,
            Parent {
                locked,
                plan,
                kept,
                packages: Vec::new(),
            },
        );
        if known {
            break;
        }
    }
    Ok(planned)
}

fn locked(directory: &Path, architecture: &str) -> Option<Locked> {
    // Its problems were told with those of the definition that extends it, as far as they matter to that.
    let parent = definition::load_for(directory, Some(architecture)).ok()?;
    parent.packages.as_ref()?;
    let name = parent.name.clone();
    let lock = Lock::load(&parent.lock_path());
    let locked = match lock {
        Ok(lock) => parent.lock(lock).map_err(|stale| stale.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match locked {
        Ok(locked) => Some(locked),
        Err(error) => {
            tracing::warn!(
                definition = name,
                error,
                "no layer of its own: `imagebuild lock` gives it one"
            );
            None
        }
    }
}

/// Writes layers into a store.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The store.
    pub store: &'a Layout,
    /// Directory in which is kept what is known about earlier layers; it may be deleted at any time.
    pub cache: &'a Path,
    /// How many threads compress.
    pub threads: usize,
}

impl Writer<'_> {
    /// Finds what is known of a parent from before, when the store has all of its layers.
    #[must_use]
    pub fn find(&self, parent: &Plan) -> Option<Kept> {
        keep::find(self, parent)
    }

    /// Writes the layer of a parent, over those of its own parents, and keeps what is known about it.
    ///
    /// # Errors
    /// When the layer cannot be written.
    pub fn parent(&self, plan: &Plan, above: Option<&Kept>, tree: &Tree) -> Result<Kept, Error> {
        let kept = self.definition(plan, above, tree)?;
        keep::remember(self, plan, &kept)?;
        Ok(kept)
    }

    /// Writes the layers of an image over those of its parents, and returns all of them, lowest first.
    ///
    /// # Errors
    /// When a layer cannot be written.
    pub fn image(
        &self,
        plan: &Plan,
        above: Option<&Kept>,
        tree: &Tree,
    ) -> Result<Vec<Layer>, Error> {
        let mut layers = self.definition(plan, above, tree)?.layers;
        let boot = difference::boot(tree)?;
        if !boot.is_empty() {
            layers.push(self.layer(plan, BOOT, &boot)?);
        }
        Ok(layers)
    }

    fn definition(&self, plan: &Plan, above: Option<&Kept>, tree: &Tree) -> Result<Kept, Error> {
        let changes = difference::changes(above.map(|kept| &kept.listing[..]), tree)?;
        let layer = self.layer(plan, &plan.name, &changes)?;
        let mut layers = above.map(|kept| kept.layers.clone()).unwrap_or_default();
        layers.push(layer);
        Ok(Kept {
            listing: tree.listing(),
            layers,
        })
    }

    fn layer(&self, plan: &Plan, definition: &str, changes: &[Change<'_>]) -> Result<Layer, Error> {
        tracing::info!(
            step = "layer",
            definition,
            paths = changes.len(),
            "writing a layer"
        );
        let earlier = keep::earlier(self, plan, definition);
        let options = layer::Options {
            time: u64::try_from(plan.source_date).unwrap_or_default(),
            threads: self.threads,
        };
        let mut gzip = self.store.ingest().map_err(Error::Store)?;
        let mut zstd = self.store.ingest().map_err(Error::Store)?;
        let written = layer::write(changes, options, earlier.as_ref(), &mut gzip, &mut zstd);
        let written = written.map_err(|source| Error::Write {
            definition: definition.to_owned(),
            source,
        })?;
        let [gzip, zstd] = [gzip.finish(), zstd.finish()].map(|stored| {
            let (digest, size) = stored.map_err(Error::Store)?;
            Ok::<_, Error>(LayerBlob { digest, size })
        });
        let layer = Layer {
            definition: definition.to_owned(),
            diff_id: written.diff_id,
            gzip: gzip?,
            zstd: zstd?,
        };
        tracing::debug!(
            definition,
            segments = written.segments.len(),
            reused = written.reused,
            "wrote a layer"
        );
        keep::segments(self, plan, &layer, written.segments)?;
        Ok(layer)
    }
}

/// Puts the documents of a container image into the store, and returns what is to be entered: the index under the name of the
/// image, and each manifest under a name of its own, for tools that cannot choose in an index. Nothing has a name yet.
///
/// # Errors
/// When the store cannot be read or written.
pub fn compose(
    store: &Layout,
    definition: &Definition,
    manifest: &Manifest,
) -> Result<Vec<Entry>, Error> {
    let about = About {
        name: &manifest.name,
        description: &definition.description,
        architecture: &manifest.architecture,
        tree: manifest.tree,
        inputs: manifest.inputs,
        source_date: manifest.source_date,
        run: run(&definition.oci),
        layers: &manifest.layers,
    };
    let put = |bytes: Vec<u8>| store.put(&bytes).map_err(Error::Store);
    let config = put(image::config(&about))?;
    let gzip = put(image::manifest(&about, Encoding::Gzip, config))?;
    let zstd = put(image::manifest(&about, Encoding::Zstd, config))?;
    let entry = |media_type: &str, (digest, size), name: String| Entry {
        media_type: media_type.to_owned(),
        digest,
        size,
        artifact_type: None,
        name: Some(name),
    };
    let own = format!("{}-{}", name_of(&manifest.name), manifest.architecture);
    let mut entries = vec![
        entry(spec::MANIFEST, zstd, format!("{own}-zstd")),
        entry(spec::MANIFEST, gzip, own),
    ];
    // Of another architecture than the first, it is in an index of its own and in that of the first.
    let mut images = vec![&manifest.name, &definition.name];
    images.dedup();
    for image in images {
        let name = name_of(image);
        let known = known_in(store, &name)?;
        let about = About {
            name: image,
            run: Run::default(),
            ..about.clone()
        };
        let index = put(image::index(&about, known, gzip, zstd))?;
        entries.push(entry(spec::INDEX, index, name));
    }
    Ok(entries)
}

/// The manifests that an index of the store has; none where it is not there or not readable.
fn known_in(store: &Layout, name: &str) -> Result<Vec<spec::Descriptor>, Error> {
    let known = store.named(name).map_err(Error::Store)?;
    let known = known.and_then(|entry| store.read(&entry.digest).ok());
    match known.map(|bytes| Document::parse(&bytes, Some(spec::INDEX))) {
        Some(Ok(Document::Index(index))) => Ok(index.manifests),
        _ => Ok(Vec::new()),
    }
}

/// Names the documents of a container image: the index, and each manifest for tools that cannot choose in an index.
fn names(
    name: &str,
    architecture: &str,
    [index, gzip, zstd]: [Digest; 3],
) -> [(String, Digest); 3] {
    let own = format!("{name}-{architecture}");
    let fast = format!("{own}-zstd");
    [(name.to_owned(), index), (own, gzip), (fast, zstd)]
}

fn run(oci: &Oci) -> Run {
    let some = |text: &Option<String>| text.clone();
    Run {
        user: some(&oci.user),
        exposed_ports: oci
            .ports
            .iter()
            .map(|port| (port.clone(), spec::Empty {}))
            .collect(),
        env: oci
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        entrypoint: oci.entrypoint.clone(),
        cmd: oci.cmd.clone(),
        working_dir: some(&oci.working_directory),
        labels: oci.labels.clone(),
        stop_signal: some(&oci.stop_signal),
    }
}

/// Digest of what a child's build takes from its parents.
pub(crate) fn inputs(own: &Digest, parents: &[Digest]) -> Digest {
    let mut text = own.to_string();
    for parent in parents {
        text.push('\n');
        text.push_str(&parent.to_string());
    }
    Digest::of(text.as_bytes())
}
