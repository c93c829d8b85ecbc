//! Small documents of the cache, each with the digest of itself.
//!
//! It refuses what was cut or changed: that is as good as absent, and made anew.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use image_manifest::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cache;

#[derive(Serialize, Deserialize)]
struct Kept<T> {
    digest: Digest,
    value: T,
}

/// Reads what is kept at a place, if there is something and it is whole.
pub(crate) fn load<T: Serialize + DeserializeOwned>(place: &Path) -> Option<T> {
    let bytes = fs::read(place).ok()?;
    let kept: Kept<T> = serde_json::from_slice(&bytes).ok()?;
    (digest(&kept.value).ok()? == kept.digest).then_some(kept.value)
}

/// Keeps a document at a place. Readers see all of it or what was there before.
pub(crate) fn keep<T: Serialize>(place: &Path, value: &T) -> io::Result<()> {
    let directory = place.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let kept = Kept {
        digest: digest(value)?,
        value,
    };
    let file = cache::incoming(directory)?;
    file.as_file().write_all(&serde_json::to_vec(&kept)?)?;
    // It is read by others than its owner when the cache is shared.
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(place).map_err(|error| error.error)?;
    Ok(())
}

fn digest<T: Serialize>(value: &T) -> io::Result<Digest> {
    Ok(Digest::of(&serde_json::to_vec(value)?))
}
