//! The FRU inventory of a simulated BMC, written from the identity of its host.

use crate::Identity;

/// The whole inventory: common header, chassis, board and product (Platform Management FRU 1.0).
pub(super) fn inventory(identity: &Identity) -> Vec<u8> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (maker, product, serial) = (
        text(&identity.manufacturer),
        text(&identity.product),
        text(&identity.serial),
    );
    // A rack-mount chassis: part number, serial number.
    let chassis = area(&[0x17], &["", &serial]);
    // English; no date; maker, name, serial, part number, file.
    let board = area(
        &[0x00, 0x00, 0x00, 0x00],
        &[&maker, &product, &serial, "", ""],
    );
    // English; maker, name, model, version, serial, asset tag, file.
    let product = area(&[0x00], &[&maker, &product, "", "", &serial, "", ""]);
    let mut inventory = vec![0x01, 0x00];
    let mut offset = 8;
    for part in [&chassis, &board, &product] {
        inventory.push(u8::try_from(offset / 8).unwrap_or(0));
        offset += part.len();
    }
    inventory.extend_from_slice(&[0x00, 0x00]);
    inventory.push(sum(&inventory));
    inventory.extend([chassis, board, product].concat());
    inventory
}

/// An area: format, length in eights, what is fixed, the fields, the end, padding and a sum.
fn area(fixed: &[u8], fields: &[&str]) -> Vec<u8> {
    let mut area = vec![0x01, 0x00];
    area.extend_from_slice(fixed);
    for field in fields {
        // 63 bytes are the longest; a single one would read as the end of the fields.
        let bytes: Vec<u8> = field.bytes().take(63).collect();
        let bytes = if bytes.len() == 1 {
            [bytes, vec![b' ']].concat()
        } else {
            bytes
        };
        area.push(0xc0 | u8::try_from(bytes.len()).unwrap_or(0));
        area.extend(bytes);
    }
    area.push(0xc1);
    while area.len() % 8 != 7 {
        area.push(0x00);
    }
    area[1] = u8::try_from((area.len() + 1) / 8).unwrap_or(0);
    area.push(sum(&area));
    area
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}
