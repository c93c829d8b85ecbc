//! Where archives are found.
