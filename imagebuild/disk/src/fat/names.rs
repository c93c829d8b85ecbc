//! Names in FAT directories: eleven characters, and what carries longer ones.
//!
//! It refuses nothing: what does not fit eleven characters gets long entries beside a made-up short name.

/// Label of the volume.
pub(super) const LABEL: &[u8; 11] = b"ESP        ";
/// Characters in one long entry.
const UNITS: usize = 13;
const ENTRY: u64 = 32;

/// What an entry is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Label,
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct DirectoryEntry {
    pub(super) name: [u8; 11],
    pub(super) kind: Kind,
    pub(super) first: u32,
    pub(super) size: u32,
    /// Time, then date.
    pub(super) stamp: [u8; 4],
}

impl DirectoryEntry {
    pub(super) fn encode(&self) -> [u8; 32] {
        let attributes = match self.kind {
            Kind::File => 0x20,
            Kind::Directory => 0x10,
            Kind::Label => 0x08,
        };
        let [a, b, c, d] = self.first.to_le_bytes();
        let mut entry = [0; 32];
        entry[..11].copy_from_slice(&self.name);
        entry[11] = attributes;
        entry[14..18].copy_from_slice(&self.stamp);
        entry[18..20].copy_from_slice(&self.stamp[2..]);
        entry[20..22].copy_from_slice(&[c, d]);
        entry[22..26].copy_from_slice(&self.stamp);
        entry[26..28].copy_from_slice(&[a, b]);
        entry[28..].copy_from_slice(&self.size.to_le_bytes());
        entry
    }
}

/// The last part of a path.
pub(super) fn last(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// How many bytes the entries of a directory take.
pub(super) fn directory_size(path: &str, children: &[&str]) -> u64 {
    let fixed = if path.is_empty() { 1 } else { 2 };
    let entries = short_names(children)
        .map(|(short, child)| 1 + long_entries(last(child), &short).len() as u64 / ENTRY);
    (fixed + entries.sum::<u64>()) * ENTRY
}

/// Gives every path of a directory a short name that no other one has.
pub(super) fn short_names<'a>(children: &[&'a str]) -> impl Iterator<Item = ([u8; 11], &'a str)> {
    let mut taken: Vec<[u8; 11]> = children
        .iter()
        .filter_map(|child| plain(last(child)))
        .collect();
    let mut named = Vec::with_capacity(children.len());
    for child in children {
        let name = last(child);
        let short = plain(name).unwrap_or_else(|| {
            let free = (1u32..).map(|number| numbered(name, number));
            let short = free.into_iter().find(|short| !taken.contains(short));
            let short = short.unwrap_or(*LABEL);
            taken.push(short);
            short
        });
        named.push((short, *child));
    }
    named.into_iter()
}

fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or((name, ""))
}

fn is_plain(character: char) -> bool {
    character.is_ascii_uppercase() || character.is_ascii_digit() || "_-~".contains(character)
}

/// The name as it is, when it is short and upper case.
fn plain(name: &str) -> Option<[u8; 11]> {
    let (stem, extension) = split(name);
    let fits = (1..=8).contains(&stem.len()) && extension.len() <= 3;
    let plain = stem.chars().chain(extension.chars()).all(is_plain);
    (fits && plain && !name.ends_with('.')).then(|| padded(stem, extension))
}

/// A short name that is made up: the beginning of the name and a number.
fn numbered(name: &str, number: u32) -> [u8; 11] {
    let kept = |text: &str| -> String {
        let upper = text.chars().map(|c| c.to_ascii_uppercase());
        upper.filter(|c| is_plain(*c)).collect()
    };
    let (stem, extension) = split(name);
    let tail = format!("~{number}");
    let (mut stem, mut extension) = (kept(stem), kept(extension));
    stem.truncate(8 - tail.len());
    extension.truncate(3);
    padded(&(stem + &tail), &extension)
}

fn padded(stem: &str, extension: &str) -> [u8; 11] {
    let mut short = [b' '; 11];
    short[..stem.len()].copy_from_slice(stem.as_bytes());
    short[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
    short
}

/// The entries that carry a name which its short one does not, last part first.
pub(super) fn long_entries(name: &str, short: &[u8; 11]) -> Vec<u8> {
    if plain(name).as_ref() == Some(short) {
        return Vec::new();
    }
    let sum = short
        .iter()
        .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let units: Vec<u16> = name.encode_utf16().collect();
    let parts = units.chunks(UNITS).enumerate();
    let count = units.len().div_ceil(UNITS);
    let mut entries = Vec::new();
    for (index, part) in parts.rev() {
        let mut padded = [0xffff; UNITS];
        padded[..part.len()].copy_from_slice(part);
        if let Some(end) = padded.get_mut(part.len()) {
            *end = 0;
        }
        let last = if index + 1 == count { 0x40 } else { 0 };
        let number = u8::try_from(index + 1).unwrap_or(0x3f) | last;
        let bytes: Vec<u8> = padded.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        entries.push(number);
        entries.extend(&bytes[..10]);
        entries.extend([0x0f, 0, sum]);
        entries.extend(&bytes[10..22]);
        entries.extend([0, 0]);
        entries.extend(&bytes[22..]);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_plain_get_short_ones_that_differ() {
        let children = [
            "EFI/BOOT",
            "EFI/host.efi",
            "EFI/HOST~1.EFI",
            "EFI/host-two.efi",
        ];
        let short: Vec<_> = short_names(&children).map(|(short, _)| short).collect();
        let expected = [
            b"BOOT       ",
            b"HOST~2  EFI",
            b"HOST~1  EFI",
            b"HOST-T~1EFI",
        ];
        assert!(short.iter().eq(expected), "{short:?}");
        assert!(long_entries("BOOT", &short[0]).is_empty());
        assert_eq!(long_entries("host.efi", &short[1]).len(), 32);
        assert_eq!(long_entries("fourteen-ch.x", &short[1]).len(), 32);
        assert_eq!(long_entries("fourteen-chr.x", &short[1]).len(), 64);
    }
}
