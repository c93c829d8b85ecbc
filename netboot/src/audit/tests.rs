//! What a meddler can do to the log, and what `verify` says to it.

use std::sync::{Arc, Mutex};

use netboot_core::Timestamp;
use serde_json::json;

use super::*;
use crate::operate::Who;
use crate::store::{Store, Stored};

const NOW: Timestamp = Timestamp(1_795_000_000_000);

fn deed(index: u64) -> Deed {
    Deed {
        at: Timestamp(NOW.0 + index),
        who: Who::appliance(),
        action: "deploy",
        object: "web1".to_owned(),
        request: json!({"image": "host", "number": index}),
        outcome: "refused: täglich \"x\"\n".to_owned(),
    }
}

fn log(entries: u64) -> Vec<RecordRow> {
    let mut chain = Chain::default();
    (0..entries)
        .map(|index| {
            let mut change = [change(&deed(index))];
            chain.link(&mut change);
            let [Change::Append(row)] = change else {
                panic!("an entry is appended");
            };
            row
        })
        .collect()
}

fn verify(log: &[RecordRow], anchor: Option<Anchor>) -> Result<Verified, Broken> {
    let mut verifier = Verifier::new(anchor);
    for row in log {
        verifier.take(row)?;
    }
    verifier.finish()
}

#[test]
fn the_first_record_that_does_not_fit_is_named() {
    let good = log(6);
    let anchor = verify(&good, None).unwrap().end;
    let tampered = |meddle: fn(&mut Vec<RecordRow>)| {
        let mut log = good.clone();
        meddle(&mut log);
        log
    };
    let changed = |seq| Err(Broken::Changed { seq });
    let cases = [
        ("nothing", tampered(|_| {}), Ok(())),
        (
            "an edited body",
            tampered(|log| log[2].body = log[2].body.replace("\"host\"", "\"evil\"")),
            changed(3),
        ),
        (
            "a field that is written twice, of which a reader may see the other",
            tampered(|log| log[2].body = log[2].body.replacen('{', "{\"who\":\"eve\",", 1)),
            changed(3),
        ),
        (
            "an edited time",
            tampered(|log| log[1].at_ms -= 1),
            changed(2),
        ),
        (
            "an edited subject",
            tampered(|log| log[5].subject = "web2".to_owned()),
            changed(6),
        ),
        (
            "a deleted record",
            tampered(|log| drop(log.remove(3))),
            Err(Broken::Gap { last: 3, found: 5 }),
        ),
        (
            "a deleted beginning",
            tampered(|log| drop(log.remove(0))),
            Err(Broken::Gap { last: 0, found: 2 }),
        ),
        (
            "two that changed places",
            tampered(|log| log.swap(1, 2)),
            Err(Broken::Gap { last: 1, found: 3 }),
        ),
        (
            "a cut end",
            tampered(|log| log.truncate(4)),
            Err(Broken::Truncated { last: 4, anchor: 6 }),
        ),
        (
            "no JSON",
            tampered(|log| log[0].body.clear()),
            Err(Broken::Unreadable { seq: 1 }),
        ),
    ];
    for (name, log, expected) in cases {
        let found = verify(&log, Some(anchor.clone())).map(drop);
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_log_that_is_forged_whole_does_not_fit_its_anchor() {
    let anchor = verify(&log(3), None).unwrap().end;
    let mut forged = log(3);
    forged[1].body = forged[1].body.replace("host", "evil");
    let mut chain = Chain::after(&forged[..1]);
    let mut changes: Vec<Change> = forged[1..].iter().cloned().map(Change::Append).collect();
    chain.link(&mut changes);
    for (row, change) in forged[1..].iter_mut().zip(changes) {
        let Change::Append(linked) = change else {
            unreachable!("they are appended");
        };
        *row = linked;
    }
    assert!(
        verify(&forged, None).is_err(),
        "its old hashes were kept as fields"
    );
    for row in &mut forged[1..] {
        let mut body: Value = serde_json::from_str(&row.body).unwrap();
        body.as_object_mut().unwrap().remove("hash");
        row.body = body.to_string();
    }
    let mut chain = Chain::after(&forged[..1]);
    let mut changes: Vec<Change> = forged.drain(1..).map(Change::Append).collect();
    chain.link(&mut changes);
    forged.extend(changes.into_iter().filter_map(|change| match change {
        Change::Append(row) => Some(row),
        _ => None,
    }));
    assert!(
        verify(&forged, None).is_ok(),
        "nobody who has only it can tell"
    );
    assert_eq!(
        verify(&forged, Some(anchor)),
        Err(Broken::Rewritten { seq: 3 })
    );
}

#[test]
fn the_hash_is_what_others_compute() {
    // printf '%s' '{"a":[1,{"b":null,"c":"ä\n"}],"z":true}' | sha256sum
    let value = json!({"z": true, "a": [1, {"c": "ä\n", "b": null}]});
    assert_eq!(
        chain::canonical(&value),
        r#"{"a":[1,{"b":null,"c":"ä\n"}],"z":true}"#
    );
}

/// A store whose second and third transactions fail.
#[derive(Debug)]
struct Flaky {
    kept: Arc<Mutex<Vec<RecordRow>>>,
    commits: u32,
}

impl Store for Flaky {
    async fn load(&mut self) -> Result<Stored, StoreError> {
        Ok(Stored::default())
    }

    async fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.commits += 1;
        if (2..4).contains(&self.commits) {
            return Err(StoreError::Closed);
        }
        let rows = changes.iter().filter_map(|change| match change {
            Change::Append(row) => Some(row.clone()),
            _ => None,
        });
        self.kept.lock().unwrap().extend(rows);
        Ok(())
    }

    async fn close(self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_failed_transaction_leaves_no_hole() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let store = Flaky {
        kept: Arc::clone(&kept),
        commits: 0,
    };
    let (writer, task) = Writer::spawn(store, Chain::default());
    let log = Log::new(writer);
    let mut done = Vec::new();
    for index in 0..5 {
        done.push(log.commit(deed(index), Vec::new()).await.is_ok());
    }
    assert_eq!(done, [true, false, false, true, true]);
    let rows = kept.lock().unwrap().clone();
    assert_eq!(verify(&rows, None).unwrap().records, 3);

    // The next appliance goes on where this one ended.
    let (writer, _) = Writer::spawn(
        Flaky {
            kept: Arc::clone(&kept),
            commits: 3,
        },
        Chain::after(&rows[2..]),
    );
    let again = Log::new(writer);
    again.commit(deed(9), Vec::new()).await.unwrap();
    assert_eq!(verify(&kept.lock().unwrap(), None).unwrap().records, 4);
    drop(log);
    task.await.unwrap();
}
