//! What a call takes in of its trace, and hands on: a real call into a server
//! whose handler makes a real call to the next.

use std::sync::Mutex;

use http::HeaderMap;
use sentry::protocol::OrganizationId;
use sentry::{ClientOptions, Hub, TracesSamplingStrategy};
use serde_json::{Value, json};
use tonic::Request;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

use sentry_tonic::SentryClientLayer;

use crate::support::greeter::{ObservedClient, Running, Scripted, request};
use crate::support::received::{Received, trace};
use crate::support::world::World;

const TRACE: &str = "09e04486820349518ac7b5d2adbf6ba5";
const SPAN: &str = "9cf635fa5b870b3a";

type Headers<'a> = [(&'a str, &'a [u8])];

fn with_headers<T>(message: T, headers: &Headers<'_>) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in headers {
        let value = AsciiMetadataValue::try_from(*value).unwrap();
        let name = AsciiMetadataKey::from_bytes(name.as_bytes()).unwrap();
        request.metadata_mut().append(name, value);
    }
    request
}

/// What came of a request with these headers.
#[derive(Debug, PartialEq)]
struct Seen {
    /// Whether the incoming trace and span are those of the transaction and of
    /// the next hop.
    continued: bool,
    /// The decision that the next hop is told: `1`, `0`, or nothing.
    flag: String,
    /// All values of `baggage` at the next hop. A trace of its own is `TRACE`
    /// there, its random number `RAND`.
    baggage: Vec<String>,
    /// That of the transaction, where it was sent.
    envelope: Option<Value>,
}

/// Removes what differs from run to run, and checks it.
fn normalized(text: &str, trace_id: &str) -> String {
    let text = text.replace(trace_id, "TRACE");
    let Some((before, after)) = text.split_once("sentry-sample_rand=0.") else {
        return text;
    };
    let (digits, after) = after.split_at(6);
    assert!(digits.bytes().all(|b| b.is_ascii_digit()), "{text}");
    format!("{before}sentry-sample_rand=RAND{after}")
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).into_iter();
    values
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect()
}

/// Serves a Greeter that asks the next hop, with these headers on its request.
async fn serve_front(next: &Running, outgoing: &Headers<'_>) -> Running {
    let outgoing: MetadataMap = with_headers((), outgoing).metadata().clone();
    let client = next.observed_client(SentryClientLayer::new()).await;
    let client: Mutex<Option<ObservedClient>> = Mutex::new(Some(client));
    let front = Scripted::new().say_hello(move |name| {
        // One call, so that no connection keeps the servers from stopping.
        let client = client.lock().unwrap().take();
        let mut request = Request::new(request(&name));
        *request.metadata_mut() = outgoing.clone();
        async move {
            let reply = client.unwrap().say_hello(request).await?;
            Ok(reply.into_inner())
        }
    });
    front.serve().await
}

/// What the next hop received, and Sentry.
fn call(world: &World, incoming: &Headers<'_>, outgoing: &Headers<'_>) -> (HeaderMap, Received) {
    let headers = world.run(async {
        let (next, arrivals) = Scripted::new().serve_unobserved().await;
        let front = serve_front(&next, outgoing).await;
        let mut client = front.client().await;
        let request = with_headers(request("a"), incoming);
        client.say_hello(request).await.unwrap();
        drop(client);
        front.stop().await;
        next.stop().await;
        arrivals.recv().unwrap()
    });
    (headers, world.received())
}

fn seen(world: &World, incoming: &Headers<'_>, outgoing: &Headers<'_>) -> Seen {
    let (headers, received) = call(world, incoming, outgoing);
    let [header] = values(&headers, "sentry-trace").try_into().unwrap();
    let parts: Vec<&str> = header.split('-').collect();
    let (trace_id, span_id) = (parts[0], parts[1]);
    let continued = trace_id == TRACE;
    if let Some(transaction) = received.transactions.first() {
        let trace = trace(transaction);
        assert_eq!(trace.trace_id.to_string(), trace_id);
        let parent = trace.parent_span_id.map(|id| id.to_string());
        assert_eq!(parent.as_deref(), continued.then_some(SPAN));
        // The next hop hangs below the call to it.
        let [span] = transaction.spans.as_slice() else {
            panic!("{:?}", transaction.spans)
        };
        assert_eq!(span.op.as_deref(), Some("grpc.client"));
        assert_eq!(span.span_id.to_string(), span_id);
    }
    let normalize = |value: &mut Value| {
        let Some(context) = value.as_object_mut() else {
            return;
        };
        if !continued {
            context.insert("trace_id".to_owned(), "TRACE".into());
            context.insert("sample_rand".to_owned(), "RAND".into());
        }
    };
    let envelope = received.contexts.into_iter().next().map(|mut context| {
        normalize(&mut context);
        context
    });
    let normalized = |value: String| match continued {
        true => value,
        false => normalized(&value, trace_id),
    };
    Seen {
        continued,
        flag: parts.get(2).copied().unwrap_or_default().to_owned(),
        baggage: values(&headers, "baggage")
            .into_iter()
            .map(normalized)
            .collect(),
        envelope,
    }
}

fn service(options: ClientOptions) -> ClientOptions {
    options
        .dsn("https://key@o42.ingest.sentry.io/1")
        .release("front@1.0")
        .environment("tests")
        .traces_sample_rate(1.0)
}

const OWN_BAGGAGE: &str = "sentry-trace_id=TRACE,sentry-public_key=key,sentry-sample_rate=1,\
     sentry-sample_rand=RAND,sentry-sampled=true,sentry-org_id=42,sentry-environment=tests,\
     sentry-release=front%401.0,sentry-transaction=/helloworld.Greeter/SayHello";

fn own_envelope() -> Value {
    json!({
        "trace_id": "TRACE",
        "public_key": "key",
        "sample_rate": "1",
        "sample_rand": "RAND",
        "sampled": "true",
        "release": "front@1.0",
        "environment": "tests",
        "transaction": "/helloworld.Greeter/SayHello",
        "org_id": "42",
    })
}

fn head() -> Seen {
    Seen {
        continued: false,
        flag: "1".to_owned(),
        baggage: vec![OWN_BAGGAGE.to_owned()],
        envelope: Some(own_envelope()),
    }
}

fn continued(flag: &str, baggage: &[&str], envelope: Option<Value>) -> Seen {
    Seen {
        continued: true,
        flag: flag.to_owned(),
        baggage: baggage.iter().map(|&value| value.to_owned()).collect(),
        envelope,
    }
}

const VALID: &[u8] = b"09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1";
const UNSAMPLED: &[u8] = b"09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-0";
const DEFERRED: &[u8] = b"09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a";
const BAGGAGE: &str = "sentry-trace_id=09e04486820349518ac7b5d2adbf6ba5,sentry-public_key=head";

#[test]
fn headers_that_continue_no_trace_begin_one() {
    for incoming in [
        &[][..],
        &[("baggage", BAGGAGE.as_bytes())],
        &[("sentry-trace", b"nonsense"), ("baggage", b"sentry-x=1")],
        &[("sentry-trace", b"1")],
        &[(
            "sentry-trace",
            b"00000000000000000000000000000000-9cf635fa5b870b3a-1",
        )],
        &[(
            "sentry-trace",
            b"09e04486820349518ac7b5d2adbf6ba5-0000000000000000-1",
        )],
        &[(
            "sentry-trace",
            b"09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-2",
        )],
        &[("sentry-trace", b"\xff09e04486820349518ac7b5d2adbf6ba5")],
        // Another organization's.
        &[("sentry-trace", VALID), ("baggage", b"sentry-org_id=43")],
        &[
            ("sentry-trace", VALID),
            (
                "baggage",
                b"sentry-org_id=43,sentry-trace_id=11111111111111111111111111111111",
            ),
        ],
        // Other vendors' baggage is not passed on.
        &[("baggage", b"vendor=1")],
    ] {
        let world = World::with(service, |layer| layer);
        assert_eq!(seen(&world, incoming, &[]), head(), "{incoming:?}");
    }
}

#[test]
fn a_trace_is_continued_with_its_sampling_context_byte_for_byte() {
    let context = |more: &[(&str, &str)]| {
        let mut context = json!({ "trace_id": TRACE, "public_key": "head" });
        for (key, value) in more {
            context[*key] = json!(value);
        }
        Some(context)
    };
    let list = |more: &str| format!("{BAGGAGE}{more}");
    let whole = list(
        ",sentry-sample_rate=0.1,sentry-sample_rand=0.012345,sentry-sampled=true,\
         sentry-release=web%401.0,sentry-environment=prod%20eu,sentry-transaction=%2Fhome,\
         sentry-org_id=42",
    );
    let exotic = list(
        ",sentry-sample_rate=0.1000,sentry-sample_rand=0.0123456789,sentry-replay_id=abc;p=1,\
         sentry-new_key=a%2Cb",
    );
    for (incoming, expected) in [
        // Frozen empty: an SDK that sends no baggage.
        (
            vec![("sentry-trace", VALID)],
            continued("1", &[], Some(Value::Null)),
        ),
        (
            vec![("sentry-trace", VALID), ("baggage", b"vendor=1".as_slice())],
            continued("1", &[], Some(Value::Null)),
        ),
        (
            vec![("sentry-trace", VALID), ("baggage", whole.as_bytes())],
            continued(
                "1",
                &[&whole],
                context(&[
                    ("sample_rate", "0.1"),
                    ("sample_rand", "0.012345"),
                    ("sampled", "true"),
                    ("release", "web@1.0"),
                    ("environment", "prod eu"),
                    ("transaction", "/home"),
                    ("org_id", "42"),
                ]),
            ),
        ),
        // What sentry-types cannot hold goes on, and is rounded for Sentry.
        (
            vec![("sentry-trace", VALID), ("baggage", exotic.as_bytes())],
            continued(
                "1",
                &[&exotic],
                context(&[("sample_rate", "0.1"), ("sample_rand", "0.012346")]),
            ),
        ),
        // Several values are one list, without the members of others.
        (
            vec![
                ("sentry-trace", VALID),
                (
                    "baggage",
                    b"vendor=1, sentry-trace_id=09e04486820349518ac7b5d2adbf6ba5",
                ),
                ("baggage", b"\xff=1"),
                ("baggage", b"sentry-public_key=head ,other=2"),
            ],
            continued("1", &[BAGGAGE], context(&[])),
        ),
        // Of several traces the first valid one counts.
        (
            vec![
                ("sentry-trace", b"nonsense".as_slice()),
                ("sentry-trace", VALID),
                ("sentry-trace", UNSAMPLED),
                ("baggage", BAGGAGE.as_bytes()),
            ],
            continued("1", &[BAGGAGE], context(&[])),
        ),
        // The decision of the head holds.
        (
            vec![("sentry-trace", UNSAMPLED), ("baggage", BAGGAGE.as_bytes())],
            continued("0", &[BAGGAGE], None),
        ),
        // One that is left to us is ours; the context stays as it is.
        (
            vec![("sentry-trace", DEFERRED), ("baggage", BAGGAGE.as_bytes())],
            continued("1", &[BAGGAGE], context(&[])),
        ),
        // Not enough for Sentry.
        (
            vec![("sentry-trace", VALID), ("baggage", b"sentry-release=1")],
            continued("1", &["sentry-release=1"], Some(Value::Null)),
        ),
        (
            vec![
                ("sentry-trace", VALID),
                (
                    "baggage",
                    b"sentry-trace_id=09e04486820349518ac7b5d2adbf6ba5,sentry-sampled=true",
                ),
            ],
            continued(
                "1",
                &["sentry-trace_id=09e04486820349518ac7b5d2adbf6ba5,sentry-sampled=true"],
                Some(Value::Null),
            ),
        ),
        // Of another trace.
        (
            vec![
                ("sentry-trace", VALID),
                (
                    "baggage",
                    b"sentry-trace_id=11111111111111111111111111111111,sentry-public_key=head",
                ),
            ],
            continued("1", &[], Some(Value::Null)),
        ),
        // Nothing that is malformed goes on as it came.
        (
            vec![
                ("sentry-trace", VALID),
                (
                    "baggage",
                    b"sentry-release=\"a\\b\",sentry-(x)=1,sentry-=2,;,=,sentry-a",
                ),
            ],
            continued("1", &["sentry-release=%22a%5Cb%22"], Some(Value::Null)),
        ),
    ] {
        let world = World::with(service, |layer| layer);
        assert_eq!(seen(&world, &incoming, &[]), expected, "{incoming:?}");
    }
}

#[test]
fn an_organization_continues_its_own_traces_and_if_strict_no_others() {
    const OURS: &[u8] = b"sentry-org_id=42";
    const THEIRS: &[u8] = b"sentry-org_id=43";
    const NONE: &[u8] = b"";
    const INVALID: &[u8] = b"sentry-org_id=many";
    for (dsn, org_id, strict, baggage, continues) in [
        ("o42", None, false, OURS, true),
        ("o42", None, false, THEIRS, false),
        ("o42", None, false, NONE, true),
        ("o42", None, false, INVALID, true),
        ("o42", None, true, OURS, true),
        ("o42", None, true, THEIRS, false),
        ("o42", None, true, NONE, false),
        ("o42", None, true, INVALID, false),
        // The option outranks the DSN.
        ("o42", Some(43), true, THEIRS, true),
        ("o42", Some(43), false, OURS, false),
        // Nobody knows ours.
        ("sentry", None, false, THEIRS, true),
        ("sentry", None, true, THEIRS, false),
        ("sentry", None, true, NONE, true),
        ("sentry", Some(43), true, THEIRS, true),
    ] {
        for rate in [Some(1.0), Some(0.0), None] {
            let world = World::with(
                |options| {
                    let dsn = format!("https://key@{dsn}.ingest.sentry.io/1");
                    let options = options.dsn(&dsn).strict_trace_continuation(strict);
                    let options = match org_id {
                        Some(id) => options.org_id(OrganizationId::from(id)),
                        None => options,
                    };
                    match rate {
                        Some(rate) => options.traces_sample_rate(rate),
                        None => options,
                    }
                },
                |layer| layer,
            );
            let incoming = [("sentry-trace", DEFERRED), ("baggage", baggage)];
            let (headers, _) = call(&world, &incoming, &[]);
            let case = format!("{dsn} {org_id:?} {strict} {baggage:?} {rate:?}");
            let trace = values(&headers, "sentry-trace");
            assert_eq!(trace[0].starts_with(TRACE), continues, "{case}");
        }
    }
}

#[test]
fn with_tracing_disabled_traces_go_on_and_begin_without_a_decision() {
    let disabled = |options: ClientOptions| {
        let mut options = service(options);
        options.traces_sampling_strategy = TracesSamplingStrategy::Disabled;
        options
    };
    let own = "sentry-trace_id=TRACE,sentry-public_key=key,sentry-sample_rand=RAND,\
               sentry-org_id=42,sentry-environment=tests,sentry-release=front%401.0";
    for (incoming, expected) in [
        (
            vec![],
            Seen {
                continued: false,
                flag: String::new(),
                baggage: vec![own.to_owned()],
                envelope: None,
            },
        ),
        (
            vec![("sentry-trace", VALID), ("baggage", BAGGAGE.as_bytes())],
            continued("1", &[BAGGAGE], None),
        ),
        (
            vec![("sentry-trace", UNSAMPLED), ("baggage", BAGGAGE.as_bytes())],
            continued("0", &[BAGGAGE], None),
        ),
        (
            vec![("sentry-trace", DEFERRED), ("baggage", BAGGAGE.as_bytes())],
            continued("", &[BAGGAGE], None),
        ),
        (vec![("sentry-trace", VALID)], continued("1", &[], None)),
    ] {
        let world = World::with(disabled, |layer| layer);
        assert_eq!(seen(&world, &incoming, &[]), expected, "{incoming:?}");
    }
}

#[test]
fn what_a_request_carries_stays_and_the_trace_is_replaced() {
    let others = |value: &str| {
        let mut seen = head();
        seen.baggage = vec![format!("{value},{OWN_BAGGAGE}")];
        seen
    };
    for (outgoing, expected) in [
        (
            &[("baggage", b"vendor=1".as_slice())][..],
            others("vendor=1"),
        ),
        (
            &[
                ("baggage", b"vendor=1;p , other = %2F;q = 2"),
                ("baggage", b"vendor=2=3"),
            ],
            others("vendor=1;p , other = %2F;q = 2,vendor=2=3"),
        ),
        // Somebody else's idea of the trace.
        (
            &[
                ("sentry-trace", VALID),
                ("sentry-trace", UNSAMPLED),
                ("baggage", b"sentry-trace_id=1,vendor=1,sentry-release=2"),
            ],
            others("vendor=1"),
        ),
    ] {
        let world = World::with(service, |layer| layer);
        assert_eq!(seen(&world, &[], outgoing), expected, "{outgoing:?}");
    }
}

#[test]
fn a_malformed_member_of_a_request_is_dropped_and_the_others_stay() {
    let with = |own: &str| Seen {
        baggage: vec![own.to_owned()],
        ..head()
    };
    for (outgoing, expected) in [
        (&[b"not-valid".as_slice()][..], with(OWN_BAGGAGE)),
        (
            &[b"not-valid,vendor=1;p, other = 2"],
            with(&format!("vendor=1;p, other = 2,{OWN_BAGGAGE}")),
        ),
        (
            &[
                b"vendor=1,,=,=1,a b=1,c(=1,d=\"1\",e=1 2,f=\\,g=%zz,h=1;,i=1;p q",
                b"sentry-release,\xff=1",
                b"\xff",
                b"other=2",
            ],
            with(&format!("vendor=1,other=2,{OWN_BAGGAGE}")),
        ),
    ] {
        let world = World::with(service, |layer| layer);
        let outgoing: Vec<_> = outgoing.iter().map(|value| ("baggage", *value)).collect();
        assert_eq!(seen(&world, &[], &outgoing), expected, "{outgoing:?}");
    }
    // Also where nothing is added.
    for (outgoing, expected) in [
        (b"not-valid,vendor=1".as_slice(), &["vendor=1"][..]),
        (b"not-valid", &[]),
    ] {
        let world = World::with(service, |layer| layer);
        let seen = seen(&world, &[("sentry-trace", VALID)], &[("baggage", outgoing)]);
        assert_eq!(seen, continued("1", expected, Some(Value::Null)));
    }
}

#[test]
fn what_goes_over_the_limits_is_left_out() {
    const LONG: &[u8] = &{
        let mut value = [b'v'; 8_000];
        value[1] = b'=';
        value
    };
    const MANY: &[u8] = &{
        let mut value = [b','; 3 * 62 - 1];
        let mut at = 0;
        while at < value.len() {
            value[at] = b'v';
            value[at + 1] = b'=';
            at += 3;
        }
        value
    };
    let first = |members: usize| {
        let own: Vec<&str> = OWN_BAGGAGE.split(',').take(members).collect();
        own.join(",")
    };
    for (outgoing, expected) in [(LONG, first(7)), (MANY, first(2))] {
        let world = World::with(service, |layer| layer);
        let seen = seen(&world, &[], &[("baggage", outgoing)]);
        let [value] = seen.baggage.as_slice() else {
            panic!("{} values", seen.baggage.len());
        };
        let others = str::from_utf8(outgoing).unwrap();
        let own = value.strip_prefix(others);
        assert_eq!(own, Some(&*format!(",{expected}")));
    }
    // Of an incoming context, too.
    let huge = format!("sentry-release={}", "r".repeat(8_200));
    let incoming = [
        ("sentry-trace", VALID),
        ("baggage", BAGGAGE.as_bytes()),
        ("baggage", huge.as_bytes()),
        ("baggage", b"sentry-environment=e"),
    ];
    let world = World::with(service, |layer| layer);
    let expected = format!("{BAGGAGE},sentry-environment=e");
    assert_eq!(seen(&world, &incoming, &[]).baggage, [expected]);
}

#[test]
fn a_name_is_settled_when_it_first_leaves() {
    let world = World::with(service, |layer| layer);
    let headers = world.run(async {
        let (next, arrivals) = Scripted::new().serve_unobserved().await;
        let client = next.observed_client(SentryClientLayer::new()).await;
        let span = tracing::info_span!(target: "test", "job", sentry.name = tracing::field::Empty);
        span.record("sentry.name", "first");
        let call = |mut client: ObservedClient| async move {
            client.say_hello(request("a")).await.unwrap();
        };
        use tracing::Instrument;
        call(client.clone()).instrument(span.clone()).await;
        span.record("sentry.name", "second");
        call(client).instrument(span).await;
        next.stop().await;
        let arrivals: Vec<HeaderMap> = arrivals.into_iter().collect();
        arrivals
    });
    let lists: Vec<_> = headers.iter().map(|h| values(h, "baggage")).collect();
    assert!(
        lists[0][0].ends_with(",sentry-transaction=first"),
        "{lists:?}"
    );
    assert_eq!(lists[0], lists[1]);
    let received = world.received();
    assert_eq!(received.only_tx().name, "second");
    assert_eq!(received.contexts[0]["transaction"], "first");
}

#[test]
fn outside_of_any_span_the_trace_is_that_of_the_scope() {
    let world = World::with(service, |layer| layer);
    let scope = Hub::run(std::sync::Arc::clone(&world.hub), || {
        sentry::configure_scope(|scope| {
            let (_, header) = scope.iter_trace_propagation_headers().next().unwrap();
            header
        })
    });
    let headers = world.run(async {
        let (next, arrivals) = Scripted::new().serve_unobserved().await;
        let layer = SentryClientLayer::new().only_if_parent(true);
        let mut client = next.observed_client(layer).await;
        client.say_hello(request("a")).await.unwrap();
        drop(client);
        next.stop().await;
        arrivals.recv().unwrap()
    });
    assert_eq!(world.received().txs(), []);
    let (trace_id, _) = scope.split_once('-').unwrap();
    let sent = values(&headers, "sentry-trace");
    assert!(sent[0].starts_with(trace_id), "{sent:?} {scope}");
    assert_eq!(sent[0].split('-').count(), 2, "no decision: {sent:?}");
    let baggage = values(&headers, "baggage");
    let own = "sentry-trace_id=TRACE,sentry-public_key=key,sentry-sample_rand=RAND,\
               sentry-org_id=42,sentry-environment=tests,sentry-release=front%401.0";
    assert_eq!(normalized(&baggage[0], trace_id), own);
}

#[test]
fn of_a_trace_without_a_context_no_other_one_goes_out() {
    let stale: &Headers<'_> = &[
        ("sentry-trace", UNSAMPLED),
        (
            "baggage",
            b"sentry-trace_id=11111111111111111111111111111111,vendor=1",
        ),
    ];
    let world = World::with(service, |layer| layer);
    let seen = seen(&world, &[("sentry-trace", VALID)], stale);
    assert_eq!(seen, continued("1", &["vendor=1"], Some(Value::Null)));
}
