//! How a boot proves itself, once, and over a crash of the appliance.

use super::*;

/// Returns what operators are told about the host, of one kind.
async fn told(appliance: &Appliance, kind: &str) -> Vec<String> {
    // It is told in turn, behind what was said before.
    appliance.operator.states().await.unwrap();
    let since = crate::operate::Since::default();
    let events = appliance.operator.events(&since).await.unwrap();
    let of_kind = |event: &crate::operate::EventView| event.kind == kind && event.subject == "web1";
    let events = events.into_iter().filter(of_kind);
    events.map(|event| event.text).collect()
}

#[tokio::test]
async fn what_a_hostile_host_says_is_printable_and_short_when_operators_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let appliance = start(path, Sqlite::open(path).await.unwrap()).await;
    let (boot, token) = given(&appliance.script(WEB1, peer()).await.unwrap());
    let mine = credential(&appliance, &boot, &token).await;
    let report = Report {
        sequence: 1,
        uptime_ms: 9,
        stage: Stage::Failed {
            reason: format!("no\u{1b}[2Jroot {}", "x".repeat(9_000)),
        },
    };
    appliance
        .report(&boot, &mine, report, peer())
        .await
        .unwrap();
    appliance.operator.states().await.unwrap();
    let since = crate::operate::Since::default();
    let events = appliance.operator.events(&since).await.unwrap();
    assert!(
        events.iter().any(|event| event.text.contains("root xxx")),
        "{events:?}"
    );
    for event in events {
        assert!(!event.text.chars().any(char::is_control), "{event:?}");
        assert!(event.text.len() < 2_000, "{event:?}");
    }
}

#[tokio::test]
async fn a_token_is_exchanged_once_and_over_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let appliance = start(path, Sqlite::open(path).await.unwrap()).await;
    let (boot, token) = given(&appliance.script(WEB1, peer()).await.unwrap());
    let shown = |appliance: &Arc<Appliance>, nonce: &'static str| {
        let (appliance, boot, token) = (Arc::clone(appliance), boot.clone(), token.clone());
        async move {
            appliance
                .exchange(&boot, &token, exchange(nonce), peer())
                .await
        }
    };
    let wrong = appliance
        .exchange(&boot, "00", exchange("n1"), peer())
        .await;
    assert_eq!(wrong.unwrap_err().status, StatusCode::UNAUTHORIZED);
    let first = shown(&appliance, "n1").await.unwrap();
    assert_eq!(
        shown(&appliance, "n1").await.unwrap(),
        first,
        "its answer was lost"
    );
    for _ in 0..9 {
        let other = shown(&appliance, "n2").await.unwrap_err();
        assert_eq!(other.status, StatusCode::FORBIDDEN);
    }
    let told = told(&appliance, "refused").await;
    let (word, thief) = (&told[0], &told[1..]);
    assert!(word.contains("not this boot's"), "{told:?}");
    assert_eq!(thief.len(), 1, "once is enough: {told:?}");
    assert!(thief[0].contains("another program has read it"), "{told:?}");
    assert!(thief[0].contains("10.77.0.11"), "{told:?}");

    // The first one is not stopped: nothing of it may matter any more.
    let again = start(path, Sqlite::open(path).await.unwrap()).await;
    assert_eq!(shown(&again, "n1").await.unwrap(), first);
    assert_eq!(
        shown(&again, "n2").await.unwrap_err().status,
        StatusCode::FORBIDDEN
    );
    let shown = first.credential.expose();
    assert!(again.host(&boot, shown, peer()).await.is_ok());
}

#[tokio::test]
async fn a_report_is_taken_once_and_over_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let appliance = start(path, Sqlite::open(path).await.unwrap()).await;
    let (boot, token) = given(&appliance.script(WEB1, peer()).await.unwrap());
    let mine = credential(&appliance, &boot, &token).await;
    let steps = [
        ("no number", 0, Some(StatusCode::CONFLICT)),
        ("first", 5, None),
        ("replayed", 5, Some(StatusCode::CONFLICT)),
        ("older", 4, Some(StatusCode::CONFLICT)),
        ("next", 6, None),
    ];
    for (name, sequence, expected) in steps {
        let report = appliance
            .report(&boot, &mine, healthy(sequence), peer())
            .await;
        assert_eq!(
            report.err().map(|refusal| refusal.status),
            expected,
            "{name}"
        );
    }
    let again = start(path, Sqlite::open(path).await.unwrap()).await;
    let replayed = again.report(&boot, &mine, healthy(6), peer()).await;
    assert_eq!(replayed.unwrap_err().status, StatusCode::CONFLICT);
    again
        .report(&boot, &mine, healthy(7), peer())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_report_that_was_not_stored_is_taken_when_it_comes_again() {
    let directory = tempfile::tempdir().unwrap();
    let store = Memory::default();
    let appliance = start(directory.path(), store.clone()).await;
    let (boot, token) = given(&appliance.script(WEB1, peer()).await.unwrap());
    let mine = credential(&appliance, &boot, &token).await;
    store.fill();
    let lost = appliance.report(&boot, &mine, healthy(5), peer()).await;
    assert_eq!(lost.unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
    store.make_room();
    appliance
        .report(&boot, &mine, healthy(5), peer())
        .await
        .unwrap();
    assert!(events(&store).contains("healthy"));
}

#[tokio::test]
async fn a_report_whose_host_hangs_up_is_taken_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = Memory::default();
    let appliance = start(directory.path(), store.clone()).await;
    let (boot, token) = given(&appliance.script(WEB1, peer()).await.unwrap());
    let mine = credential(&appliance, &boot, &token).await;
    tokio::select! {
        biased;
        answer = appliance.report(&boot, &mine, healthy(5), peer()) => panic!("answered at once: {answer:?}"),
        () = std::future::ready(()) => {}
    }
    let is_stored = async {
        while !events(&store).contains("healthy") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let patience = Duration::from_secs(30);
    tokio::time::timeout(patience, is_stored).await.unwrap();
    // What is stored is remembered once the executor has said so.
    appliance.operator.states().await.unwrap();
    let again = appliance.report(&boot, &mine, healthy(5), peer()).await;
    assert_eq!(again.unwrap_err().status, StatusCode::CONFLICT);
    assert_eq!(events(&store).matches("healthy").count(), 1);
}

#[tokio::test]
async fn secrets_are_for_the_stage1_that_exchanged_the_token_until_it_hands_over() {
    const SECRET: &str = "canary of the database";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("db.secret");
    let store = Memory::default();
    let appliance = start(directory.path(), store.clone()).await;
    let (boot, token) = given(&appliance.script(WEB1, peer()).await.unwrap());
    let mine = credential(&appliance, &boot, &token).await;
    let config = appliance.host(&boot, &mine, peer()).await.unwrap();
    assert_eq!(config.secrets, ["db"]);
    let ask = |nonce: &str, shown: &str| {
        let (exchange, shown) = (exchange(nonce), shown.to_owned());
        let (appliance, boot) = (Arc::clone(&appliance), boot.clone());
        async move { appliance.secrets(&boot, &shown, exchange, peer()).await }
    };
    let missing = ask("n1", &mine).await.unwrap_err();
    assert_eq!(
        missing.status,
        StatusCode::INTERNAL_SERVER_ERROR,
        "it may be put there yet"
    );
    std::fs::write(&file, SECRET).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for (name, nonce, shown, expected) in [
        ("the token", "n1", token.as_str(), StatusCode::UNAUTHORIZED),
        (
            "another program on the host",
            "n2",
            &mine,
            StatusCode::FORBIDDEN,
        ),
    ] {
        assert_eq!(
            ask(nonce, shown).await.unwrap_err().status,
            expected,
            "{name}"
        );
    }
    for time in ["first", "its answer was lost"] {
        let given = ask("n1", &mine).await.unwrap();
        assert_eq!(given.secrets["db"].expose(), SECRET.as_bytes(), "{time}");
        assert!(!format!("{given:?}").contains(SECRET), "{time}");
    }
    let report = Report {
        sequence: 9,
        uptime_ms: 9,
        stage: Stage::SwitchRoot,
    };
    appliance
        .report(&boot, &mine, report, peer())
        .await
        .unwrap();
    assert_eq!(
        ask("n1", &mine).await.unwrap_err().status,
        StatusCode::FORBIDDEN
    );
    settle(&appliance).await;
    assert!(!format!("{:?}", store.changes()).contains(SECRET));
}
