//! Removes what differs from build to build.
