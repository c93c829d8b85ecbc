//! Comparing a completed snapshot with the disk: which blocks it has, and what is in some of them.
//!
//! It refuses to take somebody's word for it: it is asked right before an image is made, whoever completed the snapshot.

use std::sync::Arc;

use image_manifest::Digest;

use super::blocks;
use super::buffers::Buffers;
use crate::aws::client::Client;
use crate::error::Error;
use crate::subject::Disk;

/// Blocks whose bytes are read back.
const SAMPLES: usize = 8;

/// Says in what a completed snapshot is not the disk.
pub(in crate::aws) async fn compare(
    client: &Client,
    disk: &Arc<dyn Disk>,
    id: &str,
) -> Result<(), Error> {
    let listed = client.blocks(id).await?;
    let found: Vec<u64> = listed.iter().map(|block| block.block_index).collect();
    let expected: Vec<u64> = disk.blocks().written().map(|(index, _)| index).collect();
    if found != expected {
        return Err(Error::Mismatch {
            what: format!("the list of blocks of {id}"),
            found: format!("{} blocks", found.len()),
            expected: format!("the {} blocks that were sent", expected.len()),
        });
    }
    let buffers = Buffers::default();
    let step = listed.len().div_ceil(SAMPLES).max(1);
    for block in listed.iter().step_by(step).chain(listed.last()) {
        let index = block.block_index;
        let found = Digest::of(&client.read(id, block).await?);
        let expected = blocks::read(Arc::clone(disk), &buffers, index).await?.1;
        if found != expected {
            return Err(Error::Mismatch {
                what: format!("block {index} of {id}"),
                found: found.to_string(),
                expected: expected.to_string(),
            });
        }
    }
    Ok(())
}
