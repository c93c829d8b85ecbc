//! TFTP: loaders only.
