//! An ingest that is down, hangs or answers nonsense: no call knows of it, what waits
//! arrives when it is well again, and what is lost is told where that can be.

use std::sync::Arc;
use std::thread;

use sentry::{Client, Hub, Level};
use sentry_tonic::{SentryClientLayer, SentryTracingLayer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use crate::support::every_call::{CALLS, every_call, greeter, without_us};
use crate::support::faulty::{Fault, Faulty, Via};
use crate::support::gated::{LONG, reported};
use crate::support::wait::wait_until;
use crate::support::wire::Item;
use crate::support::world::World;

/// Each is one on both sides.
const MADE: u64 = CALLS as u64 * 2;

/// What becomes of transactions while the ingest has a fault.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrive,
    /// Lost, for a reason that is told by sentry's transport alone. A `TraceTransport`
    /// gives it bytes, of which it does not know what they are.
    Lost(&'static str),
    /// As long as the limit lasts. Sentry counts itself what it refused.
    Limited,
}

fn fate(fault: Fault) -> Fate {
    match fault {
        // Half an answer is one: its head says that all is well.
        Fault::None | Fault::Hangs | Fault::Slow | Fault::OddHead | Fault::HalfBody => Fate::Arrive,
        Fault::RetryAfter | Fault::RateLimits => Fate::Limited,
        Fault::Unavailable => Fate::Lost("send_error"),
        Fault::Down
        | Fault::NoHttp
        | Fault::HalfHead
        | Fault::HugeHead
        | Fault::Reset
        | Fault::NoTls
        | Fault::Untrusted => Fate::Lost("network_error"),
    }
}

fn hub(client: &Arc<Client>) -> Arc<Hub> {
    Arc::new(Hub::new(Some(Arc::clone(client)), Arc::default()))
}

/// All calls, with both sides observed.
fn calls(hub: &Arc<Hub>) -> Vec<String> {
    let layer = SentryTracingLayer::new().hub(Arc::clone(hub));
    let world = World::subscribed(registry().with(layer));
    world.run(async {
        let server = greeter().serve().await;
        let client = server.observed_client(SentryClientLayer::new()).await;
        let said = every_call(client).await;
        server.stop().await;
        said
    })
}

fn transactions(items: &[Item]) -> u64 {
    let transactions = items.iter().filter(|item| item.kind == "transaction");
    transactions.count() as u64
}

/// Of the transactions that were lost: why, and how many.
fn told(ingest: &Faulty) -> Vec<(String, u64)> {
    // What it refused by a limit had reports in it, which are not told again.
    let items: Vec<_> = ingest
        .accepted()
        .into_iter()
        .chain(ingest.limited())
        .collect();
    let reported = reported(&items).into_iter();
    let of_transactions =
        |(loss, number): (String, u64)| Some((loss.strip_prefix("transaction ")?.into(), number));
    reported.filter_map(of_transactions).collect()
}

/// Until something arrives, which takes along what there is to tell.
fn wait_until_well(client: &Arc<Client>, ingest: &Faulty) {
    wait_until(&true, || {
        hub(client).capture_message("well?", Level::Info);
        assert!(client.flush(Some(LONG)));
        let is_question = |item: &Item| item.payload["message"] == "well?";
        ingest.accepted().iter().any(is_question)
    });
}

fn check(fault: Fault, via: Via, expected: &[String]) {
    let what = format!("{fault:?} {via:?}");
    let ingest = Faulty::with(fault);
    let client = Arc::new(Client::from(via.options(&ingest.dsn())));
    // The fault is there before there is a call.
    hub(&client).capture_message("first", Level::Info);
    match fault.holds() {
        true => ingest.wait_for_held(1),
        false => assert!(client.flush(Some(LONG)), "{what}"),
    }
    assert_eq!(calls(&hub(&client)), expected, "{what}");
    match fault.holds() {
        // All calls have come to their end, and the first message has not.
        true => assert_eq!((ingest.held(), ingest.connections()), (1, 1), "{what}"),
        false => assert!(client.flush(Some(LONG)), "{what}"),
    }
    if fault.is_of_tls() {
        // There is no client to tell without TLS.
        assert!(ingest.connections() as u64 > MADE, "{what}");
        assert!(client.close(Some(LONG)), "{what}");
        return;
    }
    ingest.mend();
    assert!(client.flush(Some(LONG)), "{what}");
    wait_until_well(&client, &ingest);
    let accepted = transactions(&ingest.accepted());
    let told_of = told(&ingest);
    match (fate(fault), via) {
        (Fate::Arrive, _) => assert_eq!((accepted, told_of), (MADE, vec![]), "{what}"),
        (Fate::Lost(reason), Via::Plain) => {
            let lost = vec![(reason.to_owned(), MADE)];
            assert_eq!((accepted, told_of), (0, lost), "{what}");
        }
        (Fate::Lost(_), Via::Trace) => assert_eq!((accepted, told_of), (0, vec![]), "{what}"),
        (Fate::Limited, Via::Plain) => {
            let limited = transactions(&ingest.limited());
            let told: u64 = told_of.iter().map(|(_, number)| number).sum();
            assert_eq!(accepted + limited + told, MADE, "{what} {told_of:?}");
        }
        (Fate::Limited, Via::Trace) => {
            let limited = transactions(&ingest.limited());
            assert!(accepted + limited <= MADE, "{what}");
            assert_eq!(told_of, [], "{what}");
        }
    }
    // It is as if nothing had been.
    assert_eq!(calls(&hub(&client)), expected, "{what}");
    assert!(client.close(Some(LONG)), "{what}");
    assert_eq!(transactions(&ingest.accepted()), accepted + MADE, "{what}");
}

#[test]
fn no_call_knows_of_a_fault_and_what_is_lost_is_told() {
    let world = World::new();
    let expected = world.run(without_us());
    thread::scope(|scope| {
        for (fault, via) in Fault::ALL
            .into_iter()
            .flat_map(|f| Via::BOTH.map(|v| (f, v)))
        {
            let expected = &expected;
            scope.spawn(move || check(fault, via, expected));
        }
    });
}

/// So the others have their cause.
#[test]
fn a_certificate_from_nobody_known_is_refused_as_such() {
    let ingest = Faulty::with(Fault::Untrusted);
    for via in Via::BOTH {
        let client = Arc::new(Client::from(via.options(&ingest.dsn())));
        hub(&client).capture_message("first", Level::Info);
        assert!(client.close(Some(LONG)));
    }
    // Fatal, of an authority that is not known.
    assert_eq!(ingest.alerts(2), [[21, 3, 3, 0, 2, 2, 48]; 2]);
}
