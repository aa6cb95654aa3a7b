//! Throughput and latency over loopback, contestants side by side in turn.
//!
//! `wall [<rounds>]`

use std::time::Duration;

use benches::contestant::{Contestant, Sampling};
use benches::obedient::{Obedient, cpu_seconds};
use benches::over_loopback::Pair;
use benches::table::{Table, median};
use benches::{Error, allocator, setup};
use tokio::runtime::Runtime;

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(400);

/// Name, middleware of the server, of the client, sampling.
const CONTESTS: [(&str, Contestant, Contestant, Sampling); 12] = {
    use Contestant::{
        Bare, Ours, OursWithTraceTransport, PlainSpan, SentryTower, TonicOtel, TowerHttp,
    };
    use Sampling::{Off, On};
    [
        // The first is what the others are compared with.
        ("bare", Bare, Bare, Off),
        ("plain span, no-op layer", PlainSpan, Bare, Off),
        ("sentry-tonic", Ours, Bare, Off),
        ("sentry-tonic", Ours, Bare, On),
        (
            "sentry-tonic with TraceTransport",
            OursWithTraceTransport,
            Bare,
            On,
        ),
        ("sentry-tonic, also in the client", Ours, Ours, Off),
        ("sentry-tonic, also in the client", Ours, Ours, On),
        ("sentry-tower + sentry-tracing", SentryTower, Bare, Off),
        ("sentry-tower + sentry-tracing", SentryTower, Bare, On),
        ("tower-http + sentry-tracing", TowerHttp, Bare, On),
        ("tonic-tracing-opentelemetry", TonicOtel, Bare, Off),
        ("tonic-tracing-opentelemetry", TonicOtel, Bare, On),
    ]
};

fn main() -> Result<(), Error> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => compare(ROUNDS),
        [rounds] => compare(rounds.parse()?),
        [server, client, sampling] => obey(server.parse()?, client.parse()?, sampling.parse()?),
        _ => Err("usage: wall [<rounds>]".into()),
    }
}

fn compare(rounds: usize) -> Result<(), Error> {
    let mut contestants = Vec::new();
    for (_, server, client, sampling) in CONTESTS {
        let arguments = [server.name(), client.name(), sampling.name()];
        let mut contestant = Obedient::start(arguments)?;
        contestant.tell::<4>("call")?;
        contestants.push(contestant);
    }
    let mut told = Vec::new();
    for round in 0..rounds.max(1) {
        let mut of_round = vec![[0.0; 4]; contestants.len()];
        // Not in the order of the table: who follows whom may matter.
        for number in 0..contestants.len() {
            let place = (number * 7 + round) % contestants.len();
            of_round[place] = contestants[place].tell("call")?;
        }
        told.push(of_round);
    }
    let mut table = Table::new([
        "server",
        "",
        "calls/s",
        "of bare",
        "CPU for each call",
        "of bare",
        "p50",
        "p99",
    ]);
    for (place, (name, _, _, sampling)) in CONTESTS.into_iter().enumerate() {
        let of = |what: usize| median(told.iter().map(|round| round[place][what]));
        let of_bare =
            |what: usize| median(told.iter().map(|round| round[place][what] / round[0][what]));
        table.add([
            name.to_owned(),
            sampling.name().to_owned(),
            format!("{:.0}", of(0)),
            format!("{:.1} %", of_bare(0) * 100.0),
            format!("{:.1} us", of(1)),
            format!("{:.1} %", of_bare(1) * 100.0),
            format!("{:.2} ms", of(2)),
            format!("{:.2} ms", of(3)),
        ]);
    }
    println!("### Over loopback, 64 concurrent calls, medians of {rounds} rounds\n\n{table}");
    Ok(())
}

fn obey(server: Contestant, client: Contestant, sampling: Sampling) -> Result<(), Error> {
    allocator::stop_counting();
    let _running = setup::set_up(server, sampling);
    let runtime = Runtime::new()?;
    let pair = runtime.block_on(Pair::start(server, client))?;
    for line in std::io::stdin().lines() {
        line?;
        let before = cpu_seconds()?;
        let round = runtime.block_on(pair.call_for(ROUND))?;
        let cpu = (cpu_seconds()? - before) * 1_000_000.0 / round.calls as f64;
        let [p50, p99] = [round.p50, round.p99].map(|latency| latency.as_secs_f64() * 1_000.0);
        println!("{} {cpu} {p50} {p99}", round.calls_per_second);
    }
    Ok(())
}
