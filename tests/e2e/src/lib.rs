//! End-to-end tests: the product's binaries against tools no one here wrote.
