//! What a call costs with more spans open elsewhere, from more tasks, and on more threads.
//!
//! `scaling [<rounds>]`

use std::collections::HashMap;
use std::io;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use benches::contestant::{Contestant, Sampling};
use benches::crowd::{Amid, Calls, Crowd, Threads};
use benches::obedient::{Obedient, cpu_seconds};
use benches::table::{Table, median, short};
use benches::work::{Step, Work};
use benches::{Error, allocator, child, in_process, setup};

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(300);

/// The first is what the others come on top of.
const CONTESTS: [(&str, Contestant, Sampling); 6] = {
    use Contestant::{Bare, Ours, PlainSpan, SentryTower};
    use Sampling::{Off, On};
    [
        ("bare", Bare, Off),
        ("plain span, no-op layer", PlainSpan, Off),
        ("sentry-tonic", Ours, Off),
        ("sentry-tonic", Ours, On),
        ("sentry-tower + sentry-tracing", SentryTower, Off),
        ("sentry-tower + sentry-tracing", SentryTower, On),
    ]
};

const CROWDS: [Crowd; 6] = [
    Crowd::OpenSpans(0),
    Crowd::OpenSpans(1_000),
    Crowd::OpenSpans(100_000),
    Crowd::Tasks(1),
    Crowd::Tasks(1_000),
    Crowd::Tasks(10_000),
];

/// The first is what the others are compared with.
const THREADS: [usize; 4] = [1, 2, 4, 8];

fn main() -> Result<(), Error> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => compare(ROUNDS),
        [rounds] => compare(rounds.parse()?),
        [contestant, sampling] => obey(contestant.parse()?, sampling.parse()?),
        [contestant, sampling, crowd, number] => {
            let crowd = Crowd::from_arguments([crowd, number])?;
            call_amid(contestant.parse()?, sampling.parse()?, crowd)
        }
        _ => Err("usage: scaling [<rounds>]".into()),
    }
}

fn compare(rounds: usize) -> Result<(), Error> {
    let counted = count()?;
    let measured = measure(rounds.max(1))?;
    let header = ["server", ""].map(str::to_owned);
    let crowds = CROWDS
        .map(|crowd| crowd.to_arguments())
        .map(|[what, number]| format!("{number} {what}"));
    let threads = THREADS
        .iter()
        .map(|threads| format!("{threads} threads: calls/s, CPU, waits"));
    let mut table = Table::new(header.into_iter().chain(crowds).chain(threads));
    for (place, (name, _, sampling)) in CONTESTS.into_iter().enumerate() {
        let of_crowds = (0..CROWDS.len()).map(|crowd| {
            let of = |place| counted[&(place, crowd)];
            let bare = if place == 0 { 0.0 } else { of(0) };
            short(of(place) - bare)
        });
        let of_threads = (0..THREADS.len()).map(|threads| {
            let rounds = || measured.iter().map(|round| &round[place]);
            let first = |what: fn(&Round) -> f64| median(rounds().map(|of| what(&of[0])));
            let ratio = |what: fn(&Round) -> f64| {
                median(rounds().map(|of| what(&of[threads]) / what(&of[0])))
            };
            let calls = |round: &Round| round.calls_per_second;
            let cpu = |round: &Round| round.cpu;
            let waits = median(rounds().map(|of| of[threads].waits));
            match threads {
                0 => format!("{}, {:.1} us, {waits:.0}", short(first(calls)), first(cpu)),
                _ => format!("x {:.2}, x {:.2}, {waits:.0}", ratio(calls), ratio(cpu)),
            }
        });
        let names = [name, sampling.name()].map(str::to_owned);
        table.add(names.into_iter().chain(of_crowds).chain(of_threads));
    }
    println!("### Scaling: instructions that each adds to a call, and threads\n\n{table}");
    Ok(())
}

/// Instructions of a call, by the places of the contest and of the crowd.
fn count() -> Result<HashMap<(usize, usize), f64>, Error> {
    let contests = 0..CONTESTS.len();
    let all = contests.flat_map(|contest| (0..CROWDS.len()).map(move |crowd| (contest, crowd)));
    let waiting = Mutex::new(all);
    let counted = Mutex::new(HashMap::new());
    let work_off = || -> Result<(), Error> {
        loop {
            let next = waiting.lock().expect("nobody panics").next();
            let Some((contest, crowd)) = next else {
                return Ok(());
            };
            let (_, contestant, sampling) = CONTESTS[contest];
            let instructions = instructions(contestant, sampling, CROWDS[crowd])?;
            let mut counted = counted.lock().expect("nobody panics");
            counted.insert((contest, crowd), instructions);
        }
    };
    let threads = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work_off)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("nobody panics"))
    })?;
    Ok(counted.into_inner()?)
}

fn instructions(contestant: Contestant, sampling: Sampling, crowd: Crowd) -> Result<f64, Error> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([contestant.name(), sampling.name()])
        .args(crowd.to_arguments());
    Ok(child::instructions(&command)? / f64::from(crowd.calls()))
}

fn call_amid(contestant: Contestant, sampling: Sampling, crowd: Crowd) -> Result<(), Error> {
    let _running = setup::set_up(contestant, sampling);
    let greeter = in_process::greeter(contestant, crowd.work());
    let runtime = in_process::runtime()?;
    contestant.serve(
        greeter,
        Amid {
            crowd,
            sampling,
            runtime,
        },
    );
    // It would take longer than all of that to end what is open.
    std::process::exit(0);
}

struct Round {
    calls_per_second: f64,
    /// Microseconds for a call.
    cpu: f64,
    /// In a million calls.
    waits: f64,
}

/// By round, contest and number of threads.
type Measured = Vec<Vec<Vec<Round>>>;

fn measure(rounds: usize) -> Result<Measured, Error> {
    let mut contestants = Vec::new();
    for (_, contestant, sampling) in CONTESTS {
        contestants.push(Obedient::start([contestant.name(), sampling.name()])?);
    }
    let mut round = || -> Result<Vec<Vec<Round>>, Error> {
        let mut of_round = Vec::new();
        for contestant in &mut contestants {
            let mut of_contestant = Vec::new();
            for threads in THREADS {
                let [calls_per_second, cpu, waits] = contestant.tell(&threads.to_string())?;
                of_contestant.push(Round {
                    calls_per_second,
                    cpu,
                    waits,
                });
            }
            of_round.push(of_contestant);
        }
        Ok(of_round)
    };
    // After which all is warm.
    round()?;
    (0..rounds).map(|_| round()).collect()
}

fn obey(contestant: Contestant, sampling: Sampling) -> Result<(), Error> {
    allocator::stop_counting();
    let _running = setup::set_up(contestant, sampling);
    let greeter = in_process::greeter(contestant, Work::new(1, Step::Child, 0));
    let mut orders = io::stdin().lines();
    let mut before = 0.0;
    let orders = |made: Option<Calls>| {
        let now = cpu_seconds().expect("Linux tells");
        if let Some(calls) = made {
            let number = calls.number as f64;
            let cpu = (now - before) * 1e6 / number;
            let waits = calls.waits as f64 * 1e6 / number;
            println!("{} {cpu} {waits}", number / calls.seconds);
        }
        let threads = orders.next()?.ok()?.parse().ok();
        before = cpu_seconds().expect("Linux tells");
        threads
    };
    contestant.serve(
        greeter,
        Threads {
            sampling,
            time: ROUND,
            orders,
        },
    );
    Ok(())
}
