//! What the builder and the sandbox's first process say to each other over a socket.
//!
//! It knows no meaning: it frames, bounds and decodes.

use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::emulate::Emulator;
use crate::ownership::{Inode, Owner};

/// A table of a hundred thousand owners fits; nothing larger is meant.
const FRAME_MAX: u32 = 64 << 20;

/// Words of the builder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Comes first: where the tree is and who owns what in it.
    Enter {
        root: Vec<u8>,
        /// The user as whom scripts run, when that is not the caller.
        worker: Option<u32>,
        owners: Vec<(Inode, Owner)>,
        /// Who runs the tree's programs, when the processor does not.
        emulator: Option<Emulator>,
    },
    /// Runs one program to its end.
    Run {
        argv: Vec<Vec<u8>>,
        env: Vec<(Vec<u8>, Vec<u8>)>,
    },
    /// Asks for the table of owners.
    Leave,
}

/// Words of the sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The namespaces stand.
    Entered,
    /// A step of the set-up failed.
    Refused { step: String, errno: i32 },
    /// The program could not be started.
    NotStarted { errno: i32 },
    /// The program exited by itself.
    Exited { code: i32 },
    /// The program was ended by a signal.
    Killed { signal: i32 },
    /// The table of owners as it is now.
    Owners {
        owners: Vec<(Inode, Owner)>,
        answered: u64,
    },
}

/// Sends one message.
pub(crate) fn send<T: Serialize>(mut to: impl Write, message: &T) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|length| *length <= FRAME_MAX)
        .ok_or_else(|| io::Error::other("message too long"))?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(&body);
    to.write_all(&frame)
}

/// Waits for one message.
pub(crate) fn receive<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > FRAME_MAX {
        return Err(io::Error::other("message too long"));
    }
    let mut body = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back() {
        let mut bytes = Vec::new();
        let order = Order::Run {
            argv: vec![b"/bin/sh".to_vec(), vec![0xff, 0x80]],
            env: vec![(b"A".to_vec(), b"b".to_vec())],
        };
        send(&mut bytes, &order).unwrap();
        let read: Order = receive(bytes.as_slice()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{order:?}"));
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused() {
        let bytes = [0xff; 64];
        assert!(receive::<Order>(bytes.as_slice()).is_err());
        assert!(receive::<Order>(&bytes[..3]).is_err());
    }
}
