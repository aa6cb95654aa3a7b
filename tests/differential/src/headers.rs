//! Headers of traces that come from elsewhere.

use crate::choices::Choices;
use crate::plan::Pairs;

/// With this begins each id that a seed decides. All others are random.
pub(crate) const KNOWN: &str = "5eed5eed";

/// None, whole, or malformed.
pub(crate) fn incoming(choices: &mut Choices) -> Pairs {
    let trace_id = format!("{KNOWN}{:08x}{:016x}", choices.next() >> 32, choices.next());
    let span_id = format!("{KNOWN}{:08x}", choices.next() >> 32);
    let flag = choices.pick(&["", "-0", "-1", "-1"]);
    let sentry_trace = format!("{trace_id}-{span_id}{flag}");
    let w3c_flag = choices.pick(&["00", "01"]);
    let traceparent = format!("00-{trace_id}-{span_id}-{w3c_flag}");
    let baggage = baggage(choices, &trace_id, flag);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    match choices.weighted(&[6, 5, 9, 3, 3, 2, 2, 8]) {
        0 => vec![],
        1 => vec![pair("sentry-trace", &sentry_trace)],
        2 => vec![
            pair("sentry-trace", &sentry_trace),
            pair("baggage", &baggage),
        ],
        3 => vec![pair("traceparent", &traceparent)],
        4 => vec![
            pair("traceparent", &traceparent),
            pair("tracestate", "vendor=1,other=a:b"),
            pair("baggage", "userId=alice,serverNode=DF%2028;x=1"),
        ],
        5 => vec![
            pair("baggage", "other-vendor=1"),
            pair("sentry-trace", &sentry_trace),
            pair("baggage", &baggage),
            pair("traceparent", &traceparent),
        ],
        6 => vec![pair("baggage", &baggage)],
        _ => malformed(choices, &sentry_trace, &baggage, &span_id),
    }
}

fn malformed(choices: &mut Choices, sentry_trace: &str, baggage: &str, span_id: &str) -> Pairs {
    let zeros = "0".repeat(32);
    let bad = choices.pick(&[
        String::new(),
        "-".to_owned(),
        zeros.clone(),
        format!("{zeros}-{span_id}-1"),
        format!("{}-0000000000000000-1", &sentry_trace[..32]),
        sentry_trace[..40].to_owned(),
        format!("{sentry_trace}-1-1"),
        sentry_trace.to_uppercase(),
        format!("  {sentry_trace} "),
        sentry_trace.replace('5', "z"),
    ]);
    let bad_baggage = choices.pick(&[
        "sentry-sample_rate=NaN,sentry-sample_rand=2,sentry-sampled=maybe".to_owned(),
        format!("sentry-trace_id=%zz,,=,;{baggage}"),
        format!("sentry-trace_id={span_id},sentry-environment=%C3%28"),
        "x".repeat(9000),
        baggage.replace('=', " = "),
    ]);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    match choices.below(4) {
        0 => vec![pair("sentry-trace", &bad)],
        1 => vec![pair("sentry-trace", &bad), pair("baggage", baggage)],
        2 => vec![
            pair("sentry-trace", sentry_trace),
            pair("baggage", &bad_baggage),
        ],
        _ => vec![
            pair("traceparent", &format!("00-{bad}-01")),
            pair("baggage", &bad_baggage),
        ],
    }
}

fn baggage(choices: &mut Choices, trace_id: &str, flag: &str) -> String {
    let rate = choices.pick(&["0.25", "0.5", "1", "0"]);
    let mut members = vec![
        format!("sentry-trace_id={trace_id}"),
        "sentry-public_key=head".to_owned(),
        format!("sentry-sample_rate={rate}"),
    ];
    if choices.percent(70) {
        let rand = choices.below(1_000_000);
        members.push(format!("sentry-sample_rand=0.{rand:06}"));
    }
    if !flag.is_empty() {
        members.push(format!("sentry-sampled={}", flag == "-1"));
    }
    for extra in [
        "sentry-release=head%401.0",
        "sentry-environment=prod",
        "sentry-transaction=%2Fhead",
        "third=party",
    ] {
        if choices.percent(50) {
            members.push(extra.to_owned());
        }
    }
    members.join(",")
}
