//! The DF bit of TFTP packets.
//!
//! It refuses to discover path MTUs: blocks are small enough for every Ethernet.
#![expect(unsafe_code, reason = "no safe crate at hand sets IP_MTU_DISCOVER")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Clears DF, which quinn-udp sets for the sake of QUIC.
///
/// Old PXE ROMs drop datagrams with DF set, and behind a tunnel of a smaller MTU the blocks must be cut rather than lost
/// (dnsmasq-discuss, 2009-08).
pub(super) fn allow(socket: &impl AsFd) -> io::Result<()> {
    let value: libc::c_int = libc::IP_PMTUDISC_DONT;
    // SAFETY: the descriptor is open for the length of the borrow, and the kernel reads `optlen` bytes of `value`.
    let set = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default(),
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
