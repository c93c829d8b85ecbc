//! Backups of a running appliance, and what becomes of them.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use http_body_util::BodyExt as _;
use hyper::Method;
use serde_json::Value;

use super::rig::{Rig, wanted};
use crate::api::Verification;
use crate::auth::{Role, TokenView};
use crate::backup::{BackupError, check, restore};
use crate::store::{BootRow, Change, LeaseRow, Reader, Stored};

async fn take(rig: &Rig, path: &Path) {
    let mut body = rig
        .admin()
        .stream(Method::POST, "/v1/backup")
        .await
        .unwrap();
    let mut file = File::create(path).unwrap();
    while let Some(frame) = body.frame().await {
        file.write_all(&frame.unwrap().into_data().unwrap())
            .unwrap();
    }
}

async fn stored(data: &Path) -> Stored {
    let mut reader = Reader::open(data).await.unwrap().unwrap();
    reader.read().await.unwrap()
}

#[tokio::test]
async fn a_backup_of_a_running_appliance_is_restored_with_nothing_lost() {
    let rig = Rig::start().await;
    let ci = rig.with_token(&wanted("ci", Role::Viewer)).await;
    ci.get::<Value>("/v1/hosts").await.unwrap();
    rig.commit(vec![
        Change::Lease(LeaseRow {
            network: "rack".to_owned(),
            address: 0x0a4d_000b,
            client: "host:web1".to_owned(),
            mac: Some("52:54:00:77:00:01".to_owned()),
            state: "bound".to_owned(),
            until_ms: 4_000_000_000_000,
        }),
        Change::Boot(BootRow {
            id: "b1".to_owned(),
            host: "web1".to_owned(),
            started_ms: 1,
            detail: "{}".to_owned(),
        }),
    ])
    .await;
    let archive = rig.file("backup.tar");
    take(&rig, &archive).await;
    let manifest = check(File::open(&archive).unwrap()).unwrap();
    let before = stored(&rig.data).await;
    let intact: Verification = rig.admin().get("/v1/audit/verify").await.unwrap();
    assert_eq!(
        intact.anchor,
        Some(manifest.audit.clone()),
        "it ends with the backup itself"
    );

    let data = rig.file("restored");
    restore(File::open(&archive).unwrap(), &data).await.unwrap();
    let after = stored(&data).await;
    assert_eq!(
        (&after.leases, &after.boots),
        (&before.leases, &before.boots)
    );
    assert_eq!(
        (&after.documents, &after.newest),
        (&before.documents, &before.newest)
    );
    for name in [
        "ca.key",
        "ca.pem",
        "boot.key",
        "identity.age",
        "admin.token",
    ] {
        let there = rig.data.join(name);
        if there.exists() {
            let (old, new) = (
                std::fs::read(&there).unwrap(),
                std::fs::read(data.join(name)).unwrap(),
            );
            assert_eq!(old, new, "{name}");
        }
    }
    let secret = |name: &str| {
        std::fs::metadata(data.join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (secret("ca.key"), secret("netboot.db"), secret("")),
        (0o600, 0o600, 0o700)
    );

    // Who trusted the old one trusts the new one, and old tokens admit.
    let token = rig.file("ci");
    let rig = rig.again_on(data).await;
    let hosts: Vec<Value> = rig.client(&token).get("/v1/hosts").await.unwrap();
    assert_eq!(hosts.len(), 2);
    let tokens: Vec<TokenView> = rig.admin().get("/v1/tokens").await.unwrap();
    assert_eq!(tokens.len(), 2);
    let intact: Verification = rig.admin().get("/v1/audit/verify").await.unwrap();
    assert!(intact.intact, "{intact:?}");
}

#[tokio::test]
async fn a_damaged_archive_restores_nothing() {
    let rig = Rig::start().await;
    rig.with_token(&wanted("ci", Role::Viewer)).await;
    let archive = rig.file("backup.tar");
    take(&rig, &archive).await;
    let whole = std::fs::read(&archive).unwrap();
    let data = rig.file("restored");
    let mut failed = 0;
    // A bit here and there, in heads, contents and the database, and each cut end.
    let places = (0..whole.len()).step_by(whole.len() / 61);
    for place in places.chain([whole.len() - 1_024]) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x10;
        let cut = &whole[..place];
        for bytes in [&*damaged, cut] {
            if restore(bytes, &data).await.is_err() {
                failed += 1;
                assert!(!data.exists(), "{place}");
            } else {
                // What lies between the files is nobody's: what came out is right nevertheless.
                let of = |data: &Path| std::fs::read(data.join("ca.key")).unwrap();
                assert_eq!(of(&data), of(&rig.data), "{place}");
                std::fs::remove_dir_all(&data).unwrap();
            }
        }
    }
    assert!(failed > 90, "{failed}");
}

#[tokio::test]
async fn a_directory_that_holds_anything_is_not_restored_into() {
    let rig = Rig::start().await;
    let archive = rig.file("backup.tar");
    take(&rig, &archive).await;
    let restored = restore(File::open(&archive).unwrap(), &rig.data).await;
    assert!(matches!(restored, Err(BackupError::NotEmpty { .. })));
    let empty = rig.file("empty");
    std::fs::create_dir(&empty).unwrap();
    restore(File::open(&archive).unwrap(), &empty)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_archive_that_leads_out_of_the_directory_is_refused() {
    let manifest = |path: &str| {
        let manifest = serde_json::json!({
            "format": 1, "version": "0", "taken-ms": 0, "audit": "0:sha256:00",
            "entries": [{ "path": path, "kind": "link", "target": "x" }],
        });
        let text = manifest.to_string();
        let mut tar = tar::Builder::new(Vec::new());
        let mut head = tar::Header::new_gnu();
        head.set_size(text.len() as u64);
        head.set_mode(0o600);
        tar.append_data(&mut head, "manifest.json", text.as_bytes())
            .unwrap();
        tar.into_inner().unwrap()
    };
    for path in ["../x", "/x", "a/../../x", ""] {
        let checked = check(&*manifest(path));
        assert!(
            matches!(checked, Err(BackupError::Unusable(_))),
            "{path}: {checked:?}"
        );
    }
    let escape = check(&*manifest("a\u{1b}[2Jb")).unwrap_err();
    assert!(matches!(escape, BackupError::Unusable(_)), "{escape:?}");
    assert!(!escape.to_string().contains('\u{1b}'), "{escape:?}");
    assert!(matches!(
        check(&b"no tar"[..]),
        Err(BackupError::Archive(_) | BackupError::Unusable(_))
    ));
}

/// Counts what is read.
struct Counted<'a, R>(R, &'a std::cell::Cell<u64>);

impl<R: std::io::Read> std::io::Read for Counted<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(into)?;
        self.1.set(self.1.get() + read as u64);
        Ok(read)
    }
}

#[tokio::test]
async fn an_archive_whose_names_fill_the_memory_is_not_read_to_their_end() {
    use std::io::Read as _;
    const HUGE: u64 = 1 << 40;
    let mut head = tar::Header::new_gnu();
    head.set_entry_type(tar::EntryType::GNULongName);
    head.set_size(HUGE);
    head.set_cksum();
    let name = std::io::repeat(b'a').take(64 << 20);
    let read = std::cell::Cell::new(0);
    let checked = check(Counted(head.as_bytes().chain(name), &read));
    assert!(checked.is_err());
    assert!(read.get() < 32 << 20, "{} bytes were read", read.get());
}
