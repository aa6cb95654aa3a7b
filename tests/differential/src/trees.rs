//! Carries out plans, one step after the other.

use std::io::{Write, stderr, stdout};
use std::panic;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use sentry::Hub;
use serde_json::{Value, json};
use tracing::dispatcher;

use crate::apply;
use crate::cover::Cover;
use crate::generate::{self, WORKERS};
use crate::line;
use crate::plan::Plan;
use crate::times::Times;
use crate::watchdog;
use crate::world::{self, RATES, Rate, World};

const THREADS: [usize; 2] = [1, WORKERS];

/// A family of trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Whole,
    /// Transactions are cut into parts.
    Parts,
}

impl Family {
    fn plan(self, seed: u64) -> Arc<Plan> {
        Arc::new(match self {
            Self::Whole => generate::plan(seed),
            Self::Parts => generate::plan_of_parts(seed),
        })
    }
}

/// Prints a line for each tree.
pub(crate) fn print(family: Family, seeds: impl Iterator<Item = u64>) {
    begin();
    let mut cover = Cover::default();
    for seed in seeds {
        let plan = family.plan(seed);
        cover.plan(&plan);
        for line in lines(family, &plan, seed) {
            cover.line(&line);
            let _ = writeln!(stdout(), "{line}");
        }
    }
    let _ = write!(stderr(), "{cover}");
}

/// Prints the plan of a seed, and its trees.
pub(crate) fn show(family: Family, seed: u64) {
    begin();
    let plan = family.plan(seed);
    let _ = writeln!(stdout(), "{:#?}", plan.setup);
    for (index, step) in plan.steps.iter().enumerate() {
        let worker = step.worker;
        let _ = writeln!(stdout(), "@{} worker {worker}: {:?}", index + 2, step.op);
    }
    for line in lines(family, &plan, seed) {
        let _ = writeln!(stdout(), "{line:#}");
    }
}

fn begin() {
    // Expected panics are part of the trees.
    panic::set_hook(Box::new(|_| {}));
    let _ = Hub::main();
    world::install_trace_transport();
    watchdog::start();
}

fn lines(family: Family, plan: &Arc<Plan>, seed: u64) -> impl Iterator<Item = Value> {
    let rates = match family {
        Family::Whole => &RATES[..],
        // Nothing else is cut.
        Family::Parts => &[Rate::All],
    };
    let cases = rates
        .iter()
        .flat_map(|rate| THREADS.map(|threads| (*rate, threads)));
    cases.map(move |(rate, threads)| {
        let name = format!("seed {seed}, rate {rate:?}, threads {threads}");
        watchdog::begin(&name);
        let tree = || tree(plan, seed, rate, threads);
        let line = apply::caught(tree).map(|(world, sent, times)| {
            line::of(&name, &sent, &world.seen, &times, family == Family::Parts)
        });
        line.unwrap_or_else(|panic| json!({"tree": name, "panic": panic}))
    })
}

type Played = (Arc<World>, Vec<Vec<u8>>, Times);

fn tree(plan: &Arc<Plan>, seed: u64, rate: Rate, threads: usize) -> Played {
    let mut times = Times::default();
    times.begin();
    let world = World::new(&plan.setup, seed, rate);
    let workers: Vec<_> = (0..threads)
        .map(|index| Worker::start(&world, plan, index))
        .collect();
    for (index, step) in plan.steps.iter().enumerate() {
        watchdog::step(index);
        times.begin();
        if let Some(worker) = workers.get(step.worker % threads) {
            worker.run(index);
        }
    }
    for worker in workers {
        worker.end();
    }
    times.begin();
    let sent = world.close();
    times.begin();
    (world, sent, times)
}

/// A thread that carries out the steps that it is given.
struct Worker {
    steps: Sender<usize>,
    done: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start(world: &Arc<World>, plan: &Arc<Plan>, index: usize) -> Self {
        let (steps, given) = channel::<usize>();
        let (carried_out, done) = channel();
        let (world, plan) = (Arc::clone(world), Arc::clone(plan));
        let hub = world.is_hub_current.then(|| match index {
            0 => Arc::clone(&world.hub),
            _ => Arc::new(Hub::new_from_top(&world.hub)),
        });
        let dispatch = world.dispatch.clone();
        let work = move || {
            while let Ok(index) = given.recv() {
                let Some(step) = plan.steps.get(index) else {
                    break;
                };
                if let Err(message) = apply::caught(|| apply::one(&world, &step.op)) {
                    world.saw(json!({"step": index + 2, "panicked": message}));
                }
                if carried_out.send(()).is_err() {
                    break;
                }
            }
        };
        let work = move || dispatcher::with_default(&dispatch, work);
        let thread = thread::spawn(|| match hub {
            Some(hub) => Hub::run(hub, work),
            None => work(),
        });
        Self {
            steps,
            done,
            thread,
        }
    }

    fn run(&self, index: usize) {
        let _ = self.steps.send(index);
        let _ = self.done.recv();
    }

    fn end(self) {
        drop(self.steps);
        let _ = self.thread.join();
    }
}
