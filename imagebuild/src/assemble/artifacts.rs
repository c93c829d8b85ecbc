//! Artifacts on their way into the store.
//!
//! It refuses to store a part of an image before all of it is made.

use std::path::{Path, PathBuf};

use image_manifest::layout::Layout;
use image_manifest::{Artifact, Role};

use super::Error;

/// All artifacts of one image.
#[derive(Debug, Default)]
pub(super) struct Artifacts {
    made: Vec<(Role, String, Bytes)>,
}

#[derive(Debug)]
enum Bytes {
    Here(Vec<u8>),
    File(PathBuf),
}

impl Artifacts {
    pub(super) fn add(&mut self, role: Role, name: &str, bytes: Vec<u8>) {
        self.made.push((role, name.to_owned(), Bytes::Here(bytes)));
    }

    pub(super) fn add_file(&mut self, role: Role, name: &str, path: PathBuf) {
        self.made.push((role, name.to_owned(), Bytes::File(path)));
    }

    /// Puts all of them into the store and lists them, sorted by role and name.
    pub(super) fn store(self, store: &Layout) -> Result<Vec<Artifact>, Error> {
        let mut artifacts = Vec::new();
        for (role, name, bytes) in self.made {
            let stored = match bytes {
                Bytes::File(path) => store.import(&path),
                Bytes::Here(bytes) => store.ingest().and_then(|mut ingest| {
                    ingest.append(&bytes)?;
                    ingest.finish()
                }),
            };
            let (digest, size) = stored.map_err(Error::Store)?;
            artifacts.push(Artifact {
                role,
                media_type: media_type(role, &name).to_owned(),
                name,
                digest,
                size,
            });
        }
        artifacts.sort_by(|a, b| (a.role, &a.name).cmp(&(b.role, &b.name)));
        Ok(artifacts)
    }
}

fn media_type(role: Role, name: &str) -> &'static str {
    match role {
        Role::Kernel => "application/vnd.firstboot.kernel.v1",
        Role::Initrd => "application/vnd.firstboot.initrd.v1+zstd",
        Role::Rootfs => "application/vnd.firstboot.rootfs.v1+squashfs",
        Role::Listing => "text/plain",
        Role::Loader if Path::new(name).extension() == Some("efi".as_ref()) => "application/efi",
        Role::Loader => "application/octet-stream",
        Role::Verity => "application/vnd.firstboot.verity.v1",
        Role::Uki | Role::Boot => "application/efi",
        Role::BlockMap => "application/vnd.firstboot.block-map.v1+json",
        Role::Sbom | Role::Provenance => "application/json",
    }
}
