use super::*;

fn leases(count: u32) -> Vec<Change> {
    let lease = |address| {
        Change::Lease(LeaseRow {
            network: "rack".to_owned(),
            address,
            client: "host:bios1".to_owned(),
            mac: None,
            state: "bound".to_owned(),
            until_ms: 600_000,
        })
    };
    (0..count).map(lease).collect()
}

impl Sqlite {
    /// Opens it again as on a disk with room for so many pages.
    async fn limit(&mut self, pages: &'static str) {
        self.abandon().await;
        self.options = self.options.clone().pragma("max_page_count", pages);
    }
}

/// A change that needs so many bytes in one row: where a single row finds no room, `SQLite` rolls
/// back by itself; of many rows in one statement it takes back the statement only.
fn large(bytes: usize) -> Change {
    Change::Event(EventRow {
        boot: "b1".to_owned(),
        seq: 0,
        at_ms: 5,
        event: "x".repeat(bytes),
    })
}

#[tokio::test]
async fn a_full_store_goes_on_when_there_is_room() {
    let data = tempfile::tempdir().unwrap();
    let mut store = Sqlite::open(data.path()).await.unwrap();
    store.limit("12").await;
    let cases = [
        ("one row", vec![large(100_000)]),
        ("one row again", vec![large(100_000)]),
        ("many rows", leases(2_000)),
        ("many rows again", leases(2_000)),
    ];
    for (name, changes) in &cases {
        let failed = store.commit(changes).await;
        let error = failed.map_err(|error| crate::cli::report::chain(&error));
        assert!(
            matches!(&error, Err(chain) if chain.contains("full")),
            "{name}: {error:?}"
        );
        store.commit(&leases(1)).await.unwrap();
    }
    assert_eq!(
        store.load().await.unwrap().leases.len(),
        1,
        "nothing of the failed commits is there"
    );
    store.limit("4294967294").await;
    for (name, changes) in &cases {
        let done = store.commit(changes).await;
        assert!(done.is_ok(), "{name}: {done:?}");
    }
    assert_eq!(store.load().await.unwrap().leases.len(), 2_000);
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_again_is_asked_for_with_every_commit() {
    let data = tempfile::tempdir().unwrap();
    let away = data.path().join("away");
    let mut store = Sqlite::open(data.path()).await.unwrap();
    store.abandon().await;
    std::fs::rename(data.path().join(FILE), &away).unwrap();
    for _ in 0..2 {
        let failed = store.commit(&leases(1)).await;
        assert!(matches!(failed, Err(StoreError::Open { .. })), "{failed:?}");
    }
    std::fs::rename(&away, data.path().join(FILE)).unwrap();
    store.commit(&leases(1)).await.unwrap();
}

#[tokio::test]
async fn only_its_owner_reads_the_store() {
    use std::os::unix::fs::PermissionsExt as _;
    let data = tempfile::tempdir().unwrap();
    let modes = || {
        let files = std::fs::read_dir(data.path()).unwrap();
        let mode = |file: std::io::Result<std::fs::DirEntry>| {
            let file = file.unwrap();
            let mode = file.metadata().unwrap().permissions().mode() & 0o777;
            (file.file_name().into_string().unwrap(), mode)
        };
        files.map(mode).collect::<BTreeMap<_, _>>()
    };
    let mut store = Sqlite::open(data.path()).await.unwrap();
    store.commit(&leases(3)).await.unwrap();
    let made = modes();
    assert!(made.len() > 1, "with its log: {made:?}");
    assert!(made.values().all(|mode| *mode == 0o600), "{made:?}");

    // An older version made it for everybody to read.
    store.abandon().await;
    drop(store);
    for name in modes().keys() {
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(data.path().join(name), open).unwrap();
    }
    let mut store = Sqlite::open(data.path()).await.unwrap();
    store.commit(&leases(4)).await.unwrap();
    let tightened = modes();
    assert!(
        tightened.values().all(|mode| *mode == 0o600),
        "{tightened:?}"
    );
}
