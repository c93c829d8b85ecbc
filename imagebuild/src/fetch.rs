//! Fetches locked packages into the cache.
