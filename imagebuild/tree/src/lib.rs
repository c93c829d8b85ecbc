//! A root file system as data, and the formats it is written in.
