use super::*;
use crate::audit::Chain;

fn lease(address: u32, client: &str) -> LeaseRow {
    LeaseRow {
        network: "rack".to_owned(),
        address,
        client: client.to_owned(),
        mac: Some("52:54:00:00:00:01".to_owned()),
        state: "bound".to_owned(),
        until_ms: 600_000,
    }
}

fn boot(id: &str, started_ms: u64) -> BootRow {
    BootRow {
        id: id.to_owned(),
        host: "bios1".to_owned(),
        started_ms,
        detail: "{}".to_owned(),
    }
}

fn event(boot: &str, seq: u32) -> EventRow {
    EventRow {
        boot: boot.to_owned(),
        seq,
        at_ms: 5,
        event: "{}".to_owned(),
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let store = Sqlite::open(data.path()).await.unwrap();
    let (writer, task) = Writer::spawn(store, Chain::default());
    let changes = vec![
        Change::Lease(lease(1, "host:bios1")),
        Change::Lease(lease(2, "mac:52:54:00:00:00:02")),
        Change::Lease(lease(2, "mac:52:54:00:00:00:03")),
        Change::Free {
            network: "rack".to_owned(),
            address: 1,
        },
        Change::Boot(boot("b1", 10)),
        Change::Event(event("b1", 0)),
        Change::Event(event("b1", 1)),
    ];
    let commit = writer.submit(changes, Urgency::Urgent).unwrap();
    commit.durable().await.unwrap();
    let expected = Stored {
        leases: vec![lease(2, "mac:52:54:00:00:00:03")],
        boots: vec![StoredBoot {
            boot: boot("b1", 10),
            events: vec![event("b1", 0), event("b1", 1)],
        }],
        ..Stored::default()
    };
    let mut reader = Reader::open(data.path()).await.unwrap().unwrap();
    assert_eq!(reader.read().await.unwrap(), expected, "beside the writer");
    drop(writer);
    task.await.unwrap();
    let mut again = Sqlite::open(data.path()).await.unwrap();
    assert_eq!(again.load().await.unwrap(), expected, "after a restart");
}

#[tokio::test]
async fn old_boots_of_a_host_go() {
    let data = tempfile::tempdir().unwrap();
    let mut store = Sqlite::open(data.path()).await.unwrap();
    let total = u64::from(BOOTS_PER_HOST) + 5;
    for number in 0..total {
        let id = format!("b{number}");
        let changes = [
            Change::Boot(boot(&id, number)),
            Change::Event(event(&id, 0)),
        ];
        store.commit(&changes).await.unwrap();
    }
    store.close().await.unwrap();
    let mut reader = Reader::open(data.path()).await.unwrap().unwrap();
    let boots = reader.boots_of("bios1").await.unwrap();
    assert_eq!(boots.len(), BOOTS_PER_HOST as usize);
    assert_eq!(boots[0].boot.started_ms, total - 1, "newest first");
    assert_eq!(boots.last().unwrap().boot.started_ms, 5);
}

#[tokio::test]
async fn a_clock_that_goes_back_costs_no_boot() {
    let data = tempfile::tempdir().unwrap();
    let mut store = Sqlite::open(data.path()).await.unwrap();
    let kept = BOOTS_PER_HOST as usize;
    for number in 0..kept {
        let future = boot(&format!("future{number}"), 9_000_000_000_000);
        store.commit(&[Change::Boot(future)]).await.unwrap();
    }
    // One transaction, and not in the order of their ids.
    let changes = [
        Change::Boot(boot("z", 10)),
        Change::Event(event("z", 0)),
        Change::Boot(boot("y", 9)),
        Change::Event(event("y", 0)),
    ];
    store.commit(&changes).await.unwrap();
    let newest = store.load().await.unwrap().boots;
    assert_eq!(newest.len(), BOOTS_AT_START);
    let expected = StoredBoot {
        boot: boot("y", 9),
        events: vec![event("y", 0)],
    };
    assert_eq!(newest[2], expected, "the newest is the one written last");
    assert_eq!(newest[1].boot, boot("z", 10), "oldest first");
    assert_eq!(newest[0].boot.id, "future19");

    store
        .commit(&[Change::Boot(boot("future2", 8))])
        .await
        .unwrap();
    store.close().await.unwrap();
    let mut reader = Reader::open(data.path()).await.unwrap().unwrap();
    let boots = reader.boots_of("bios1").await.unwrap();
    let ids: Vec<&str> = boots.iter().map(|boot| boot.boot.id.as_str()).collect();
    assert_eq!(ids.len(), kept);
    assert_eq!(ids[..3], ["y", "z", "future19"], "newest first");
    assert_eq!(ids[kept - 1], "future2", "written again is not begun again");
}

#[tokio::test]
async fn boots_of_hosts_that_left_the_site_go() {
    let data = tempfile::tempdir().unwrap();
    let mut store = Sqlite::open(data.path()).await.unwrap();
    let of = |host: &str, id: &str| BootRow {
        host: host.to_owned(),
        ..boot(id, 10)
    };
    let changes = [
        Change::Boot(of("stays", "a")),
        Change::Event(event("a", 0)),
        Change::Boot(of("left", "b")),
        Change::Boot(of("left", "c")),
        Change::Event(event("c", 0)),
        Change::Event(event("never", 0)),
    ];
    store.commit(&changes).await.unwrap();
    let hosts = ["new", "stays"].into();
    assert_eq!(store.keep_boots_of(&hosts).await.unwrap(), 2);
    assert_eq!(store.keep_boots_of(&hosts).await.unwrap(), 0);
    // Their events are gone too: a boot with the same id has none.
    let again = [
        Change::Boot(of("left", "c")),
        Change::Boot(of("x", "never")),
    ];
    store.commit(&again).await.unwrap();
    let boots = store.load().await.unwrap().boots;
    let events: Vec<(&str, usize)> = boots
        .iter()
        .map(|boot| (boot.boot.id.as_str(), boot.events.len()))
        .collect();
    assert_eq!(events, [("c", 0), ("a", 1), ("never", 0)]);
}

fn document(name: &str, body: &str) -> DocumentRow {
    DocumentRow {
        kind: "token".to_owned(),
        name: name.to_owned(),
        body: body.to_owned(),
    }
}

fn record(kind: &str, seq: u64, subject: &str) -> RecordRow {
    RecordRow {
        kind: kind.to_owned(),
        seq,
        at_ms: 5,
        subject: subject.to_owned(),
        body: "{}".to_owned(),
    }
}

#[tokio::test]
async fn documents_are_replaced_and_records_stay_as_they_are() {
    let data = tempfile::tempdir().unwrap();
    let mut sqlite = Sqlite::open(data.path()).await.unwrap();
    let mut memory = Memory::default();
    let remove = |name: &str| Change::Remove {
        kind: "token".to_owned(),
        name: name.to_owned(),
    };
    let batches = [
        vec![
            Change::Put(document("a", "1")),
            Change::Put(document("a", "2")),
            Change::Put(document("b", "1")),
            Change::Put(document("c", "1")),
            remove("c"),
            Change::Append(record("audit", 1, "web1")),
            Change::Append(record("event", 1, "web1")),
            Change::Append(record("event", 2, "web2")),
        ],
        vec![
            remove("b"),
            Change::Put(document("c", "3")),
            Change::Append(record("event", 3, "web1")),
        ],
    ];
    for changes in &batches {
        sqlite.commit(changes).await.unwrap();
        memory.commit(changes).await.unwrap();
    }
    let stored = sqlite.load().await.unwrap();
    assert_eq!(stored.documents, [document("a", "2"), document("c", "3")]);
    let newest = [record("audit", 1, "web1"), record("event", 3, "web1")];
    assert_eq!(stored.newest, newest);
    assert_eq!(
        memory.load().await.unwrap(),
        stored,
        "all stores do the same"
    );

    let forged = record("audit", 1, "web9");
    sqlite.commit(&[Change::Append(forged)]).await.unwrap();
    assert_eq!(sqlite.load().await.unwrap().newest, newest);
}

#[tokio::test]
async fn records_are_read_by_the_page() {
    let data = tempfile::tempdir().unwrap();
    let mut store = Sqlite::open(data.path()).await.unwrap();
    let mut changes: Vec<Change> = (1..=10)
        .map(|seq| record("event", seq, if seq % 2 == 0 { "even" } else { "odd" }))
        .map(Change::Append)
        .collect();
    changes.push(Change::Trim {
        kind: "event".to_owned(),
        until: 2,
    });
    store.commit(&changes).await.unwrap();
    let mut reader = Reader::open(data.path()).await.unwrap().unwrap();
    let (old, new) = (Order::OldestFirst, Order::NewestFirst);
    let cases = [
        ("the first ones", None, None, old, 3, vec![3, 4, 5]),
        (
            "what came after",
            None,
            Some(5),
            old,
            9,
            vec![6, 7, 8, 9, 10],
        ),
        ("the last ones", None, None, new, 2, vec![10, 9]),
        ("those before", None, Some(9), new, 2, vec![8, 7]),
        ("about one", Some("odd"), Some(4), old, 2, vec![5, 7]),
        ("none", Some("neither"), None, old, 9, vec![]),
    ];
    for (name, subject, beyond, order, limit, expected) in cases {
        let page = Page {
            subject,
            beyond,
            order,
            limit,
        };
        let rows = reader.records("event", &page).await.unwrap();
        let found: Vec<u64> = rows.iter().map(|row| row.seq).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[tokio::test]
async fn a_store_of_an_older_version_has_no_documents() {
    let data = tempfile::tempdir().unwrap();
    Sqlite::open(data.path())
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    let file = format!("sqlite://{}", data.path().join("netboot.db").display());
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&file)
        .await
        .unwrap();
    for statement in [
        "DROP TABLE documents",
        "DROP TABLE records",
        "DELETE FROM _sqlx_migrations WHERE version = 2",
    ] {
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    drop(connection);
    let mut reader = Reader::open(data.path()).await.unwrap().unwrap();
    assert_eq!(reader.read().await.unwrap(), Stored::default());
    let mut store = Sqlite::open(data.path()).await.unwrap();
    let changes = [Change::Put(document("a", "1"))];
    store.commit(&changes).await.unwrap();
}

#[tokio::test]
async fn many_rows_in_one_transaction_all_arrive() {
    let data = tempfile::tempdir().unwrap();
    let mut store = Sqlite::open(data.path()).await.unwrap();
    let changes: Vec<Change> = (0..1_003)
        .map(|address| Change::Lease(lease(address, "mac:x")))
        .collect();
    store.commit(&changes).await.unwrap();
    assert_eq!(store.load().await.unwrap().leases.len(), 1_003);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let data = tempfile::tempdir().unwrap();
    Sqlite::open(data.path())
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    let file = format!("sqlite://{}", data.path().join("netboot.db").display());
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&file)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99, 'later', TRUE, x'00', 0)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    drop(connection);
    let opened = Sqlite::open(data.path()).await;
    assert!(matches!(
        opened,
        Err(StoreError::NewerSchema {
            found: 99,
            known: 2,
            ..
        })
    ));
    let read = Reader::open(data.path()).await;
    assert!(matches!(
        read,
        Err(StoreError::NewerSchema { found: 99, .. })
    ));
}

#[tokio::test]
async fn a_data_directory_without_a_store_reads_as_none() {
    let data = tempfile::tempdir().unwrap();
    assert!(Reader::open(data.path()).await.unwrap().is_none());
}

/// A store that waits until it is told to go on.
#[derive(Debug)]
struct Stuck(Option<tokio::sync::oneshot::Receiver<()>>);

impl Store for Stuck {
    async fn load(&mut self) -> Result<Stored, StoreError> {
        Ok(Stored::default())
    }

    async fn commit(&mut self, _: &[Change]) -> Result<(), StoreError> {
        if let Some(wait) = self.0.take() {
            wait.await.unwrap();
        }
        Ok(())
    }

    async fn close(self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_full_queue_sheds_what_can_wait_first() {
    let (go, wait) = tokio::sync::oneshot::channel();
    let (writer, task) = Writer::spawn(Stuck(Some(wait)), Chain::default());
    let mut commits = Vec::new();
    while let Ok(commit) = writer.submit(Vec::new(), Urgency::Deferrable) {
        commits.push(commit);
    }
    let urgent = writer.submit(Vec::new(), Urgency::Urgent);
    assert!(urgent.is_ok(), "places are kept for the urgent");
    while writer.submit(Vec::new(), Urgency::Urgent).is_ok() {}
    go.send(()).unwrap();
    for commit in commits {
        commit.durable().await.unwrap();
    }
    drop(writer);
    task.await.unwrap();
}

/// A store that fails at commits but these, counted from one.
#[derive(Debug)]
struct Broken {
    commits: u32,
    sound: &'static [u32],
}

impl Store for Broken {
    async fn load(&mut self) -> Result<Stored, StoreError> {
        Ok(Stored::default())
    }

    async fn commit(&mut self, _: &[Change]) -> Result<(), StoreError> {
        self.commits += 1;
        let sound = self.sound.contains(&self.commits);
        sound.then_some(()).ok_or(StoreError::Closed)
    }

    async fn close(self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_store_that_fails_for_good_ends_the_writer() {
    let cases: [(&str, &[u32], usize); 3] = [
        ("never a commit", &[], 8),
        ("one in between", &[5], 13),
        ("one at first", &[1], 9),
    ];
    for (name, sound, expected) in cases {
        let store = Broken { commits: 0, sound };
        let (writer, task) = Writer::spawn_with(store, Chain::default(), std::time::Duration::ZERO);
        let mut outcomes = Vec::new();
        for _ in 0..20 {
            let commit = writer.submit(Vec::new(), Urgency::Urgent).unwrap();
            outcomes.push(commit.durable().await);
        }
        let tried = outcomes
            .iter()
            .filter(|outcome| !matches!(outcome, Err(StoreError::Closed)))
            .count();
        assert_eq!(tried, expected, "{name}");
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_fails_for_a_moment_is_waited_for() {
    let store = Broken {
        commits: 0,
        sound: &[20],
    };
    let (writer, task) = Writer::spawn(store, Chain::default());
    for _ in 1..20 {
        let commit = writer.submit(Vec::new(), Urgency::Urgent).unwrap();
        assert!(commit.durable().await.is_err(), "nothing was promised");
    }
    let commit = writer.submit(Vec::new(), Urgency::Urgent).unwrap();
    commit.durable().await.unwrap();
    drop(writer);
    task.await.unwrap();
}
