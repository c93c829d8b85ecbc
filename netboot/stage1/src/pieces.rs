//! The root file system as pieces with digests: which is asked for next, and what an answer is
//! worth.
//!
//! It has no socket, clock or disk. Only pieces that had their digest are ever counted as there.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use image_manifest::{BootImage, Digest};

/// A piece that is wrong so often is wrong at its source.
const TRIES: u32 = 4;
/// A piece must fit in a host's memory many times over.
const LARGEST: u64 = 64 * 1024 * 1024;

/// What is left to fetch of one root file system.
#[derive(Debug)]
pub(crate) struct Pieces<'a> {
    image: &'a BootImage,
    waiting: VecDeque<usize>,
    there: usize,
    wrong: BTreeMap<usize, u32>,
}

/// One piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its place in the order.
    pub(crate) number: usize,
    /// Its bytes in the whole.
    pub(crate) range: Range<u64>,
}

/// What one answer was worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The piece has its digest.
    Right,
    /// It does not, and is to be asked for again.
    AskAgain,
}

/// The initrd's own list of pieces does not add up.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{count} pieces of {piece} bytes do not make a root file system of {size}")]
pub(crate) struct UnusablePieces {
    count: usize,
    piece: u64,
    size: u64,
}

/// A piece that never had its digest.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "piece {number} of {count} of {rootfs} (bytes {} to {}) was wrong {TRIES} times: \
     expected {expected}, got {found}",
    .range.start, .range.end
)]
pub(crate) struct WrongPiece {
    number: usize,
    count: usize,
    rootfs: Digest,
    range: Range<u64>,
    expected: Digest,
    found: Digest,
}

impl<'a> Pieces<'a> {
    /// Starts with all pieces of an image's root file system left to fetch.
    pub(crate) fn new(image: &'a BootImage) -> Result<Self, UnusablePieces> {
        let (count, piece) = (image.chunks.digests.len(), image.chunks.size);
        let usable = (1..=LARGEST).contains(&piece)
            && image.size > 0
            && image.size.div_ceil(piece) == count as u64;
        if !usable {
            let size = image.size;
            return Err(UnusablePieces { count, piece, size });
        }
        Ok(Self {
            image,
            waiting: (0..count).collect(),
            there: 0,
            wrong: BTreeMap::new(),
        })
    }

    /// Takes the next piece that nobody is fetching.
    pub(crate) fn take(&mut self) -> Option<Piece> {
        let number = self.waiting.pop_front()?;
        let start = number as u64 * self.image.chunks.size;
        let end = self.image.size.min(start + self.image.chunks.size);
        let range = start..end;
        Some(Piece { number, range })
    }

    /// Judges a piece that has arrived.
    ///
    /// # Errors
    /// When it was wrong too often.
    pub(crate) fn arrived(
        &mut self,
        piece: &Piece,
        found: Digest,
    ) -> Result<Answer, Box<WrongPiece>> {
        let Some(&expected) = self.image.chunks.digests.get(piece.number) else {
            return Ok(Answer::AskAgain);
        };
        if found == expected {
            self.there += 1;
            return Ok(Answer::Right);
        }
        let wrong = self.wrong.entry(piece.number).or_default();
        *wrong += 1;
        if *wrong < TRIES {
            return Ok(Answer::AskAgain);
        }
        Err(Box::new(WrongPiece {
            number: piece.number + 1,
            count: self.image.chunks.digests.len(),
            rootfs: self.image.rootfs,
            range: piece.range.clone(),
            expected,
            found,
        }))
    }

    /// Tells whether every piece is there.
    pub(crate) fn is_complete(&self) -> bool {
        self.there == self.image.chunks.digests.len()
    }

    /// Returns how many answers were wrong.
    pub(crate) fn wrong_answers(&self) -> u32 {
        self.wrong.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use image_manifest::Chunks;
    use proptest::prelude::*;

    use super::*;

    fn image(bytes: &[u8], piece: usize) -> BootImage {
        BootImage {
            name: "test".to_owned(),
            tree: Digest::of(b"tree"),
            rootfs: Digest::of(bytes),
            size: bytes.len() as u64,
            chunks: Chunks {
                size: piece as u64,
                digests: bytes.chunks(piece).map(Digest::of).collect(),
            },
            signers: Vec::new(),
        }
    }

    #[test]
    fn lists_that_do_not_add_up_are_refused() {
        let good = image(&[1; 10], 4);
        let with = |size, piece, count| {
            let mut image = good.clone();
            (image.size, image.chunks.size) = (size, piece);
            image.chunks.digests.resize(count, Digest::of(b""));
            image
        };
        let cases = [
            ("as built", with(10, 4, 3), true),
            ("one piece", with(4, 4, 1), true),
            ("a piece too few", with(10, 4, 2), false),
            ("a piece too many", with(10, 4, 4), false),
            ("no bytes", with(0, 4, 0), false),
            ("pieces of nothing", with(10, 0, 3), false),
            ("huge pieces", with(LARGEST + 1, LARGEST + 1, 1), false),
            ("an endless root", with(u64::MAX, 4, 3), false),
        ];
        for (name, image, usable) in cases {
            assert_eq!(Pieces::new(&image).is_ok(), usable, "{name}");
        }
    }

    #[test]
    fn a_wrong_piece_is_asked_for_again_and_then_named() {
        let image = image(b"0123456789", 4);
        let mut pieces = Pieces::new(&image).unwrap();
        let piece = pieces.take().unwrap();
        for _ in 1..TRIES {
            let answer = pieces.arrived(&piece, Digest::of(b"x"));
            assert_eq!(answer, Ok(Answer::AskAgain));
        }
        let refusal = pieces
            .arrived(&piece, Digest::of(b"x"))
            .unwrap_err()
            .to_string();
        assert!(refusal.starts_with("piece 1 of 3 of sha256:"), "{refusal}");
        assert!(
            refusal.contains("(bytes 0 to 4) was wrong 4 times"),
            "{refusal}"
        );
        assert!(!pieces.is_complete());
        assert_eq!(pieces.wrong_answers(), TRIES);
    }

    proptest! {
        #[test]
        fn pieces_cover_the_whole_once_and_in_order(
            bytes in proptest::collection::vec(any::<u8>(), 1..200), piece in 1usize..50
        ) {
            let image = image(&bytes, piece);
            let mut pieces = Pieces::new(&image).unwrap();
            let mut at = 0;
            while let Some(piece) = pieces.take() {
                prop_assert!(!pieces.is_complete());
                prop_assert_eq!(piece.range.start, at);
                at = piece.range.end;
                let range = usize::try_from(piece.range.start).unwrap()..usize::try_from(at).unwrap();
                let answer = pieces.arrived(&piece, Digest::of(&bytes[range]));
                prop_assert_eq!(answer, Ok(Answer::Right));
            }
            prop_assert_eq!(at, image.size);
            prop_assert!(pieces.is_complete());
        }
    }
}
