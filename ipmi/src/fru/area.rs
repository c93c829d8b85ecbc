//! The bytes of a FRU inventory.

use super::text;

/// What a FRU inventory says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The chassis.
    pub chassis: Option<Area>,
    /// The board.
    pub board: Option<Area>,
    /// The product.
    pub product: Option<Area>,
}

/// One area of an inventory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Area {
    /// Who made it.
    pub maker: Option<String>,
    /// What it is called.
    pub name: Option<String>,
    /// Its part or model number.
    pub number: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
}

/// The fields of an area that end it.
const LAST: u8 = 0xc1;
/// No area has more fields that anybody reads.
const FIELDS: usize = 16;

impl Inventory {
    /// Decodes an inventory; none if its header is not one. An area that is damaged is left out.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; 8] = bytes.first_chunk()?;
        if header[0] & 0x0f != 1 || !adds_up(header) {
            return None;
        }
        let area = |offset: u8| area(bytes, offset);
        Some(Self {
            chassis: area(header[2]).map(chassis),
            board: area(header[3]).map(board),
            product: area(header[4]).map(product),
        })
    }
}

/// How much of an inventory must be read before it can be decoded, as far as its first bytes tell.
pub(super) fn needed(bytes: &[u8]) -> usize {
    let Some(header) = bytes.first_chunk::<8>() else {
        return 8;
    };
    if header[0] & 0x0f != 1 || !adds_up(header) {
        return 8;
    }
    let ends = header[2..5].iter().filter(|offset| **offset != 0);
    let end = |offset: &u8| {
        let from = usize::from(*offset) * 8;
        // An area says how long it is in its second byte.
        let length = bytes
            .get(from + 1)
            .map_or(2, |eights| usize::from(*eights) * 8);
        from + length
    };
    ends.map(end).max().unwrap_or(8)
}

fn adds_up(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

/// The area at `offset`, which counts eights; 0 is no area.
fn area(bytes: &[u8], offset: u8) -> Option<&[u8]> {
    let from = usize::from(offset) * 8;
    let rest = bytes.get(from..).filter(|_| from != 0)?;
    let length = usize::from(*rest.get(1)?) * 8;
    rest.get(..length)
        .filter(|area| !area.is_empty() && area[0] & 0x0f == 1 && adds_up(area))
}

/// The text fields of an area after `fixed` bytes.
fn fields(area: &[u8], fixed: usize) -> Vec<Option<String>> {
    let mut fields = Vec::new();
    let mut rest = area.get(fixed..).unwrap_or_default();
    while let Some((&kind, after)) = rest.split_first() {
        let length = usize::from(kind & 0x3f);
        let Some((field, after)) = after.split_at_checked(length) else {
            break;
        };
        if kind == LAST || fields.len() == FIELDS {
            break;
        }
        fields.push(text(kind >> 6, field));
        rest = after;
    }
    fields
}

fn take(fields: &mut [Option<String>], index: usize) -> Option<String> {
    fields.get_mut(index)?.take()
}

fn chassis(area: &[u8]) -> Area {
    let mut fields = fields(area, 3);
    Area {
        maker: None,
        name: None,
        number: take(&mut fields, 0),
        serial: take(&mut fields, 1),
    }
}

fn board(area: &[u8]) -> Area {
    let mut fields = fields(area, 6);
    Area {
        maker: take(&mut fields, 0),
        name: take(&mut fields, 1),
        serial: take(&mut fields, 2),
        number: take(&mut fields, 3),
    }
}

fn product(area: &[u8]) -> Area {
    let mut fields = fields(area, 3);
    Area {
        maker: take(&mut fields, 0),
        name: take(&mut fields, 1),
        number: take(&mut fields, 2),
        serial: take(&mut fields, 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Header, and a board area: English, no date, "Acme", "X1", serial in BCD plus, no part number.
    fn board_only() -> Vec<u8> {
        let mut area = vec![0x01, 0x03, 0x00, 0, 0, 0];
        area.extend_from_slice(b"\xc4Acme\xc2X1\x42\x12\x34\xc0\xc1");
        area.resize(23, 0);
        let sum = area.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
        area.push(sum);
        [&[0x01, 0, 0, 1, 0, 0, 0, 0xfe][..], &area].concat()
    }

    #[test]
    fn a_board_is_read_and_what_is_not_there_is_not() {
        let inventory = Inventory::decode(&board_only()).unwrap();
        let board = Area {
            maker: Some("Acme".to_owned()),
            name: Some("X1".to_owned()),
            number: None,
            serial: Some("1234".to_owned()),
        };
        assert_eq!(inventory.board, Some(board));
        assert_eq!((inventory.chassis, inventory.product), (None, None));
    }

    #[test]
    fn no_more_is_read_than_is_used() {
        let used = board_only();
        let all = [&used[..], &[0xff; 4096]].concat();
        let mut read = 0;
        while read < needed(&all[..read]) {
            read += 16;
        }
        assert_eq!(read, used.len(), "in pieces of 16 bytes");
        assert_eq!(
            Inventory::decode(&all[..read]),
            Inventory::decode(&all),
            "and it says the same"
        );
        assert_eq!(needed(&[0; 8]), 8, "what is no inventory is not read");
    }

    #[test]
    fn a_damaged_area_is_left_out() {
        let mut bytes = board_only();
        bytes[15] ^= 0x20;
        assert_eq!(Inventory::decode(&bytes), Some(Inventory::default()));
        bytes[0] = 2;
        assert_eq!(Inventory::decode(&bytes), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _read = Inventory::decode(&bytes);
            let _fields = fields(&bytes, 3);
        }
    }
}
