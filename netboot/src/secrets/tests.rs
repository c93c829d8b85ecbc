//! Secrets from every place, judged by age's own program; a canary that nothing may print.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use netboot_core::site::SourceFile;

use super::*;

const CANARY: &str = "canary-7Yq!tXw2";

fn site(sources: &str) -> Site {
    let text = format!("[site]\nname = \"lab\"\n{sources}");
    let file = SourceFile {
        path: "site.toml".into(),
        text: text.into(),
    };
    Site::check(&[file]).unwrap()
}

struct Place {
    data: tempfile::TempDir,
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            data: tempfile::tempdir().unwrap(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn put(&self, name: &str, content: &[u8], mode: u32) {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn secrets(&self) -> Secrets {
        Secrets::open(self.data.path(), self.directory.path()).unwrap()
    }
}

/// All that could be printed of a result: nothing of it may be the canary.
fn printed(result: &Result<SecretString, SecretError>) -> String {
    let told = result
        .as_ref()
        .err()
        .map(|error| crate::cli::report::chain(error));
    let text = format!("{result:?} {result:#?} {}", told.unwrap_or_default());
    assert!(!text.contains("canary"), "{text}");
    text
}

#[test]
fn a_plain_file_is_read_only_when_nobody_else_may() {
    let place = Place::new();
    let site = site("[secret.bmc]\nfile = \"bmc\"\n");
    let cases = [
        (
            "with a line end",
            format!("{CANARY}\n").into_bytes(),
            0o600,
            None,
        ),
        ("without one", CANARY.as_bytes().to_vec(), 0o400, None),
        (
            "of a group",
            CANARY.as_bytes().to_vec(),
            0o640,
            Some("may be read by others (mode 0640)"),
        ),
        (
            "of all",
            CANARY.as_bytes().to_vec(),
            0o604,
            Some("may be read by others (mode 0604)"),
        ),
        ("empty", b"\n".to_vec(), 0o600, Some("it is empty")),
        (
            "not text",
            b"canary\xff".to_vec(),
            0o600,
            Some("it is not text"),
        ),
        (
            "too large",
            vec![b'c'; LARGEST + 1],
            0o600,
            Some("it is larger than 65536 bytes"),
        ),
        (
            "far too large",
            vec![b'c'; 4 * LARGEST],
            0o600,
            Some("larger than"),
        ),
    ];
    for (name, content, mode, refused) in cases {
        fs::remove_file(place.directory.path().join("bmc")).ok();
        place.put("bmc", &content, mode);
        let read = place.secrets().read(&site, "bmc");
        let text = printed(&read);
        match refused {
            None => assert_eq!(read.unwrap().expose_secret(), CANARY, "{name}"),
            Some(reason) => assert!(text.contains(reason), "{name}: {text}"),
        }
    }
}

#[test]
fn what_is_not_there_is_told_with_its_place() {
    let place = Place::new();
    let site = site(
        "[secret.a]\nfile = \"a\"\n[secret.b]\nenv = \"NETBOOT_TEST_IS_NOT_SET\"\n[secret.c]\ncredential = \"c\"\n[secret.d]\nfile = \"d.age\"\n",
    );
    place.put("d.age", CANARY.as_bytes(), 0o600);
    let secrets = Secrets {
        credentials: None,
        ..place.secrets()
    };
    let cases = [
        ("a", "failed to read secret `a` from file `a`"),
        (
            "b",
            "environment variable `NETBOOT_TEST_IS_NOT_SET`: it is not set",
        ),
        ("c", "credential `c`: systemd gives no credentials here"),
        ("d", "file `d.age`: it is not encrypted with age"),
        (
            "e",
            "failed to read secret `e` from nowhere: the site has no such secret",
        ),
    ];
    for (name, expected) in cases {
        let text = printed(&secrets.read(&site, name));
        assert!(text.contains(expected), "{name}: {text}");
    }
}

#[test]
fn systemd_gives_credentials() {
    let place = Place::new();
    let given = tempfile::tempdir().unwrap();
    fs::write(given.path().join("bmc"), CANARY).unwrap();
    let secrets = Secrets {
        credentials: Some(given.path().to_owned()),
        ..place.secrets()
    };
    let site = site("[secret.bmc]\ncredential = \"bmc\"\n");
    assert_eq!(secrets.read(&site, "bmc").unwrap().expose_secret(), CANARY);
}

#[test]
fn a_password_must_fit_what_ipmi_has_for_it() {
    let host = |protocol: &str, more: &str| {
        format!(
            "[[network]]\nname = \"rack\"\nsubnet = \"10.7.0.0/24\"\nappliance = \"10.7.0.1\"\n[role.web]\nimage = \"host\"\n[secret.bmc]\nfile = \"bmc\"\n[[host]]\nname = \"web1\"\nmacs = [\"52:54:00:77:00:01\"]\naddress = \"10.7.0.9\"\nrole = \"web\"\n[host.bmc]\nprotocol = \"{protocol}\"\naddress = \"10.7.0.51\"\nuser = \"o\"\npassword = \"bmc\"\n{more}\n"
        )
    };
    let cases = [
        ("ipmi", "", 20, true),
        ("ipmi", "", 21, false),
        ("ipmi", "waivers = [\"ipmi-1.5\"]", 16, true),
        ("ipmi", "waivers = [\"ipmi-1.5\"]", 17, false),
        ("ipmi", "kg = \"bmc\"", 20, true),
        ("redfish", "", 60, true),
    ];
    for (protocol, more, length, fits) in cases {
        let place = Place::new();
        place.put("bmc", &vec![b'c'; length], 0o600);
        let wrong = place
            .secrets()
            .check(&site(&host(protocol, more)), &Files::default());
        assert_eq!(
            wrong.is_empty(),
            fits,
            "{protocol} {more} {length}: {wrong:?}"
        );
    }
}

#[cfg(feature = "age")]
mod sealed {
    use super::*;

    #[test]
    fn the_identity_is_made_once_and_for_its_owner() {
        let place = Place::new();
        let first = place.secrets().recipient().unwrap();
        assert_eq!(place.secrets().recipient().unwrap(), first);
        let path = place.data.path().join("identity.age");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(place.data.path()).unwrap().count(), 1);
        let text = fs::read_to_string(&path).unwrap();
        let key = text.lines().last().unwrap();
        let shown = format!("{:?} {:#?}", place.secrets(), place.secrets());
        assert!(!shown.contains(key), "{shown}");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let open = Identity::open(place.data.path()).unwrap_err();
        assert!(matches!(open, IdentityError::Open { .. }), "{open}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "AGE-SECRET-KEY-1CANARY\n").unwrap();
        let malformed = Identity::open(place.data.path()).unwrap_err();
        assert!(!malformed.to_string().contains("CANARY"));
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "AGE-SECRET-KEY-1CANARY\n",
            "it stays"
        );
    }

    #[test]
    fn a_sealed_secret_opens_here_and_nowhere_else() {
        let (here, there) = (Place::new(), Place::new());
        let site = site("[secret.bmc]\nfile = \"bmc.age\"\n");
        let recipient = here.secrets().recipient().unwrap();
        let sealed = seal(CANARY.as_bytes(), &[recipient]).unwrap();
        assert!(sealed.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----"));
        for place in [&here, &there] {
            // It is encrypted: who may read the file does not matter.
            place.put("bmc.age", &sealed, 0o644);
        }
        let opened = here.secrets().read(&site, "bmc").unwrap();
        assert_eq!(opened.expose_secret(), CANARY);
        let text = printed(&there.secrets().read(&site, "bmc"));
        assert!(text.contains("it is encrypted for others"), "{text}");
        let beside = Secrets::beside(here.directory.path());
        let text = printed(&beside.read(&site, "bmc"));
        assert!(text.contains("no identity here"), "{text}");
    }

    #[test]
    fn no_damage_to_a_sealed_secret_goes_unseen() {
        let place = Place::new();
        let site = site("[secret.bmc]\nfile = \"bmc.age\"\n");
        let recipient = place.secrets().recipient().unwrap();
        let sealed = seal(CANARY.as_bytes(), &[recipient]).unwrap();
        let secrets = place.secrets();
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            place.put("bmc.age", &damaged, 0o600);
            let read = secrets.read(&site, "bmc");
            printed(&read);
            // A flipped bit in the padding of base64 may be no damage at all.
            assert!(
                read.is_err() || read.unwrap().expose_secret() == CANARY,
                "{at}"
            );
            // Without its last line end it is still whole.
            if at + 1 < sealed.len() {
                place.put("bmc.age", &sealed[..at], 0o600);
                assert!(secrets.read(&site, "bmc").is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn a_large_secret_does_not_fit() {
        let place = Place::new();
        let recipient = place.secrets().recipient().unwrap();
        let sealed = seal(&vec![b'c'; LARGEST + 1], &[recipient]).unwrap();
        let identity = Identity::open(place.data.path()).unwrap();
        let error = identity.unseal(&sealed, LARGEST).unwrap_err();
        assert!(matches!(error, IdentityError::Large { .. }), "{error}");
    }

    fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                assert!(
                    std::env::var_os("CI").is_none(),
                    "CI lacks `{program}`: {error}"
                );
                eprintln!("skipped: `{program}` is not here: {error}");
                return None;
            }
        };
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        Some(output.stdout)
    }

    #[test]
    fn the_program_age_agrees_both_ways() {
        let place = Place::new();
        let site = site("[secret.bmc]\nfile = \"bmc.age\"\n");
        let recipient = place.secrets().recipient().unwrap().to_string();
        let identity = place.data.path().join("identity.age");
        for armour in [&["-a"][..], &[]] {
            let arguments = [&["-e", "-r", &recipient][..], armour].concat();
            let Some(sealed) = run("age", &arguments, CANARY.as_bytes()) else {
                return;
            };
            place.put("bmc.age", &sealed, 0o600);
            let read = place.secrets().read(&site, "bmc").unwrap();
            assert_eq!(read.expose_secret(), CANARY);
        }
        let sealed = seal(CANARY.as_bytes(), &[recipient.parse().unwrap()]).unwrap();
        let identity = identity.to_str().unwrap();
        let opened = run("age", &["-d", "-i", identity], &sealed).unwrap();
        assert_eq!(opened, CANARY.as_bytes());
        let public = run("age-keygen", &["-y", identity], b"").unwrap();
        assert_eq!(String::from_utf8(public).unwrap().trim(), recipient);
    }
}

#[cfg(feature = "age")]
#[test]
fn a_secret_is_sealed_before_the_first_start() {
    use crate::data::{DataError, Held};
    let place = Place::new();
    let (recipient, found) = Identity::recipient_of(place.data.path()).unwrap();
    assert_eq!(found, Found::Made);
    let again = Identity::recipient_of(place.data.path()).unwrap();
    assert_eq!(again, (recipient.clone(), Found::There));
    // The appliance that is started there then opens it.
    let sealed = seal(CANARY.as_bytes(), &[recipient]).unwrap();
    place.put("bmc.age", &sealed, 0o644);
    let site = site("[secret.bmc]\nfile = \"bmc.age\"\n");
    let read = place.secrets().read(&site, "bmc").unwrap();
    assert_eq!(read.expose_secret(), CANARY);

    let running = Place::new();
    let _held = Held::take(running.data.path()).unwrap();
    let refused = Identity::recipient_of(running.data.path());
    assert!(matches!(
        refused,
        Err(OfflineError::Data(DataError::InUse { .. }))
    ));
}
