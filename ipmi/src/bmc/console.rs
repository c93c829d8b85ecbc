//! A host's serial console as two channels of bytes.

use bytes::Bytes;
use tokio::sync::mpsc;

/// A host's serial console.
///
/// Dropping it ends the session with the BMC.
#[derive(Debug)]
pub struct Console {
    /// What the host writes; ends when the session ends.
    pub output: mpsc::Receiver<Bytes>,
    /// What somebody types.
    pub input: mpsc::Sender<Bytes>,
}
