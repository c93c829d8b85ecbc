//! Any bytes as a binary package: reading it ends within its bounds, and what is written anew of it reads the same.
#![no_main]

use std::io::{Cursor, Read};

use deb_archive::deb::{Deb, Recompressed, recompress};
use libfuzzer_sys::fuzz_target;

/// Small files can unpack to much; the bounds of the reader are gigabytes, those of this run are not.
const MOST: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Ok(package) = Deb::open(bytes) else {
        return;
    };
    let (control, mut data) = package.split();
    assert!(control.conffiles().len() <= bytes.len() + (1 << 24));
    let mut out = Cursor::new(Vec::new());
    let outcome = recompress(bytes, &mut out);
    let mut anew = matches!(outcome, Ok(Recompressed::Written)).then(|| {
        let anew = Deb::open(out.get_ref().as_slice()).expect("it was just written");
        assert_eq!(anew.control(), &control);
        anew.into_data()
    });
    let Ok(entries) = data.entries() else { return };
    let mut others = anew.as_mut().and_then(|anew| anew.entries().ok());
    for entry in entries {
        let other = others.as_mut().map(Iterator::next);
        let Ok(mut entry) = entry else { return };
        let mut content = Vec::new();
        if entry.by_ref().take(MOST).read_to_end(&mut content).is_err() {
            return;
        }
        let Some(other) = other else { continue };
        let mut other = other.expect("as many entries").expect("as good ones");
        assert_eq!((other.path(), other.kind()), (entry.path(), entry.kind()));
        let mut found = Vec::new();
        let read = other.by_ref().take(MOST).read_to_end(&mut found);
        read.expect("the same content");
        assert_eq!(found, content);
    }
});
