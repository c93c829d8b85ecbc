//! The memory of blocks: as many buffers as blocks were ever on their way at once, used again and again.
//!
//! It refuses to give memory back in between: freed by one thread and taken by another, it would grow beyond what is used.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use image_manifest::BlockMap;

/// Buffers of one block each.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers {
    free: Arc<Mutex<Vec<Box<[u8]>>>>,
}

/// A buffer that comes back when its last reader is done.
#[derive(Debug)]
struct Lent {
    buffer: Box<[u8]>,
    owner: Buffers,
}

impl Buffers {
    fn free(&self) -> MutexGuard<'_, Vec<Box<[u8]>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a buffer filled; what was in it before is still there.
    pub(super) fn fill<E>(
        &self,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        let free = self.free().pop();
        #[expect(clippy::cast_possible_truncation, reason = "half a MiB")]
        let buffer = free.unwrap_or_else(|| vec![0; BlockMap::BLOCK as usize].into());
        let mut lent = Lent {
            buffer,
            owner: self.clone(),
        };
        fill(&mut lent.buffer)?;
        Ok(Bytes::from_owner(lent))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.owner.free().push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::Buffers;

    #[test]
    fn a_buffer_comes_back_from_its_last_reader_and_from_a_failure() {
        let buffers = Buffers::default();
        let fill = |byte: u8| {
            buffers.fill(|buffer| {
                buffer.fill(byte);
                Ok::<_, io::Error>(())
            })
        };
        let one = fill(1).unwrap();
        let two = fill(2).unwrap();
        let part = one.slice(3..9);
        drop(one);
        assert_eq!(buffers.free().len(), 0, "somebody reads it still");
        assert_eq!(part.as_ref(), [1; 6]);
        drop((part, two));
        assert_eq!(buffers.free().len(), 2);
        buffers
            .fill(|_| Err(io::Error::other("no disk")))
            .unwrap_err();
        assert_eq!(buffers.free().len(), 2);
        drop(fill(3).unwrap());
        assert_eq!(buffers.free().len(), 2);
    }
}
