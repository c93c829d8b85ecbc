//! A publish that is killed at any changing call is finished by the next one.

use cloud::fake::aws::Rules;
use cloud::fake::{Act, Fault, When};

use crate::bench::{Bench, advance};
use crate::publish::FULL;

#[tokio::test]
async fn killed_at_any_changing_call_the_next_run_finishes() {
    let rules = Rules {
        pending: 1,
        hidden: 1,
        ..Rules::default()
    };
    let whole = Bench::new(rules.clone(), FULL).await;
    whole.publish().await.unwrap();
    let changes = whole.server.changes();
    assert!(changes > 20, "{:?}", whole.server.calls());
    for when in [When::Before, When::After] {
        for skip in 0..changes {
            let bench = whole.anew(rules.clone(), FULL).await;
            bench.server.fault(Fault {
                label: None,
                skip,
                times: 1,
                when,
                act: Act::Hang,
            });
            let mut killed = bench.publisher();
            let finished = tokio::select! {
                finished = advance(&mut killed) => Some(finished),
                () = bench.server.stopped() => None,
            };
            drop(killed);
            assert!(finished.is_none(), "{when:?} {skip}: {finished:?}");
            let next = bench.publish().await;
            assert!(next.is_ok(), "{when:?} {skip}: {}", next.unwrap_err());
            bench.assert_published(&["eu-west-1", "eu-north-1"]);
            let image = bench.aws.images("eu-north-1").remove(0);
            let parameter = bench
                .aws
                .parameter("eu-north-1", "/images/host/amd64/newest")
                .unwrap();
            assert_eq!(parameter.value, image.id, "{when:?} {skip}");
        }
    }
}
