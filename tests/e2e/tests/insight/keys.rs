//! Signatures that others verify, and keys that nobody sees.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use e2e::need;
use e2e::rig::{check, printed, run};
use e2e::shop;
use image_manifest::Role;
use image_manifest::layout::Layout;
use serde_json::Value;

use super::{Bench, assert_refused, imagebuild, json};

fn openssl(words: &[&str]) -> Output {
    run(Command::new("openssl").args(words))
}

/// The files of a signature as cosign keeps it: the payload, and the signature over it as bytes.
fn signature(bench: &Bench, manifest: &str) -> (String, String) {
    let layout = Layout::open(bench.path("store")).expect("the store");
    let name = format!("{}.sig", manifest.replace(':', "-"));
    let entry = layout.named(&name).expect("an index").expect("a signature");
    let document = layout.read(&entry.digest).expect("a manifest");
    let document: Value = serde_json::from_slice(&document).expect("JSON");
    let layer = &document["layers"][0];
    assert_eq!(
        layer["mediaType"],
        "application/vnd.dev.cosign.simplesigning.v1+json"
    );
    let payload = layer["digest"].as_str().expect("a digest").parse();
    let payload = layout.blob(&payload.expect("a digest"));
    let text = layer["annotations"]["dev.cosignproject.cosign/signature"].as_str();
    let (encoded, bytes) = (bench.path("signature.base64"), bench.path("signature"));
    fs::write(&encoded, text.expect("a signature")).expect("a file");
    check(&openssl(&[
        "base64", "-d", "-A", "-in", &encoded, "-out", &bytes,
    ]));
    (payload.to_str().expect("a path").to_owned(), bytes)
}

#[test]
fn openssl_verifies_a_signature_and_verify_refuses_another_key_and_a_changed_image() {
    if !need::has(&["openssl"]) {
        return;
    }
    let bench = Bench::with("loaders");
    let store = bench.path("store");
    let [key, public, other] = ["key", "key.pub", "other"].map(|name| bench.path(name));
    let verify = |key: &str| imagebuild(&["verify", "loaders", "--store", &store, "--key", key]);
    check(&imagebuild(&["key", "make", &key]));
    assert_refused(
        &verify(&public),
        1,
        &["`loaders` is refused", "it has no signature"],
    );
    let sign = |key: &str| json(&["sign", "loaders", "--store", &store, "--key", key]);
    let signed = sign(&key);
    assert_eq!(signed, sign(&key), "signing again changes nothing");
    check(&verify(&public));

    let manifest = signed[0]["manifest"].as_str().expect("a digest");
    let (payload, bytes) = signature(&bench, manifest);
    let judged = [
        "dgst",
        "-sha256",
        "-verify",
        &public,
        "-signature",
        &bytes,
        &payload,
    ];
    check(&openssl(&judged));
    let text: Value =
        serde_json::from_slice(&fs::read(&payload).expect("a payload")).expect("JSON");
    assert_eq!(
        text["critical"]["image"]["docker-manifest-digest"],
        manifest
    );

    // A key of openssl's signs too, and one alone does not speak for the other.
    check(&openssl(&[
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-noout",
        "-out",
        &other,
    ]));
    let other_public = bench.path("other.pub");
    check(&openssl(&[
        "ec",
        "-in",
        &other,
        "-pubout",
        "-out",
        &other_public,
    ]));
    assert_refused(
        &verify(&other_public),
        1,
        &["no signature of it is by a trusted key"],
    );
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).expect("a mode");
    let open = imagebuild(&["sign", "loaders", "--store", &store, "--key", &other]);
    assert_refused(&open, 3, &["may be read by others"]);
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).expect("a mode");
    sign(&other);
    check(&verify(&other_public));
    check(&verify(&public));

    // What was signed is the old image, not the one that has its name now.
    let toml = bench.path("images/loaders/image.toml");
    let text = fs::read_to_string(&toml).expect("a definition");
    fs::write(
        &toml,
        text + "\n[[file]]\npath = \"etc/motd\"\ncontent = \"evil\"\n",
    )
    .expect("it");
    bench.build("loaders");
    assert_refused(&verify(&public), 1, &["it has no signature"]);
    let old = format!("loaders@{manifest}");
    check(&imagebuild(&[
        "verify", &old, "--store", &store, "--key", &public,
    ]));
    // And a byte of a signed one is found out, whoever signed it.
    let layout = Layout::open(&store).expect("the store");
    let found = layout.resolve(&old).expect("the old image").manifest;
    let artifact = found.artifact(Role::Loader).expect("a loader");
    damage(&shop::artifact(Path::new(&store), artifact));
    let damaged = imagebuild(&["verify", &old, "--store", &store, "--key", &public]);
    assert_refused(&damaged, 1, &[&artifact.name]);
    let refused = imagebuild(&["sign", &old, "--store", &store, "--key", &key]);
    assert_refused(&refused, 1, &["failed to sign"]);
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).expect("it is read");
    bytes[100] ^= 1;
    fs::remove_file(path).expect("it goes");
    fs::write(path, bytes).expect("it is written");
}

#[test]
fn keys_under_a_passphrase_and_age_open_for_their_owner_and_are_never_printed() {
    if !need::has(&["age", "age-keygen", "openssl"]) {
        return;
    }
    let bench = Bench::with("loaders");
    let store = bench.path("store");
    let [passphrase, identity] = ["passphrase", "identity"].map(|name| bench.path(name));
    fs::write(&passphrase, "correct horse\n").expect("a passphrase");
    check(&run(Command::new("age-keygen").args(["-o", &identity])));
    let recipient = printed(&run(Command::new("age-keygen").args(["-y", &identity])));
    let [plain, under, sealed] = ["plain", "under", "sealed"].map(|name| bench.path(name));
    let make = |words: &[&str]| imagebuild(&[&["key", "make"][..], words].concat());
    let mut outputs = vec![
        make(&[&plain]),
        make(&[&under, "--passphrase-file", &passphrase]),
        make(&[&sealed, "--age", recipient.trim(), "--json"]),
    ];
    outputs.iter().for_each(check);

    // What others' tools read out of these files is the same key.
    let from = format!("file:{passphrase}");
    let public = openssl(&["pkey", "-in", &under, "-passin", &from, "-pubout"]);
    assert_eq!(
        printed(&public),
        fs::read_to_string(bench.path("under.pub")).expect("a key")
    );
    let opened = printed(&run(
        Command::new("age").args(["-d", "-i", &identity, &sealed])
    ));
    fs::write(bench.path("opened"), &opened).expect("a key");
    let public = openssl(&["pkey", "-in", &bench.path("opened"), "-pubout"]);
    assert_eq!(
        printed(&public),
        fs::read_to_string(bench.path("sealed.pub")).expect("a key")
    );

    let sign =
        |words: &[&str]| imagebuild(&[&["sign", "loaders", "--store", &store][..], words].concat());
    let refused = [
        (sign(&["--key", &under]), "there is no passphrase"),
        (
            sign(&["--key", &under, "--passphrase-file", &plain]),
            "does not open it",
        ),
        (sign(&["--key", &sealed]), "there is no identity"),
        (sign(&[]), "no key: say `--key FILE`"),
        (make(&[&plain]), "failed to write"),
    ];
    for (output, words) in refused {
        assert_refused(&output, 3, &[words]);
        outputs.push(output);
    }
    for (key, words) in [
        (&under, ["--passphrase-file", &passphrase]),
        (&sealed, ["--identity", &identity]),
    ] {
        let output = sign(&[&["--json", "--key", key][..], &words].concat());
        check(&output);
        outputs.push(output);
        let public = format!("{key}.pub");
        check(&imagebuild(&[
            "verify", "loaders", "--store", &store, "--key", &public,
        ]));
    }
    // The environment of a CI job has the key itself, and another variable its passphrase.
    let mut ci = Command::new(shop::workspace().binary("imagebuild"));
    ci.args(["sign", "loaders", "--store", &store])
        .env("IMAGEBUILD_KEY", fs::read_to_string(&under).expect("a key"))
        .env("IMAGEBUILD_KEY_PASSPHRASE", "correct horse");
    outputs.push(run(&mut ci));
    check(outputs.last().expect("one"));

    let secrets = [&plain, &under, &sealed, &bench.path("opened"), &identity]
        .map(|path| fs::read_to_string(path).expect("a key"));
    let lines = secrets.iter().flat_map(|text| text.lines());
    let lines = lines.filter(|line| line.len() >= 32 && !line.starts_with(['-', '#']));
    for secret in lines.chain(["correct horse"]) {
        for output in &outputs {
            let all = [&output.stdout[..], &output.stderr].concat();
            let all = String::from_utf8_lossy(&all);
            assert!(!all.contains(secret), "a secret was printed: {all}");
        }
    }
}
