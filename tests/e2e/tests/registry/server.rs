//! A wire to a registry that is cut.
//!
//! It refuses to be reached from outside: it listens on the loopback.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;

pub(crate) use e2e::registry::Registry;

/// What the wire is given for its own address.
const ANY: &str = "127.0.0.1:0";
/// A wire to a registry that is cut after so many bytes to it; from then on it holds.
pub(crate) struct Wire {
    pub(crate) address: String,
    /// Bytes that went to the registry.
    pub(crate) sent: Arc<AtomicU64>,
}

impl Wire {
    pub(crate) fn to(registry: &Registry, cut_after: i64) -> Self {
        let listener = TcpListener::bind(ANY).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (sent, left) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicI64::new(cut_after)),
        );
        let (target, count) = (registry.address().to_owned(), Arc::clone(&sent));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (target, count, left) = (target.clone(), Arc::clone(&count), Arc::clone(&left));
                // Ends with the connection.
                thread::spawn(move || carry(&client, &target, &count, &left));
            }
        });
        Self { address, sent }
    }
}

fn carry(client: &TcpStream, target: &str, count: &AtomicU64, left: &AtomicI64) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    let (mut back, mut to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        drop(io::copy(&mut back, &mut to_client));
        drop(to_client.shutdown(Shutdown::Both));
    });
    let (mut client, mut to_server) = (client.try_clone()?, server);
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = client.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        count.fetch_add(length as u64, Ordering::Relaxed);
        let length = i64::try_from(length).unwrap_or_default();
        let before = left.fetch_sub(length, Ordering::Relaxed);
        if before > 0 && before <= length {
            break;
        }
        to_server.write_all(&buffer[..usize::try_from(length).unwrap_or_default()])?;
    }
    drop(client.shutdown(Shutdown::Both));
    to_server.shutdown(Shutdown::Both)
}
