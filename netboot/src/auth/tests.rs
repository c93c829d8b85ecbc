//! Tokens over their lives, and the pace of those who ask.

use netboot_core::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use tokio::time::Instant;

use super::*;
use crate::store::{Change, DocumentRow};

const NOW: Timestamp = Timestamp(1_795_000_000_000);
const HOUR: Duration = Duration::from_hours(1);

fn wanted(name: &str) -> Wanted {
    Wanted {
        name: name.to_owned(),
        role: Role::Operator,
        hosts: None,
        valid_seconds: Some(3_600),
    }
}

fn documents(changes: impl IntoIterator<Item = Change>) -> Vec<DocumentRow> {
    let put = |change| match change {
        Change::Put(row) => Some(row),
        _ => None,
    };
    changes.into_iter().filter_map(put).collect()
}

fn denied(tokens: &Tokens, token: &SecretString, at: Timestamp) -> Option<Denied> {
    let admitted = tokens.admit(token.expose_secret(), at);
    admitted.err().map(|(denied, _)| denied)
}

#[test]
fn a_token_admits_until_it_expires_or_is_revoked() {
    let tokens = Tokens::restore(&[]);
    let (token, row, stored) = tokens.make(&wanted("ci"), "admin", NOW).unwrap();
    assert_eq!(
        denied(&tokens, &token, NOW),
        Some(Denied::Unknown),
        "not stored yet"
    );
    tokens.keep(row);
    assert_eq!(denied(&tokens, &token, NOW), None);
    assert_eq!(
        denied(&tokens, &token, NOW.after(HOUR)),
        Some(Denied::Expired)
    );

    let again = Tokens::restore(&documents(stored));
    assert_eq!(denied(&again, &token, NOW), None, "after a restart");
    let (row, _) = again.revoke("ci", NOW).unwrap();
    assert_eq!(denied(&again, &token, NOW), None, "not stored yet");
    again.keep(row);
    assert_eq!(denied(&again, &token, NOW), Some(Denied::Revoked));
    for text in ["", "fb_", "fb_AAAA", "Bearer", &"fb_".repeat(100)] {
        assert!(again.admit(text, NOW).is_err(), "{text}");
    }
}

#[test]
fn a_use_that_is_written_late_revives_no_token() {
    let tokens = Tokens::restore(&[]);
    let (token, row, made) = tokens.make(&wanted("ci"), "admin", NOW).unwrap();
    tokens.keep(row);
    let (row, revoked) = tokens.revoke("ci", NOW).unwrap();
    let (_, used) = tokens.admit(token.expose_secret(), NOW).unwrap();
    tokens.keep(row);
    let mut stored = std::collections::BTreeMap::new();
    for row in documents(made.into_iter().chain(revoked).chain(used)) {
        stored.insert((row.kind.clone(), row.name.clone()), row);
    }
    let rows: Vec<DocumentRow> = stored.into_values().collect();
    let again = Tokens::restore(&rows);
    assert_eq!(denied(&again, &token, NOW), Some(Denied::Revoked));
    assert_eq!(again.views(NOW)[0].used_ms, Some(NOW.0));
}

#[test]
fn what_is_stored_and_shown_is_not_the_token() {
    let tokens = Tokens::restore(&[]);
    let (token, row, stored) = tokens.make(&wanted("ci"), "admin", NOW).unwrap();
    tokens.keep(row);
    let shown = format!("{tokens:?} {stored:?} {:?} {token:?}", tokens.views(NOW));
    let secret = token.expose_secret();
    assert_eq!((&secret[..3], secret.len()), ("fb_", 46));
    assert!(!shown.contains(&secret[3..]));
}

#[test]
fn the_first_token_is_made_once_and_taken_up_after_a_crash() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("admin.token");
    let tokens = Tokens::restore(&[]);
    let stored = tokens.ensure_admin(data.path(), NOW).unwrap();
    assert!(tokens.ensure_admin(data.path(), NOW).unwrap().is_none());
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    let token = SecretString::from(text.trim());
    assert_eq!(denied(&tokens, &token, NOW), None);

    let crashed = Tokens::restore(&[]);
    crashed.ensure_admin(data.path(), NOW).unwrap().unwrap();
    assert_eq!(denied(&crashed, &token, NOW), None, "the same one");

    // Somebody revoked the last one in the store: who has the file system gets a new one.
    let mut rows = documents(stored);
    rows[0].body = rows[0].body.replace("\"revoked\":null", "\"revoked\":1");
    let locked = Tokens::restore(&rows);
    assert_eq!(denied(&locked, &token, NOW), Some(Denied::Revoked));
    locked.ensure_admin(data.path(), NOW).unwrap().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(denied(&locked, &SecretString::from(text.trim()), NOW), None);
    assert_eq!(denied(&locked, &token, NOW), Some(Denied::Revoked));
}

#[test]
fn the_last_admin_stays_and_names_are_taken_once() {
    let data = tempfile::tempdir().unwrap();
    let tokens = Tokens::restore(&[]);
    tokens.ensure_admin(data.path(), NOW).unwrap();
    assert!(matches!(
        tokens.revoke("admin", NOW),
        Err(TokenError::Last { .. })
    ));
    assert!(matches!(
        tokens.revoke("x", NOW),
        Err(TokenError::NotFound { .. })
    ));
    let made = tokens.make(&wanted("admin"), "admin", NOW);
    assert!(matches!(made, Err(TokenError::Taken { .. })));
    for name in ["", "a b", "ä", &"x".repeat(64)] {
        let made = tokens.make(&wanted(name), "admin", NOW);
        assert!(matches!(made, Err(TokenError::Name { .. })), "{name}");
    }
    let another = Wanted {
        role: Role::Admin,
        valid_seconds: None,
        ..wanted("second")
    };
    tokens.keep(tokens.make(&another, "admin", NOW).unwrap().1);
    assert!(tokens.revoke("admin", NOW).is_ok());
}

#[test]
fn who_asks_too_often_waits() {
    let start = Instant::now();
    let pace = Pace::new(10, 3);
    for _ in 0..3 {
        assert_eq!(pace.take(&1, start), Ok(()));
    }
    let wait = pace.take(&1, start).unwrap_err();
    assert!(wait <= Duration::from_millis(100), "{wait:?}");
    assert_eq!(pace.take(&2, start), Ok(()), "others do not");
    assert_eq!(pace.take(&1, start + wait), Ok(()));
    for key in 0..10_000 {
        pace.take(&key, start).ok();
    }
}

#[test]
fn wrong_tokens_are_answered_ever_more_slowly() {
    let start = Instant::now();
    let failures = Failures::default();
    let peer = "10.0.0.1".parse().unwrap();
    let waits: Vec<u64> = (0..11)
        .map(|_| failures.count(peer, start).as_millis().try_into().unwrap())
        .collect();
    assert_eq!(
        waits,
        [0, 0, 0, 250, 500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000]
    );
    assert_eq!(
        failures.count("10.0.0.2".parse().unwrap(), start),
        Duration::ZERO
    );
    assert_eq!(failures.count(peer, start + HOUR), Duration::ZERO);
}

#[test]
fn refusals_do_not_fill_the_audit_log_however_many_ask() {
    let start = Instant::now();
    let refusals = Refusals::default();
    let peer = |number: u32| std::net::IpAddr::from(number.to_be_bytes());
    let hour = |number: u32| start + HOUR * number / 100_000;
    let recorded =
        (0..100_000).filter_map(|number| refusals.take(None, peer(number), hour(number)));
    let recorded: Vec<u64> = recorded.collect();
    assert!((600..3_000).contains(&recorded.len()), "{}", recorded.len());
    let told: u64 = recorded.iter().sum::<u64>() + recorded.len() as u64;
    assert!(told > 99_000, "the others are counted: {told}");

    let known = refusals.take(Some("ci"), peer(1), start + HOUR);
    assert!(known.is_some(), "strangers do not hide what tokens do");
    let of_one = (0..10_000).filter(|_| refusals.take(Some("ci"), peer(1), start + HOUR).is_some());
    assert!(of_one.count() < 100);
}

#[test]
fn one_client_is_one_client_whichever_of_its_addresses_it_uses() {
    let same =
        |one: &str, other: &str| client(one.parse().unwrap()) == client(other.parse().unwrap());
    assert!(same("2001:db8::1", "2001:db8::ffff:0:2"));
    assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
    assert!(!same("10.0.0.1", "10.0.0.2"));
    assert!(same("10.0.0.1", "::ffff:10.0.0.1"));
    assert!(!same("fe80::1", "fe80::2"), "a link is no client");
}

#[test]
fn a_token_is_looked_up_by_its_name_too() {
    let tokens = Tokens::restore(&[]);
    tokens.keep(tokens.make(&wanted("ci"), "admin", NOW).unwrap().1);
    assert!(tokens.is_live("ci", NOW));
    assert!(!tokens.is_live("ci", NOW.after(HOUR)));
    assert!(!tokens.is_live("other", NOW));
    tokens.keep(tokens.revoke("ci", NOW).unwrap().0);
    assert!(!tokens.is_live("ci", NOW));
}

#[tokio::test]
async fn a_lost_first_token_is_replaced_offline_and_recorded() {
    use crate::audit::{self, Verifier};
    use crate::data::{DataError, Held};
    use crate::store::{Order, Page, Reader, Sqlite, Store as _};
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let by = Local::user();
    let empty = reset(data, &by, Timestamp(1)).await.unwrap_err();
    assert!(matches!(empty, ResetError::Empty { .. }), "{empty}");
    assert!(
        !data.join("lock").exists(),
        "nothing is written where no appliance was"
    );

    let mut store = Sqlite::open(data).await.unwrap();
    let tokens = Tokens::restore(&store.load().await.unwrap().documents);
    let first = tokens.ensure_admin(data, Timestamp(1)).unwrap().unwrap();
    let ops = Wanted {
        name: "ops".to_owned(),
        role: Role::Admin,
        hosts: None,
        valid_seconds: None,
    };
    let (_, _, mut changes) = tokens.make(&ops, "admin", Timestamp(2)).unwrap();
    changes.push(first);
    store.commit(&changes).await.unwrap();
    store.close().await.unwrap();
    let lost = std::fs::read_to_string(data.join(FIRST_FILE)).unwrap();
    std::fs::remove_file(data.join(FIRST_FILE)).unwrap();

    let held = Held::take(data).unwrap();
    let running = reset(data, &by, Timestamp(3)).await.unwrap_err();
    let in_use = ResetError::Data(DataError::InUse {
        path: data.to_owned(),
    });
    assert_eq!(running.to_string(), in_use.to_string());
    drop(held);
    for (round, made) in [(4, "admin-2"), (5, "admin-3")] {
        let done = reset(data, &by, Timestamp(round)).await.unwrap();
        assert_eq!(done.made, made);
    }

    let permissions = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(data.join(FIRST_FILE))
            .unwrap()
            .permissions(),
    );
    assert_eq!(permissions & 0o777, 0o600);
    let made = std::fs::read_to_string(data.join(FIRST_FILE)).unwrap();
    let mut store = Sqlite::open(data).await.unwrap();
    let stored = store.load().await.unwrap();
    store.close().await.unwrap();
    let tokens = Tokens::restore(&stored.documents);
    let refused = tokens.admit(lost.trim(), Timestamp(6)).unwrap_err();
    assert_eq!(refused.0, Denied::Revoked);
    assert_eq!(
        tokens.admit(made.trim(), Timestamp(6)).unwrap().0.name,
        "admin-3"
    );
    assert!(
        tokens.is_live("ops", Timestamp(6)),
        "what people made stays"
    );
    assert!(tokens.ensure_admin(data, Timestamp(6)).unwrap().is_none());

    let mut reader = Reader::open(data).await.unwrap().unwrap();
    let page = Page {
        subject: None,
        beyond: None,
        order: Order::OldestFirst,
        limit: 10,
    };
    let records = reader.records(audit::KIND, &page).await.unwrap();
    let mut verifier = Verifier::new(None);
    for record in &records {
        verifier.take(record).unwrap();
    }
    assert_eq!(verifier.finish().unwrap().records, 2);
    let told = &records[1].body;
    let user = crate::data::name_of(nix::unistd::getuid());
    for part in [
        "\"action\":\"token reset\"",
        "\"revoked\":[\"admin-2\"]",
        &user,
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!told.contains(made.trim()));
}
