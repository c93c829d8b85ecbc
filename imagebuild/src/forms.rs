//! Forms of an image's disk: composed from the artifacts whenever they are wanted.
//!
//! It refuses to store them: the manifest has their digests, and the artifacts all of their bytes.
//! A form streams; whatever its size, a few megabytes of it are in memory.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use image_disk::{
    DiskPlan, Extents, HashSink, Image, OpenFile, PieceSizes, Pieces, PlanError, ReadAt, Request,
    Sink, gce, qcow2, vhd,
};
use image_manifest::layout::Layout;
use image_manifest::{Digest, Form, FormKind, Manifest, Role};

use crate::secure_boot::{self, Signer};

/// Why a form could not be composed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image has no disk.
    #[error("image `{0}` has no disk: its definition lists none among its `outputs`")]
    NoDisk(String),
    /// An artifact could not be opened.
    #[error("failed to open `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The programs that firmware starts could not be signed.
    #[error(transparent)]
    Sign(#[from] secure_boot::Error),
    /// There is no room for their signed copies.
    #[error("failed to make a temporary directory")]
    Temporary(#[source] io::Error),
    /// The disk could not be laid out.
    #[error("failed to lay out the disk")]
    Plan(#[from] PlanError),
    /// A form could not be composed.
    #[error("failed to compose `{name}`")]
    Compose {
        /// Its file name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// What a disk is of, apart from its pieces.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Name of the image.
    pub name: &'a str,
    /// Debian's name of the architecture.
    pub architecture: &'a str,
    /// The tree digest.
    pub tree: &'a Digest,
    /// The only clock, in seconds since 1970.
    pub source_date: i64,
}

impl<'a> Identity<'a> {
    /// Takes what a manifest says.
    #[must_use]
    pub fn of(manifest: &'a Manifest) -> Self {
        Self {
            name: &manifest.name,
            architecture: &manifest.architecture,
            tree: &manifest.tree,
            source_date: manifest.source_date,
        }
    }
}

/// Where the pieces of a disk stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The boot loader of the EFI system partition.
    pub boot: PathBuf,
    /// Kernel, initrd and command line.
    pub uki: PathBuf,
    /// The root file system.
    pub rootfs: PathBuf,
    /// Its hash tree.
    pub verity: PathBuf,
}

impl Places {
    /// The artifacts of a stored image. Whoever signs the two programs puts other files in their place.
    ///
    /// # Errors
    /// When the image has no disk.
    pub fn of(store: &Layout, manifest: &Manifest) -> Result<Self, Error> {
        let place = |role| -> Result<PathBuf, Error> {
            let artifact = manifest.artifact(role);
            let artifact = artifact.ok_or_else(|| Error::NoDisk(manifest.name.clone()))?;
            Ok(store.blob(&artifact.digest))
        };
        Ok(Self {
            boot: place(Role::Boot)?,
            uki: place(Role::Uki)?,
            rootfs: place(Role::Rootfs)?,
            verity: place(Role::Verity)?,
        })
    }
}

/// The pieces of a disk, open.
#[derive(Debug)]
pub struct OpenPieces {
    boot: OpenFile,
    uki: OpenFile,
    rootfs: OpenFile,
    verity: OpenFile,
}

impl OpenPieces {
    /// Opens them.
    ///
    /// # Errors
    /// When one of them cannot be opened.
    pub fn open(places: &Places) -> Result<Self, Error> {
        Ok(Self {
            boot: open(&places.boot)?,
            uki: open(&places.uki)?,
            rootfs: open(&places.rootfs)?,
            verity: open(&places.verity)?,
        })
    }

    /// Their sizes.
    #[must_use]
    pub fn sizes(&self) -> PieceSizes {
        PieceSizes {
            boot: self.boot.size(),
            uki: self.uki.size(),
            rootfs: self.rootfs.size(),
        }
    }

    fn pieces(&self) -> Pieces<'_> {
        Pieces {
            boot: &self.boot,
            uki: &self.uki,
            rootfs: &self.rootfs,
            verity: &self.verity,
        }
    }
}

fn open(path: &Path) -> Result<OpenFile, Error> {
    let opened = File::open(path).and_then(OpenFile::new);
    opened.map_err(|source| Error::Open {
        path: path.to_owned(),
        source,
    })
}

/// The disk of an image, ready to be written in any form.
#[derive(Debug)]
pub struct Disk {
    name: String,
    source_date: i64,
    plan: DiskPlan,
    pieces: OpenPieces,
}

impl Disk {
    /// Composes the disk of a stored image.
    ///
    /// # Errors
    /// When the image has none, or its artifacts cannot be opened or do not fit.
    pub fn of(store: &Layout, manifest: &Manifest) -> Result<Self, Error> {
        Self::from_places(manifest, &Places::of(store, manifest)?)
    }

    /// Composes the disk of a stored image, with its programs signed by somebody whom firmware trusts.
    ///
    /// # Errors
    /// When the image has none, its programs cannot be signed, or its artifacts cannot be opened or do not fit.
    pub fn signed(store: &Layout, manifest: &Manifest, signer: &Signer) -> Result<Self, Error> {
        let mut places = Places::of(store, manifest)?;
        // The copies are open when their directory goes.
        let directory = tempfile::tempdir().map_err(Error::Temporary)?;
        for (place, name) in [(&mut places.boot, "boot.efi"), (&mut places.uki, "uki.efi")] {
            let copy = directory.path().join(name);
            signer.sign(place, &copy)?;
            *place = copy;
        }
        Self::from_places(manifest, &places)
    }

    /// Composes the disk of an image from pieces that stand elsewhere.
    ///
    /// # Errors
    /// When the image has none, or the pieces cannot be opened or do not fit.
    pub fn from_places(manifest: &Manifest, places: &Places) -> Result<Self, Error> {
        let sizes = manifest.disk.as_ref();
        let sizes = sizes.ok_or_else(|| Error::NoDisk(manifest.name.clone()))?;
        let pieces = OpenPieces::open(places)?;
        Self::new(&Identity::of(manifest), sizes, pieces)
    }

    /// Composes a disk.
    ///
    /// # Errors
    /// When the pieces do not fit.
    pub fn new(
        identity: &Identity<'_>,
        sizes: &image_manifest::Disk,
        pieces: OpenPieces,
    ) -> Result<Self, Error> {
        let plan = DiskPlan::new(&Request {
            name: identity.name,
            architecture: identity.architecture,
            tree: identity.tree,
            source_date: identity.source_date,
            disk: sizes,
            pieces: pieces.sizes(),
        })?;
        Ok(Self {
            name: identity.name.to_owned(),
            source_date: identity.source_date,
            plan,
            pieces,
        })
    }

    /// Name of the image.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its partitions and extents.
    #[must_use]
    pub fn plan(&self) -> &DiskPlan {
        &self.plan
    }

    /// Every byte of a form and where it comes from; the archive is a stream and has no such list.
    #[must_use]
    pub fn extents(&self, kind: FormKind) -> Option<Extents> {
        match kind {
            FormKind::Raw => Some(self.plan.extents.clone()),
            FormKind::Qcow2 => Some(qcow2::compose(&self.plan.extents)),
            FormKind::Vhd => {
                let disk = &self.plan.extents;
                Some(vhd::compose(disk, self.plan.guid, self.source_date))
            }
            FormKind::Gce => None,
        }
    }

    /// A file that is composed of the disk's pieces.
    #[must_use]
    pub fn image<'a>(&'a self, extents: &'a Extents) -> Image<'a> {
        Image {
            extents,
            pieces: self.pieces.pieces(),
        }
    }

    /// Writes a form.
    ///
    /// # Errors
    /// When a piece cannot be read or the sink fails.
    pub fn write(&self, kind: FormKind, sink: &mut dyn Sink) -> Result<(), Error> {
        let written = match self.extents(kind) {
            Some(extents) => self.image(&extents).stream(sink),
            None => gce::write(&self.image(&self.plan.extents), self.source_date, sink),
        };
        written.map_err(|source| self.failed(kind, source))
    }

    /// Lists forms with digest and size, sorted by kind.
    ///
    /// # Errors
    /// When a piece cannot be read.
    pub fn forms(&self, kinds: &[FormKind]) -> Result<Vec<Form>, Error> {
        let (flat, small): (Vec<_>, Vec<_>) = kinds
            .iter()
            .partition(|kind| matches!(kind, FormKind::Raw | FormKind::Vhd));
        // Hashing a gigabyte of zeros takes longest; the others have few of them.
        let (flat, small) = thread::scope(|scope| {
            let flat = scope.spawn(|| self.flat_forms(&flat));
            let small: Result<Vec<_>, _> = small.iter().map(|kind| self.form(*kind)).collect();
            match flat.join() {
                Ok(flat) => (flat, small),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        });
        let mut forms = flat?;
        forms.extend(small?);
        forms.sort_by_key(|form| form.kind);
        Ok(forms)
    }

    /// The disk, and the disk with a footer: one reading serves both.
    fn flat_forms(&self, kinds: &[FormKind]) -> Result<Vec<Form>, Error> {
        if kinds.is_empty() {
            return Ok(Vec::new());
        }
        let mut sink = HashSink::default();
        self.write(FormKind::Raw, &mut sink)?;
        let forms = kinds.iter().map(|kind| {
            let mut sink = sink.clone();
            if *kind == FormKind::Vhd {
                let footer =
                    vhd::footer(self.plan.extents.size(), self.plan.guid, self.source_date);
                let taken = sink.data(&footer);
                taken.map_err(|source| self.failed(*kind, source))?;
            }
            Ok(self.described(*kind, sink))
        });
        forms.collect()
    }

    /// Describes one form.
    ///
    /// # Errors
    /// When a piece cannot be read.
    pub fn form(&self, kind: FormKind) -> Result<Form, Error> {
        let mut sink = HashSink::default();
        self.write(kind, &mut sink)?;
        Ok(self.described(kind, sink))
    }

    fn described(&self, kind: FormKind, sink: HashSink) -> Form {
        let (digest, size) = sink.finish();
        Form {
            kind,
            name: file_name(&self.name, kind),
            digest,
            size,
        }
    }

    fn failed(&self, kind: FormKind, source: io::Error) -> Error {
        let name = file_name(&self.name, kind);
        Error::Compose { name, source }
    }
}

/// The file name of a form.
#[must_use]
pub fn file_name(image: &str, kind: FormKind) -> String {
    let extension = match kind {
        FormKind::Raw => "raw",
        FormKind::Qcow2 => "qcow2",
        FormKind::Vhd => "vhd",
        FormKind::Gce => "tar.gz",
    };
    format!("{image}.{extension}")
}
