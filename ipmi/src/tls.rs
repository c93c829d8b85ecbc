//! TLS to BMCs: pinned keys or an authority.
