//! The host's root: the image read-only below, changes in memory above.
//!
//! It never writes to the image, and mounts nothing that was not fetched or checked in full.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use nix::mount::{MsFlags, mount};

use crate::loopdev;

/// Where the new root is put together.
pub(crate) const NEW_ROOT: &str = "/newroot";
/// What stage1 leaves for the agent and the operator.
pub(crate) const STATE: &str = "/run/firstboot";
/// The image as it was built, visible on the running host.
pub(crate) const IMAGE: &str = "/run/firstboot/image";
/// What the host changed, visible to root on the running host.
const CHANGES: &str = "/run/firstboot/changes";
/// The upper directory of the overlay: what differs from the image, and nothing else.
pub(crate) const UPPER: &str = "/run/firstboot/changes/upper";

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("failed to make `{path}`")]
    Directory {
        path: &'static str,
        source: io::Error,
    },
    #[error("failed to attach the root file system to a loop device")]
    Attach(#[source] io::Error),
    #[error("failed to mount {what} on `{path}`")]
    Mount {
        what: &'static str,
        path: &'static str,
        source: io::Error,
    },
}

/// Mounts a fetched squashfs with an overlay in memory as the new root.
pub(crate) fn assemble(squashfs: &File) -> Result<(), Error> {
    let (device, open) = loopdev::attach(squashfs).map_err(Error::Attach)?;
    assemble_on(&device)?;
    drop(open);
    Ok(())
}

/// Mounts a device's squashfs with an overlay in memory as the new root.
pub(crate) fn assemble_on(device: &Path) -> Result<(), Error> {
    for path in [STATE, IMAGE, CHANGES, NEW_ROOT] {
        directory(path, 0o755)?;
    }
    let read_only = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    place(device.to_str(), IMAGE, "squashfs", read_only, None)?;
    let flags = MsFlags::MS_NODEV;
    place(
        Some("firstboot"),
        CHANGES,
        "tmpfs",
        flags,
        Some("mode=0700"),
    )?;
    directory(UPPER, 0o755)?;
    directory("/run/firstboot/changes/work", 0o755)?;
    let layers = "lowerdir=/run/firstboot/image,upperdir=/run/firstboot/changes/upper,workdir=/run/firstboot/changes/work";
    place(
        Some("firstboot"),
        NEW_ROOT,
        "overlay",
        MsFlags::empty(),
        Some(layers),
    )
}

/// Mounts one file system.
pub(crate) fn place(
    source: Option<&str>,
    path: &'static str,
    what: &'static str,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), Error> {
    mount(source, path, Some(what), flags, options).map_err(|errno| Error::Mount {
        what,
        path,
        source: errno.into(),
    })
}

/// Makes a directory, unless it is there.
pub(crate) fn directory(path: &'static str, mode: u32) -> Result<(), Error> {
    if Path::new(path).is_dir() {
        return Ok(());
    }
    let result = DirBuilder::new().mode(mode).create(path);
    result.map_err(|source| Error::Directory { path, source })
}
