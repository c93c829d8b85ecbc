//! Image definitions: what an image is asked to be.
