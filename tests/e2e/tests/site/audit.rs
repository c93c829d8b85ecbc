//! The audit log's chain: what an intruder with the database in his hands changes is found, and named.
//!
//! It refuses to compute a hash with the product's code: jq and sha256sum do, and python once more.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::desk::{admin, ask, audited, token};
use e2e::need;
use e2e::rig::{Rig, check, printed, run};
use e2e::shop;
use serde_json::json;

use super::rack;

/// Computes the hash of each record of a list of JSON lines, and follows the chain; as the README says it.
const FOLLOW: &str = r#"
last=sha256:0000000000000000000000000000000000000000000000000000000000000000
while IFS= read -r line; do
    [ "$(printf %s "$line" | jq -r .previous)" = "$last" ] || { echo "not linked: $line"; exit 1; }
    last=$(printf %s "$line" | jq -r .hash)
    sum=$(printf %s "$line" | jq -cSj 'del(.hash)' | sha256sum | cut -d' ' -f1)
    [ "sha256:$sum" = "$last" ] || { echo "not its hash: $line"; exit 1; }
done
echo "$last"
"#;

/// The same in python, for the database's own rows.
const FOLLOW_ROWS: &str = r#"
import hashlib, json, sqlite3, sys
last = "sha256:" + "0" * 64
rows = sqlite3.connect(sys.argv[1]).execute(
    "select seq, at_ms, subject, body from records where kind = 'audit' order by seq")
for number, (seq, at, subject, body) in enumerate(rows, 1):
    record = json.loads(body)
    found = record.pop("hash")
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert "sha256:" + hashlib.sha256(text.encode()).hexdigest() == found, body
    assert record["previous"] == last, body
    assert (record["seq"], record["at-ms"], record["object"]) == (seq, at, subject), body
    assert seq == number, body
    last = found
print(last)
"#;

/// Fills the log of an appliance with records of many kinds, and stops it.
fn logged() -> (Rig, String) {
    let mut rig = rack();
    let viewer = token(&rig, "viewer", &["--role", "viewer"]);
    let admin = admin(&rig);
    for image in [
        "host",
        "naïve \u{1f680} \"quoted\" \\ back\u{2028}slash\u{1}",
    ] {
        let order = json!({"hosts": ["bios1"], "image": image});
        let status = ask(&rig, &viewer, "/v1/deploy", Some(&order)).status;
        assert_eq!(status, 403);
        // The site has no BMC for it: the order waits for somebody who presses the button.
        let status = ask(&rig, &admin, "/v1/deploy", Some(&order)).status;
        assert_eq!(status, if image == "host" { 202 } else { 400 });
    }
    check(&rig.netboot(&["cancel", "bios1"]));
    check(&rig.netboot(&["token", "revoke", "viewer"]));
    assert_eq!(ask(&rig, &viewer, "/v1/hosts", None).status, 401);
    let verified = printed(&rig.netboot(&["audit", "verify"]));
    let records = audited(&rig);
    assert!(records.len() >= 8, "{records:#?}");
    let told = format!("{} records, unchanged\nanchor ", records.len());
    let anchor = verified.strip_prefix(&told);
    let anchor = anchor.unwrap_or_else(|| panic!("{verified}")).trim();
    let anchor = anchor.to_owned();
    rig.kill();
    (rig, anchor)
}

fn database(data: &Path) -> PathBuf {
    data.join("netboot.db")
}

/// Changes a copy of the log as an intruder does, and returns what `audit verify` says of it.
fn meddled(rig: &Rig, name: &str, sql: &str, words: &[&str]) -> (i32, String) {
    let data = rig.path(name);
    shop::copy_tree(&rig.place.data, &data).expect("a copy");
    check(&run(Command::new("sqlite3")
        .args(["-bail"])
        .arg(database(&data))
        .arg(sql)));
    let mut netboot = Command::new(&rig.place.netboot);
    netboot.args(["audit", "verify", "--offline", "--data"]);
    let output = run(netboot.arg(data).args(words));
    let said = [output.stdout, output.stderr].concat();
    let code = output.status.code().expect("it ends by itself");
    (code, String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn what_is_changed_in_the_log_is_found_and_named() {
    if !need::has(&["curl", "sqlite3"]) {
        return;
    }
    let (rig, anchor) = logged();
    let same = meddled(&rig, "same", "select 1", &["--anchor", &anchor]);
    assert_eq!(same.0, 0, "{}", same.1);
    let at = |seq: u32| format!("kind = 'audit' and seq = {seq}");
    let swap = "create temp table two as select * from records where kind = 'audit' and seq in (4, 5); \
        update records set (at_ms, subject, body) = (select at_ms, subject, body from two where two.seq = 9 - records.seq) \
        where kind = 'audit' and seq in (4, 5)";
    let cases = [
        (
            "edited",
            format!(
                "update records set body = replace(body, 'viewer', 'nobody') where {}",
                at(4)
            ),
            "record 4 was changed",
        ),
        (
            "edited outcome",
            format!(
                "update records set body = json_set(body, '$.outcome', 'done') where {}",
                at(2)
            ),
            "record 2 was changed",
        ),
        (
            "other time in the column",
            format!("update records set at_ms = at_ms - 1 where {}", at(4)),
            "record 4 was changed",
        ),
        (
            "other object in the column",
            format!("update records set subject = 'another' where {}", at(1)),
            "record 1 was changed",
        ),
        (
            "deleted",
            format!("delete from records where {}", at(3)),
            "record 4 follows record 2",
        ),
        (
            "the first one deleted",
            format!("delete from records where {}", at(1)),
            "record 2 follows record 0",
        ),
        ("two swapped", swap.to_owned(), "record 4 was changed"),
        (
            "no JSON",
            format!("update records set body = 'x' where {}", at(2)),
            "record 2 cannot be read",
        ),
        (
            "copied to the end",
            format!(
                "insert into records select kind, (select max(seq) + 1 from records where kind = 'audit'), at_ms, \
                subject, body from records where {}",
                at(2)
            ),
            "was changed",
        ),
    ];
    for (number, (name, sql, expected)) in cases.iter().enumerate() {
        let (code, said) = meddled(&rig, &format!("case-{number}"), sql, &[]);
        assert_eq!(code, 1, "{name}: {said}");
        assert!(said.contains(expected), "{name}: {said}");
    }

    // The end of a log can be cut off unseen, and is missed by whoever kept an anchor.
    let cut = "delete from records where kind = 'audit' and seq > 5";
    assert_eq!(meddled(&rig, "cut", cut, &[]).0, 0);
    let (code, said) = meddled(&rig, "cut-anchored", cut, &["--anchor", &anchor]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the log ends at record 5"), "{said}");
}

#[test]
fn a_record_with_a_hash_of_its_own_does_not_fit_the_next_one() {
    if !need::has(&["curl", "sqlite3", "python3"]) {
        return;
    }
    let (rig, _) = logged();
    // He knows how hashes are computed, and edits one record properly.
    let forge = r#"
import hashlib, json, sqlite3, sys
store = sqlite3.connect(sys.argv[1])
(body,) = store.execute("select body from records where kind = 'audit' and seq = 3").fetchone()
record = json.loads(body)
del record["hash"]
record["who"] = "somebody-else"
canonical = lambda it: json.dumps(it, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
record["hash"] = "sha256:" + hashlib.sha256(canonical(record).encode()).hexdigest()
store.execute("update records set body = ? where kind = 'audit' and seq = 3", (canonical(record),))
store.commit()
"#;
    check(&run(Command::new("python3")
        .args(["-c", forge])
        .arg(database(&rig.place.data))));
    let (code, said) = meddled(&rig, "forged", "select 1", &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("record 4 does not follow"), "{said}");
}

#[test]
fn others_compute_the_same_chain() {
    if !need::has(&["curl", "sqlite3", "python3", "jq", "sha256sum", "bash"]) {
        return;
    }
    let (mut rig, anchor) = logged();
    let (_, hash) = anchor.split_once(':').expect("an anchor");
    let python = run(Command::new("python3")
        .args(["-c", FOLLOW_ROWS])
        .arg(database(&rig.place.data)));
    assert_eq!(printed(&python).trim(), hash, "python");

    rig.serve().expect("it starts again");
    let listed = rig.path("audit.jsonl");
    let list = rig.netboot(&["audit", "list", "--json", "--limit", "1000"]);
    std::fs::write(&listed, list.stdout).expect("a file");
    let follow = format!("{FOLLOW}\n");
    let file = std::fs::File::open(&listed).expect("a file");
    let output = Command::new("bash")
        .args(["-c", &follow])
        .stdin(file)
        .output();
    let output = output.expect("bash starts");
    assert_eq!(printed(&output).trim(), hash, "jq and sha256sum");
    // A restart goes on where the log ended.
    check(&rig.netboot(&["token", "create", "later", "--role", "viewer"]));
    check(&rig.netboot(&["audit", "verify", "--anchor", &anchor]));
}
