//! What the paths of a registry name.

/// What a path names.
pub(super) enum Route {
    Base,
    Blob(String, String),
    Uploads(String),
    Upload(String, u64),
    Manifest(String, String),
    Tags(String),
    Referrers(String, String),
    None,
}

/// Reads a path.
pub(super) fn route(path: &str) -> Route {
    let Some(rest) = path.strip_prefix("/v2/") else {
        return Route::None;
    };
    if rest.is_empty() {
        return Route::Base;
    }
    if let Some((name, rest)) = rest.split_once("/blobs/uploads/") {
        return match rest.parse() {
            Ok(id) => Route::Upload(name.to_owned(), id),
            Err(_) if rest.is_empty() => Route::Uploads(name.to_owned()),
            Err(_) => Route::None,
        };
    }
    let parts = |between: &str| {
        let (name, rest) = rest.split_once(between)?;
        Some((name.to_owned(), rest.to_owned()))
    };
    if let Some((name, digest)) = parts("/blobs/") {
        Route::Blob(name, digest)
    } else if let Some((name, reference)) = parts("/manifests/") {
        Route::Manifest(name, reference)
    } else if let Some((name, digest)) = parts("/referrers/") {
        Route::Referrers(name, digest)
    } else if let Some(name) = rest.strip_suffix("/tags/list") {
        Route::Tags(name.to_owned())
    } else {
        Route::None
    }
}
