//! Each row of the vendor table, replayed.
