//! Turns stored artifacts back into the listing and compares.
