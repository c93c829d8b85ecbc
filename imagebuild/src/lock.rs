//! Locks: the exact packages of an image.
