//! The head of a response, as stage1 reads it: no panic, no part of the body taken for the head, and a range that is
//! one.
#![no_main]

#[allow(dead_code, unreachable_pub)]
#[path = "../../../netboot/stage1/src/http/response.rs"]
mod response;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some((head, length))) = response::parse(bytes) else {
        return;
    };
    assert!(length <= bytes.len() && bytes[..length].ends_with(b"\r\n\r\n"));
    assert!((200..1000).contains(&head.status));
    if let Some(range) = head.range {
        assert!(range.first <= range.last && range.last < range.whole);
        assert_eq!(range.last - range.first + 1, head.length);
    }
    // What comes behind a head changes nothing about it.
    assert_eq!(response::parse(&bytes[..length]), Ok(Some((head, length))));
});
