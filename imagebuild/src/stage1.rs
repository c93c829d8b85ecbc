//! The stage1 program that every initrd carries.
