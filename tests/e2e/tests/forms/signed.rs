//! Disks for firmware that checks signatures: what `export` signs is what others' tools take for signed, and the image.

use std::path::Path;
use std::process::Command;

use e2e::need;
use e2e::rig::{check, run};
use e2e::shop;

use super::{export, folder, imagebuild, partition, said};

const KEY: [&str; 4] = [
    "--secure-boot-key",
    "key.pem",
    "--secure-boot-certificate",
    "certificate.pem",
];
/// The boot loader and the image's program.
const PROGRAMS: [&str; 2] = ["EFI/BOOT/BOOTX64.EFI", "EFI/Linux/host.efi"];

/// Makes a key that nobody trusts.
fn make_key(folder: &Path) {
    let request = [
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
    ];
    let files = [
        "-subj",
        "/CN=e2e",
        "-keyout",
        "key.pem",
        "-out",
        "certificate.pem",
    ];
    let mut openssl = Command::new("openssl");
    openssl.current_dir(folder).args(request).args(files);
    check(&run(&mut openssl));
}

/// Takes the programs that firmware starts out of a disk, and says of which of them `sbverify` takes the signature.
fn signatures(folder: &Path, disk: &str) -> [bool; 2] {
    let (start, _) = partition(&folder.join(disk), "esp");
    PROGRAMS.map(|program| {
        let mut mcopy = Command::new("mcopy");
        mcopy.current_dir(folder).args(["-o", "-i"]);
        mcopy.arg(format!("{disk}@@{start}"));
        check(&run(mcopy.arg(format!("::{program}")).arg("program.efi")));
        let mut sbverify = Command::new("sbverify");
        sbverify.current_dir(folder);
        sbverify.args(["--cert", "certificate.pem", "program.efi"]);
        run(&mut sbverify).status.success()
    })
}

#[test]
fn a_disk_is_exported_with_signatures_and_verified_with_them() {
    if !need::has(&["mcopy", "openssl", "sbverify", "sfdisk"]) {
        return;
    }
    shop::image("host");
    let folder = folder();
    let folder = folder.path();
    make_key(folder);
    export(folder, "raw", "plain.raw", &[]);
    assert_eq!(signatures(folder, "plain.raw"), [false; 2]);
    export(folder, "raw", "signed.raw", &KEY);
    assert_eq!(signatures(folder, "signed.raw"), [true; 2]);

    // The same key makes the same bytes, so the key's owner can tell whether a disk is the image.
    let verify = |file: &str, more: &[&str]| {
        let mut verify = imagebuild(folder);
        verify.args(["verify", "host", "--file", file, "--store"]);
        run(verify.arg(shop::state().store()).args(more))
    };
    check(&verify("signed.raw", &KEY));
    for (file, words) in [("signed.raw", &[][..]), ("plain.raw", &KEY)] {
        let refused = verify(file, words);
        let told = said(&refused);
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains("in `esp: "), "{told}");
    }
}
