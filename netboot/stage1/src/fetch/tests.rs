//! Fetching from servers that cut, lie and come back, over the loopback.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use image_manifest::{Chunks, Digest};

use super::*;

/// What a server does with its n-th request for bytes.
type Behaviour = fn(usize, &mut Vec<u8>) -> Then;

enum Then {
    KeepOpen,
    Close,
}

fn image(bytes: &[u8]) -> BootImage {
    BootImage {
        name: "test".to_owned(),
        tree: Digest::of(b"tree"),
        rootfs: Digest::of(bytes),
        size: bytes.len() as u64,
        chunks: Chunks {
            size: 1000,
            digests: bytes.chunks(1000).map(Digest::of).collect(),
        },
        signers: Vec::new(),
    }
}

fn serve(content: Vec<u8>, behaviour: Behaviour) -> (SocketAddrV4, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
        unreachable!("bound to IPv4")
    };
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let content = Arc::new(content);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (content, counter) = (Arc::clone(&content), Arc::clone(&counter));
            thread::spawn(move || answer(stream.unwrap(), &content, &counter, behaviour));
        }
    });
    (address, requests)
}

fn answer(
    mut stream: std::net::TcpStream,
    content: &[u8],
    counter: &AtomicUsize,
    behaviour: Behaviour,
) {
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).unwrap_or(0);
        if read == 0 {
            return;
        }
        let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
        let range = request
            .split("bytes=")
            .nth(1)
            .unwrap()
            .lines()
            .next()
            .unwrap();
        let (first, last) = range.trim().split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let mut response = format!(
            "HTTP/1.1 206 Partial\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{}\r\n\r\n",
            last - first + 1,
            content.len()
        )
        .into_bytes();
        response.extend(&content[first..=last]);
        let then = behaviour(counter.fetch_add(1, Ordering::SeqCst), &mut response);
        if stream.write_all(&response).is_err() || matches!(then, Then::Close) {
            return;
        }
    }
}

fn content() -> Vec<u8> {
    (0..10_500u32).map(|at| (at * at % 251) as u8).collect()
}

fn fetched(behaviour: Behaviour) -> (Result<Fetched, Error>, Vec<u8>) {
    let (server, _) = serve(content(), behaviour);
    let mut sink = tempfile::tempfile().unwrap();
    let result = fetch(server, &image(&content()), &sink);
    let mut bytes = Vec::new();
    sink.read_to_end(&mut bytes).unwrap();
    (result, bytes)
}

#[test]
fn a_root_arrives_whole() {
    let cases: [(&str, Behaviour, bool); 4] = [
        ("a good server", |_, _| Then::KeepOpen, false),
        ("one that closes every time", |_, _| Then::Close, true),
        (
            "one that cuts",
            |n, bytes| {
                if n % 2 == 0 {
                    bytes.truncate(bytes.len() - 300);
                }
                Then::Close
            },
            true,
        ),
        (
            "one that flips a bit at first",
            |n, bytes| {
                if n == 2
                    && let Some(last) = bytes.last_mut()
                {
                    *last ^= 1;
                }
                Then::KeepOpen
            },
            true,
        ),
    ];
    for (name, behaviour, retried) in cases {
        let (result, bytes) = fetched(behaviour);
        let result = result.unwrap();
        assert_eq!(Digest::of(&bytes), Digest::of(&content()), "{name}");
        assert_eq!(result.retries > 0, retried, "{name}");
    }
}

#[test]
fn a_root_with_one_wrong_bit_never_arrives() {
    let (result, _) = fetched(|_, bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        if text.contains("bytes 3000-")
            && let Some(last) = bytes.last_mut()
        {
            *last ^= 1;
        }
        Then::KeepOpen
    });
    let reason = chain(&result.unwrap_err());
    assert!(
        reason.contains("is not booted: piece 4 of 11 of sha256:"),
        "{reason}"
    );
}

#[test]
fn a_refused_root_is_not_asked_for_for_ever() {
    let (result, _) = fetched(|_, bytes| {
        *bytes = b"HTTP/1.1 404 Not Found\r\nContent-Length: 16\r\n\r\nno such artifact".to_vec();
        Then::KeepOpen
    });
    let reason = chain(&result.unwrap_err());
    assert!(
        reason.starts_with("the root file system is refused: http://127.0.0.1:"),
        "{reason}"
    );
    assert!(reason.ends_with("404 no such artifact"), "{reason}");
}
