//! A BMC that answers anything to who reads its records, logs and inventories: reading ends.
#![no_main]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use ipmi::command::{Answered, Transact};
use ipmi::wire::{Code, NetFn};
use ipmi::{Error, Identity};
use libfuzzer_sys::fuzz_target;

/// Answers one after the other: a completion code, a length, and as much data.
struct Replies<'a>(&'a [u8]);

impl Transact for Replies<'_> {
    async fn transact(&mut self, _: NetFn, _: u8, _: &[u8]) -> Result<Answered, Error> {
        let Some((&[code, length], rest)) = self.0.split_first_chunk() else {
            return Err(Error::Unreachable {
                detail: "no more".to_owned(),
            });
        };
        let (data, rest) = rest.split_at(rest.len().min(usize::from(length)));
        self.0 = rest;
        Ok(Answered {
            code: Code(code),
            data: data.to_vec(),
        })
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut link = Replies(bytes);
    let read = pin!(ipmi::inventory::read(&mut link, Identity::default()));
    match read.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(inventory)) => assert!(inventory.events.len() <= 4096),
        Poll::Ready(Err(_)) => {}
        Poll::Pending => panic!("nothing here waits"),
    }
});
