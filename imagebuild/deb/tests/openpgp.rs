//! Signed texts are accepted and refused as gpgv does it, and more strictly where our policy says so.
//!
//! The texts in `signed/` were made once with `gpg` 2.2; each is named after what is special about it.

use std::path::PathBuf;
use std::process::Command;

use deb_archive::openpgp::{Error, Keyring};

/// 10 January 2026: a year after the texts were signed.
const NOW: i64 = 1_768_003_200;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/signed")
        .join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).expect("a text of this directory")
}

fn keyring() -> Keyring {
    let bytes = std::fs::read(path("keyring.pgp")).expect("the keyring of this directory");
    Keyring::parse(&bytes).expect("a keyring")
}

/// What gpgv says, or `None` on a machine without it. Its exit code alone says nothing about expired and revoked keys.
fn gpgv(name: &str) -> Option<bool> {
    let output = Command::new("gpgv")
        .args(["--status-fd", "1", "--keyring"])
        .arg(path("keyring.pgp"))
        .arg(path(name))
        .output()
        .ok()?;
    let status = String::from_utf8_lossy(&output.stdout);
    Some(status.contains("[GNUPG:] GOODSIG"))
}

#[test]
fn signatures_are_judged_as_gpgv_does() {
    let cases = [
        ("primary.txt", Ok("")),
        ("subkey.txt", Ok("")),
        ("two.txt", Ok("")),
        ("stranger.txt", Err("not in the keyring")),
        ("expired.txt", Err("key has expired")),
        ("lapsed.txt", Err("it has expired")),
        ("revoked.txt", Err("key is revoked")),
        ("subrevoked.txt", Err("key is revoked")),
        ("weak-hash.txt", Err("weaker than SHA-256")),
    ];
    for (name, expected) in cases {
        let outcome = keyring().verify(&text(name), NOW);
        match (&outcome, expected) {
            (Ok(verified), Ok(_)) => {
                assert!(verified.text.starts_with("Origin: Debian\n"), "{name}");
                assert!(
                    verified
                        .text
                        .contains("\n- a line that begins with a dash\n"),
                    "{name}"
                );
                assert!(verified.text.ends_with("Packages.xz\n"), "{name}");
                assert_eq!(verified.signers.len(), 1, "{name}");
            }
            (Err(error), Err(reason)) => {
                assert!(error.to_string().contains(reason), "{name}: {error}");
            }
            _ => panic!("{name}: {outcome:?}"),
        }
        if let Some(verdict) = gpgv(name) {
            // gpgv leaves weak hashes to its callers.
            assert_eq!(
                verdict,
                expected.is_ok() || name == "weak-hash.txt",
                "{name}"
            );
        }
    }
}

#[test]
fn a_changed_text_is_refused() {
    let whole = text("primary.txt");
    let cases = [
        (
            "changed",
            whole.replace("trixie", "bookworm"),
            "changed after it was signed",
        ),
        (
            "text before",
            format!("Origin: Evil\n{whole}"),
            "nothing else",
        ),
        (
            "text after",
            format!("{whole}Origin: Evil\n"),
            "nothing else",
        ),
        ("twice", format!("{whole}{whole}"), "nothing else"),
        ("cut", whole[..whole.len() / 2].to_owned(), "nothing else"),
        ("bare", "Origin: Debian\n".to_owned(), "nobody signed it"),
        ("empty", String::new(), "nobody signed it"),
    ];
    for (name, text, expected) in cases {
        let error = keyring().verify(&text, NOW).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    assert_eq!(
        keyring().verify(&whole.replace('\n', "\r\n"), NOW).ok(),
        keyring().verify(&whole, NOW).ok(),
        "line ends are not part of what is signed"
    );
}

#[test]
fn time_is_an_argument() {
    let before_it_expired = 1_736_500_000;
    assert!(
        keyring()
            .verify(&text("expired.txt"), before_it_expired)
            .is_ok()
    );
    assert!(
        keyring()
            .verify(&text("lapsed.txt"), before_it_expired)
            .is_ok()
    );
    let before_it_was_signed = 1_735_800_000;
    let error = keyring()
        .verify(&text("primary.txt"), before_it_was_signed)
        .unwrap_err();
    assert!(error.to_string().contains("from the future"), "{error}");
}

#[test]
fn keyrings_are_binary_or_armoured_and_nothing_else() {
    let armoured = Keyring::parse(text("armoured.asc").as_bytes()).expect("an armoured keyring");
    assert!(armoured.verify(&text("primary.txt"), NOW).is_ok());
    assert!(armoured.verify(&text("subkey.txt"), NOW).is_err());
    for bytes in [&b""[..], b"hello", &[0x99; 64]] {
        assert!(matches!(Keyring::parse(bytes), Err(Error::Keyring(_))));
    }
}
