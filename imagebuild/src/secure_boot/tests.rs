//! Signatures over a small program; `sbverify` judges them where it is installed, as CI has it.

use std::fs;
use std::process::{Command, Output};
use std::sync::LazyLock;

use super::*;

/// A key with its certificate, made by `openssl` for one run of these tests.
struct Pair {
    key: Vec<u8>,
    certificate: Vec<u8>,
}

static OURS: LazyLock<Option<Pair>> = LazyLock::new(|| pair("rsa:2048"));
static OTHER: LazyLock<Option<Pair>> = LazyLock::new(|| pair("rsa:2048"));

/// Runs a tool that CI has; elsewhere it may be missing.
fn tool(command: &mut Command) -> Option<Output> {
    let output = command.output().ok();
    if output.is_none() {
        let program = command.get_program().display();
        let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!must, "{program} is missing");
        eprintln!("skipped: {program} is not installed");
    }
    output
}

fn pair(kind: &str) -> Option<Pair> {
    let folder = tempfile::tempdir().unwrap();
    let made = tool(
        Command::new("openssl")
            .current_dir(folder.path())
            .args(["req", "-x509", "-newkey", kind, "-nodes", "-days", "1"])
            .args(["-subj", "/CN=test", "-keyout", "key", "-out", "certificate"]),
    )?;
    assert!(made.status.success(), "{made:?}");
    Some(Pair {
        key: fs::read(folder.path().join("key")).unwrap(),
        certificate: fs::read(folder.path().join("certificate")).unwrap(),
    })
}

/// A program of one section, of some length, with `rest` behind it.
fn program(section: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 0x200];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[60] = 0x80;
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0x80, b"PE\0\0\x64\x86\x01\0");
    put(0x94, &240u16.to_le_bytes());
    let optional = 0x98;
    put(optional, &0x020b_u16.to_le_bytes());
    put(optional + 32, &0x200u32.to_le_bytes());
    put(optional + 36, &0x200u32.to_le_bytes());
    put(optional + 56, &0x2000u32.to_le_bytes());
    put(optional + 60, &0x200u32.to_le_bytes());
    put(optional + 68, &10u16.to_le_bytes());
    put(optional + 108, &16u32.to_le_bytes());
    let header = optional + 240;
    put(header, b".text\0\0\0");
    put(header + 8, &section.to_le_bytes());
    put(header + 12, &0x1000u32.to_le_bytes());
    put(header + 16, &section.to_le_bytes());
    put(header + 20, &0x200u32.to_le_bytes());
    bytes.extend((0..=u8::MAX).cycle().take(section as usize));
    bytes.extend(rest);
    bytes
}

struct Signed {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
}

fn sign(pair: &Pair, program: &[u8]) -> Result<Signed, Error> {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("in.efi");
    let to = folder.path().join("out.efi");
    fs::write(&from, program).unwrap();
    Signer::new(&pair.key, &pair.certificate)?.sign(&from, &to)?;
    let bytes = fs::read(&to).unwrap();
    Ok(Signed { folder, bytes })
}

/// Asks `sbverify` about a program, if it is there.
fn accepted(folder: &Path, certificate: &[u8]) -> Option<bool> {
    fs::write(folder.join("certificate.pem"), certificate).unwrap();
    let verify = ["--cert", "certificate.pem", "out.efi"];
    let output = tool(Command::new("sbverify").current_dir(folder).args(verify))?;
    Some(output.status.success())
}

#[test]
fn sbverify_accepts_what_is_signed_and_nothing_that_was_changed() {
    let (Some(ours), Some(other)) = (OURS.as_ref(), OTHER.as_ref()) else {
        return;
    };
    for (section, rest) in [(0x200, &[][..]), (0x400, b"behind the sections")] {
        let Signed { folder, bytes } = sign(ours, &program(section, rest)).unwrap();
        let Some(good) = accepted(folder.path(), &ours.certificate) else {
            return;
        };
        assert!(good, "{section} {rest:?}");
        assert_eq!(accepted(folder.path(), &other.certificate), Some(false));
        for at in [0x98 + 16, 0x200, 0x200 + section as usize - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(folder.path().join("out.efi"), changed).unwrap();
            assert_eq!(
                accepted(folder.path(), &ours.certificate),
                Some(false),
                "{at}"
            );
        }
    }
}

#[test]
fn the_same_program_and_key_give_the_same_bytes() {
    let Some(ours) = OURS.as_ref() else { return };
    let program = program(0x200, b"x");
    let (one, two) = (sign(ours, &program).unwrap(), sign(ours, &program).unwrap());
    assert_eq!(one.bytes, two.bytes);
    // All but the fields that say so is what was built.
    let changed: Vec<_> = (0..program.len())
        .filter(|at| one.bytes[*at] != program[*at])
        .collect();
    let layout = Program::decode(&program, program.len() as u64).unwrap();
    let fields = |at: &usize| {
        let at = *at as u64;
        (layout.checksum_at..layout.checksum_at + 4).contains(&at)
            || (layout.directory_at..layout.directory_at + 8).contains(&at)
    };
    assert!(changed.iter().all(fields), "{changed:?}");
}

#[test]
fn what_cannot_be_signed_is_refused_with_its_reason() {
    let Some(ours) = OURS.as_ref() else { return };
    let good = program(0x200, &[]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let cases = [
        ("empty", Vec::new(), "no program for UEFI"),
        ("no program", b"#!/bin/sh\n".to_vec(), "no program for UEFI"),
        ("32 bits", with(0x99, 1), "no program for 64 bits"),
        ("signed", sign(ours, &good).unwrap().bytes, "signed already"),
        ("no place", with(0x98 + 108, 4), "no place for a signature"),
        ("cut", good[..0x300].to_vec(), "do not fit"),
        ("gap", with(0x98 + 240 + 21, 3), "side by side"),
        ("far", with(0x83, 1), "no program for UEFI"),
        ("beyond", with(63, 0xff), "no program for UEFI"),
    ];
    for (name, bytes, expected) in cases {
        let problem = sign(ours, &bytes).map(|_| ()).unwrap_err().to_string();
        assert!(problem.contains(expected), "{name}: {problem}");
    }
}

#[test]
fn keys_and_certificates_that_do_not_fit_are_refused_and_not_shown() {
    let (Some(ours), Some(other), Some(curve)) = (OURS.as_ref(), OTHER.as_ref(), pair("ed25519"))
    else {
        return;
    };
    let (key, certificate) = (&ours.key[..], &ours.certificate[..]);
    let cases = [
        (
            "no key",
            &b"hello"[..],
            certificate,
            "unencrypted private key",
        ),
        (
            "certificate for key",
            certificate,
            certificate,
            "unencrypted private key",
        ),
        (
            "another kind of key",
            &curve.key,
            &curve.certificate,
            "no RSA key",
        ),
        ("key for certificate", key, key, "neither PEM nor DER"),
        (
            "no certificate",
            key,
            &[0x30, 0x82, 0, 0],
            "no X.509 certificate",
        ),
        (
            "a stranger's",
            key,
            &other.certificate,
            "does not belong to the key",
        ),
    ];
    for (name, key, certificate, expected) in cases {
        let problem = Signer::new(key, certificate).unwrap_err().to_string();
        assert!(problem.contains(expected), "{name}: {problem}");
    }
    let signer = Signer::new(key, certificate).unwrap();
    assert_eq!(format!("{signer:?}"), "Signer");
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(
        at in 0usize..0x200,
        byte: u8,
        cut in 0usize..0x400,
        garbage in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
    ) {
        let mut bytes = program(0x200, &[]);
        bytes[at] = byte;
        drop(Program::decode(&bytes[..cut], cut as u64));
        drop(Program::decode(&garbage, 4096));
        proptest::prop_assume!(Certificate::read(&garbage).is_none());
    }
}
