//! Assembles a locked image: plan, then artifacts in the store.
