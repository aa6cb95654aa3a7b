//! Throughput and latency over loopback, contestants side by side in turn.
//!
//! `wall [<rounds>]`

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use benches::contestant::{Contestant, Sampling};
use benches::over_loopback::Pair;
use benches::table::Table;
use benches::{Error, child, setup};
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
        let mut contestant = Process::start(server, client, sampling)?;
        contestant.round()?;
        contestants.push(contestant);
    }
    let mut told = Vec::new();
    for round in 0..rounds.max(1) {
        let mut of_round = vec![[0.0; 4]; contestants.len()];
        // Not in the order of the table: who follows whom may matter.
        for number in 0..contestants.len() {
            let place = (number * 7 + round) % contestants.len();
            of_round[place] = contestants[place].round()?;
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

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_unstable_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// One contestant, which calls itself when it is told to.
struct Process {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Process {
    fn start(server: Contestant, client: Contestant, sampling: Sampling) -> Result<Self, Error> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([server.name(), client.name(), sampling.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let to = child.stdin.take().ok_or("no stdin")?;
        let from = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        Ok(Self { child, to, from })
    }

    /// Calls per second, microseconds of CPU for each, p50 and p99 in milliseconds.
    fn round(&mut self) -> Result<[f64; 4], Error> {
        writeln!(self.to, "call")?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        let numbers: Vec<f64> = child::numbers(&line)?;
        numbers
            .try_into()
            .map_err(|_| format!("not a round: {line}").into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn obey(server: Contestant, client: Contestant, sampling: Sampling) -> Result<(), Error> {
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

/// What all threads of this process have used, which depends less on other processes than
/// the time on the clock.
fn cpu_seconds() -> Result<f64, Error> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in brackets, may have spaces.
    let (_, after) = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let ticks: Vec<f64> = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}
