//! Extended attributes: sets of names and values that inodes refer to by number.
//!
//! It refuses attributes of namespaces that the format has no number for.

use std::collections::{BTreeMap, HashMap};
use std::io;

use super::metadata::Table;
use super::write::WriteError;
use super::{NO_TABLE, NONE};

/// The namespaces that the format knows, by number.
pub(super) const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
/// The bit of an attribute's type that says its value stands elsewhere.
pub(super) const OUT_OF_LINE: u16 = 0x100;

/// The sets that were met so far.
#[derive(Debug)]
pub(super) struct Sets {
    values: Table,
    ids: Vec<u8>,
    known: HashMap<Vec<u8>, u32>,
    level: i32,
}

impl Sets {
    pub(super) fn new(level: i32) -> Self {
        Self {
            values: Table::new(level),
            ids: Vec::new(),
            known: HashMap::new(),
            level,
        }
    }

    /// Returns the number of a set.
    pub(super) fn number(
        &mut self,
        path: &[u8],
        set: &BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<u32, WriteError> {
        if set.is_empty() {
            return Ok(NONE);
        }
        let refused = || WriteError::Attribute {
            path: String::from_utf8_lossy(path).into_owned(),
        };
        let mut bytes = Vec::new();
        let mut names = 0;
        for (name, value) in set {
            let namespace = NAMESPACES.iter().zip(0u16..);
            let (prefix, kind) = namespace
                .clone()
                .find(|(prefix, _)| name.starts_with(prefix))
                .ok_or_else(refused)?;
            let short = &name[prefix.len()..];
            let length = u16::try_from(short.len()).map_err(|_| refused())?;
            let size = u16::try_from(value.len()).map_err(|_| refused())?;
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(short);
            bytes.extend_from_slice(&u32::from(size).to_le_bytes());
            bytes.extend_from_slice(value);
            // What `listxattr` returns: full names, each with its NUL.
            names += name.len() + 1;
        }
        if let Some(number) = self.known.get(&bytes) {
            return Ok(*number);
        }
        let compress = |source| WriteError::Compress { source };
        let number = u32::try_from(self.known.len()).map_err(|_| refused())?;
        let position = self.values.position().map_err(compress)?;
        self.values.append(&bytes).map_err(compress)?;
        let count = u32::try_from(set.len()).map_err(|_| refused())?;
        let names = u32::try_from(names).map_err(|_| refused())?;
        self.ids
            .extend_from_slice(&position.reference().to_le_bytes());
        self.ids.extend_from_slice(&count.to_le_bytes());
        self.ids.extend_from_slice(&names.to_le_bytes());
        self.known.insert(bytes, number);
        Ok(number)
    }

    /// Returns the bytes that go to the end of an image, and where in it the table starts.
    pub(super) fn finish(self, at: u64) -> io::Result<(Vec<u8>, u64)> {
        if self.known.is_empty() {
            return Ok((Vec::new(), NO_TABLE));
        }
        let (mut bytes, _) = self.values.finish()?;
        let count = u32::try_from(self.known.len()).unwrap_or(NONE);
        let mut ids = Table::new(self.level);
        ids.append(&self.ids)?;
        let (packed, starts) = ids.finish()?;
        let ids_at = at + bytes.len() as u64;
        bytes.extend_from_slice(&packed);
        let table = at + bytes.len() as u64;
        bytes.extend_from_slice(&at.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&0u32.to_le_bytes());
        for start in starts {
            bytes.extend_from_slice(&(ids_at + start).to_le_bytes());
        }
        Ok((bytes, table))
    }
}
