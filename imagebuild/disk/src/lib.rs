//! The disk of an image: where every byte of it comes from, and the forms that it is written in.
//!
//! It refuses to hold a disk: a disk is a list of extents over pieces that stand elsewhere, and every
//! form streams from it. It takes no clock, no random number and no name from the computer it runs on.

mod block_map;
pub mod esp;
pub mod extent;
mod fat;
pub mod gce;
pub mod gpt;
mod guid;
mod gzip;
pub mod pe;
mod plan;
pub mod qcow2;
mod sink;
pub mod verity;
pub mod vhd;

pub use block_map::block_map;
pub use extent::OpenFile;
pub use extent::{Extent, Extents, Image, Piece, Pieces, ReadAt, Source, Window};
pub use guid::Guid;
pub use plan::{DiskPlan, PieceSizes, PlanError, Request, Sizes, size_disk};
pub use sink::{HashSink, Sink, SparseSink, WriteSink};

/// A sector, as GPT and FAT count them here.
pub const SECTOR: u64 = 512;
/// What partitions are aligned to.
pub const MIB: u64 = 1 << 20;
