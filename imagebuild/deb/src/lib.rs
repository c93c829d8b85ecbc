//! Debian archives as data: control files, signed releases, indexes, resolution, packages.
