//! Small documents of the cache, each with the digest of itself.
//!
//! It refuses what was cut or changed: that is as good as absent, and made anew.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::SystemTime;

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
    let mut file = File::open(place).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let kept: Kept<T> = serde_json::from_slice(&bytes).ok()?;
    if digest(&kept.value).ok()? != kept.digest {
        return None;
    }
    // What is used is young: it goes last. A shared cache may not be ours.
    drop(file.set_modified(SystemTime::now()));
    Some(kept.value)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_used_is_young_and_what_was_changed_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("shelf/document");
        keep(&place, &"known").unwrap();
        let old = SystemTime::now() - Duration::from_hours(48);
        let file = File::options().write(true).open(&place).unwrap();
        file.set_modified(old).unwrap();
        assert_eq!(load(&place), Some("known".to_owned()));
        let used = fs::metadata(&place).unwrap().modified().unwrap();
        assert!(used > old + Duration::from_hours(47));

        let text = fs::read_to_string(&place).unwrap();
        fs::write(&place, text.replace("known", "other")).unwrap();
        assert_eq!(load::<String>(&place), None);
    }
}
