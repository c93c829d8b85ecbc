//! Decisions in words, for the operator who asks why.
