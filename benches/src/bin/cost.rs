//! Instructions and allocations that each contestant adds to a call, in process.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use benches::Error;
use benches::cases::{self, Case};
use benches::child;
use benches::contestant::{Contestant, Sampling};
use benches::table::{Table, short};
use benches::work::Work;

/// With the crate's feature `opentelemetry` or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Build {
    Default,
    Otel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Stack {
    contestant: Contestant,
    build: Build,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Run {
    stack: Stack,
    sampling: Sampling,
    work: Work,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    instructions: f64,
    allocations: f64,
}

type Counted = HashMap<Run, Counts>;

const BARE: Stack = stack(Contestant::Bare);
const OURS: Stack = stack(Contestant::Ours);

const STACKS: [(&str, Stack); 5] = [
    ("plain span, no-op layer", stack(Contestant::PlainSpan)),
    ("sentry-tonic", OURS),
    (
        "sentry-tower + sentry-tracing",
        stack(Contestant::SentryTower),
    ),
    ("tower-http + sentry-tracing", stack(Contestant::TowerHttp)),
    ("tonic-tracing-opentelemetry", stack(Contestant::TonicOtel)),
];

const VARIANTS: [(&str, Stack); 7] = [
    ("sentry-tonic", OURS),
    (
        "with TraceTransport",
        stack(Contestant::OursWithTraceTransport),
    ),
    ("behind a filter", stack(Contestant::OursFiltered)),
    (
        "plain span behind a filter",
        stack(Contestant::PlainSpanFiltered),
    ),
    ("with feature opentelemetry", otel_stack(Contestant::Ours)),
    (
        "with OpenTelemetry's layer",
        otel_stack(Contestant::OursWithOtel),
    ),
    (
        "that layer alone",
        otel_stack(Contestant::MiddlewareWithOtel),
    ),
];

const fn stack(contestant: Contestant) -> Stack {
    Stack {
        contestant,
        build: Build::Default,
    }
}

const fn otel_stack(contestant: Contestant) -> Stack {
    Stack {
        contestant,
        build: Build::Otel,
    }
}

fn main() -> Result<(), Error> {
    let cases = cases::all();
    let counted = count(&cases)?;
    println!("### Instructions / allocations added\n");
    println!("{}", table(cases.iter(), &counted, &STACKS));
    println!("### Variants of sentry-tonic\n");
    let for_variants = cases.iter().filter(|case| case.is_for_variants());
    println!("{}", table(for_variants, &counted, &VARIANTS));
    Ok(())
}

impl Run {
    fn of(stack: Stack, sampling: Sampling, work: Work) -> Option<Self> {
        let contestant = stack.contestant;
        let is_client = work.step.is_of_client() && work.times > 0;
        if is_client && !contestant.has_client() {
            return None;
        }
        let samples = contestant.is_on_sentry() || contestant.is_on_otel();
        if sampling == Sampling::NoClient && contestant.is_on_otel() {
            return None;
        }
        Some(Self {
            stack,
            // All the same to who does not sample, but for the trace that comes with a call.
            sampling: if samples || work.is_continued {
                sampling
            } else {
                Sampling::Off
            },
            work,
        })
    }

    fn count(&self) -> Result<Counts, Error> {
        let program = self.program()?;
        let arguments = [self.stack.contestant.name(), self.sampling.name()]
            .map(str::to_owned)
            .into_iter()
            .chain(self.work.to_arguments());
        let arguments: Vec<_> = arguments.collect();
        let allocations = child::output(Command::new(&program).args(&arguments))?;
        let instructions = child::instructions(Command::new(&program).args(&arguments))?;
        Ok(Counts {
            instructions,
            allocations: allocations.trim().parse()?,
        })
    }

    fn program(&self) -> Result<PathBuf, Error> {
        let name = match self.stack.build {
            Build::Default => "case",
            Build::Otel => "case-with-otel",
        };
        Ok(std::env::current_exe()?.with_file_name(name))
    }
}

/// Counts do not depend on what else the machine does.
fn count(cases: &[Case]) -> Result<Counted, Error> {
    let mut runs: HashSet<Run> = HashSet::new();
    for case in cases {
        let variants = if case.is_for_variants() {
            &VARIANTS[..]
        } else {
            &[]
        };
        let stacks = STACKS.iter().chain(variants).map(|(_, stack)| *stack);
        for stack in stacks.chain([BARE]) {
            let works = [Some(case.more), case.less].into_iter().flatten();
            runs.extend(works.filter_map(|work| Run::of(stack, case.sampling, work)));
        }
    }
    let waiting = Mutex::new(runs.into_iter());
    let counted = Mutex::new(Counted::new());
    let work_off = || -> Result<(), Error> {
        loop {
            let next = waiting.lock().expect("nobody panics").next();
            let Some(run) = next else { return Ok(()) };
            let counts = run.count()?;
            counted.lock().expect("nobody panics").insert(run, counts);
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

fn table<'a>(
    cases: impl Iterator<Item = &'a Case>,
    counted: &Counted,
    stacks: &[(&str, Stack)],
) -> Table {
    let header = ["case", "", "bare"].into_iter();
    let mut table = Table::new(header.chain(stacks.iter().map(|(name, _)| *name)));
    for case in cases {
        let cost = |stack| cost(case, counted, stack);
        let Some(bare) = cost(BARE) else { continue };
        let added = |stack| Some(cost(stack)? - bare);
        let ours = added(OURS);
        let cells = stacks.iter().map(|(_, stack)| match (added(*stack), ours) {
            (None, _) => "-".to_owned(),
            (Some(counts), Some(ours)) if *stack != OURS => {
                format!(
                    "{counts} ({:.2}x)",
                    (counts.instructions / ours.instructions).max(0.0)
                )
            }
            (Some(counts), _) => counts.to_string(),
        });
        let names = [case.name.to_owned(), case.sampling.name().to_owned()];
        table.add(names.into_iter().chain([bare.to_string()]).chain(cells));
    }
    table
}

/// `None` where the stack has nothing for the case.
fn cost(case: &Case, counted: &Counted, stack: Stack) -> Option<Counts> {
    let of = |work| counted.get(&Run::of(stack, case.sampling, work)?).copied();
    let more = of(case.more)?;
    let less = match case.less {
        Some(work) => of(work)?,
        None => Counts::default(),
    };
    let difference = more - less;
    let parts = f64::from(case.parts);
    Some(Counts {
        instructions: difference.instructions / parts,
        allocations: difference.allocations / parts,
    })
}

impl std::ops::Sub for Counts {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            instructions: self.instructions - other.instructions,
            allocations: self.allocations - other.allocations,
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} / {}",
            short(self.instructions),
            short(self.allocations)
        )
    }
}
