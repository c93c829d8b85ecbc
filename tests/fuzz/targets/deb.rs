//! Any bytes as a binary package: reading it ends within its bounds, and what is written anew of it reads the same.
#![no_main]

use std::io::{self, Cursor, Read};

use deb_archive::deb::{Deb, Recompressed, recompress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(package) = Deb::open(bytes) else {
        return;
    };
    let (control, mut data) = package.split();
    let mut anew = Cursor::new(Vec::new());
    if let Ok(Recompressed::Written) = recompress(bytes, &mut anew) {
        let anew = Deb::open(anew.get_ref().as_slice()).expect("it was just written");
        assert_eq!(anew.control(), &control);
    }
    assert!(control.conffiles().len() <= bytes.len() + (1 << 24));
    let Ok(entries) = data.entries() else { return };
    for entry in entries {
        let Ok(mut entry) = entry else { return };
        // Small files can unpack to much; the bounds of the reader are gigabytes, those of this run are not.
        if io::copy(&mut entry.by_ref().take(1 << 20), &mut io::sink()).is_err() {
            return;
        }
    }
});
