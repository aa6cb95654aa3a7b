//! Makes a plan from a seed.

use std::time::Duration;

use tracing::Level;

use crate::choices::Choices;
use crate::headers::incoming;
use crate::orders::Phase;
use crate::plan::{AROUND, Call, HubMode, Number, Op, PART, Plan, Setup, Side, Spawned, Step};

/// As many threads as a plan may have.
pub(crate) const WORKERS: usize = 4;

/// What is there to choose from, and the steps so far.
pub(crate) struct Generator {
    pub(crate) choices: Choices,
    /// Whether transactions are cut meanwhile.
    pub(crate) has_parts: bool,
    last: Number,
    pub(crate) spans: Vec<Number>,
    pub(crate) hubs: Vec<Number>,
    pub(crate) app_spans: Vec<Number>,
    pub(crate) tasks: Vec<(Number, Phase)>,
    entered: Vec<(usize, Number)>,
    steps: Vec<Step>,
}

pub(crate) fn plan(seed: u64) -> Plan {
    let mut choices = Choices::new(seed);
    let setup = setup(&mut choices);
    let mut generator = Generator::new(choices, &setup);
    let len = generator.choices.between(8, 48);
    for _ in 0..len {
        generator.step();
    }
    generator.finish();
    Plan {
        setup,
        steps: generator.steps,
    }
}

/// A plan with time for transactions to be cut into parts, and with nothing of which the outcome
/// depends on when they are.
pub(crate) fn plan_of_parts(seed: u64) -> Plan {
    let mut choices = Choices::new(seed);
    let setup = Setup {
        parts: Some(PART),
        is_around: false,
        max_breadcrumbs: 100,
        ..setup(&mut choices)
    };
    let mut generator = Generator::new(choices, &setup);
    generator.has_parts = true;
    for _ in 0..3 {
        for _ in 0..generator.choices.between(4, 10) {
            generator.step();
        }
        generator.push(Op::Wait);
    }
    generator.finish();
    // A cut that goes on at the end sends the last part.
    generator.push(Op::Wait);
    Plan {
        setup,
        steps: generator.steps,
    }
}

fn setup(choices: &mut Choices) -> Setup {
    use HubMode::{Current, Main, Pinned, PinnedAndCurrent};
    Setup {
        hub: choices.pick(&[Pinned, Current, Current, PinnedAndCurrent, Main, Main]),
        has_trace_transport: choices.percent(40),
        by_sampler: choices.percent(40),
        sessions: choices.percent(25),
        pii: choices.percent(25),
        max_breadcrumbs: choices.pick(&[100, 100, 100, 3, 0]),
        before_send: choices.percent(20),
        before_breadcrumb: choices.percent(20),
        panic_integration: choices.percent(3),
        release: choices.percent(75),
        span_level: choices.pick(&[Level::INFO, Level::INFO, Level::DEBUG, Level::WARN]),
        breadcrumb_level: choices.pick(&[Level::INFO, Level::INFO, Level::DEBUG, Level::WARN]),
        capture_errors: choices.percent(80),
        deduplicate: choices.percent(75),
        // Longer than any tree takes: nothing is cut.
        parts: choices.percent(25).then_some(Duration::from_secs(3_600)),
        panic_policy: choices.weighted(&[3, 1, 1]),
        traceparent: choices.percent(30),
        only_if_parent: choices.percent(15),
        force_transaction: choices.percent(20),
        is_around: choices.percent(20),
    }
}

impl Generator {
    fn new(choices: Choices, setup: &Setup) -> Self {
        Self {
            choices,
            has_parts: false,
            last: AROUND,
            spans: vec![],
            hubs: vec![],
            app_spans: vec![AROUND; usize::from(setup.is_around)],
            tasks: vec![],
            entered: vec![],
            steps: vec![],
        }
    }

    pub(crate) fn number(&mut self) -> Number {
        self.last += 1;
        self.last
    }

    fn push(&mut self, op: Op) {
        let worker = self.choices.below(WORKERS);
        self.steps.push(Step { worker, op });
    }

    /// One step, which threads carry out from their own code.
    fn step(&mut self) {
        match self.choices.weighted(&[30, 16, 10, 12, 6, 26, 4]) {
            0 => {
                for op in self.ops(3, 2) {
                    self.push(op);
                }
            }
            1 => {
                if let Some(span) = self.choices.recent(&self.spans) {
                    let worker = self.choices.below(WORKERS);
                    self.entered.push((worker, span));
                    let op = Op::Enter(span);
                    self.steps.push(Step { worker, op });
                }
            }
            2 => {
                let order: Vec<usize> = (0..self.entered.len()).collect();
                if let Some(at) = self.choices.recent(&order) {
                    let (worker, span) = self.entered.remove(at);
                    let op = Op::Exit(span);
                    self.steps.push(Step { worker, op });
                }
            }
            3 => self.call(),
            4 => self.spawn(),
            5 => {
                if let Some((task, _)) = self.choices.recent(&self.tasks) {
                    let orders = self.orders(task);
                    self.push(Op::Poll(task, orders));
                }
            }
            _ => {
                if let Some((task, _)) = self.choices.recent(&self.tasks)
                    && self.choices.percent(30)
                {
                    self.tasks.retain(|(other, _)| *other != task);
                    self.push(Op::Drop(task));
                }
            }
        }
    }

    fn call(&mut self) {
        let task = self.number();
        let side = self.choices.pick(&[
            Side::Server,
            Side::Server,
            Side::Server,
            Side::Client,
            Side::Client,
            Side::Through,
        ]);
        let path = match self.choices.below(12) {
            _ if self.has_parts => format!("/shop.Cart/Method{task}"),
            0 => "/grpc.health.v1.Health/Check".to_owned(),
            1 => "/".to_owned(),
            2 => "/shop.Cart/Add".to_owned(),
            _ => format!("/shop.Cart/Method{task}"),
        };
        let mut headers = match side {
            Side::Server => incoming(&mut self.choices),
            // Of a client, what the application has put there itself.
            _ if self.choices.percent(15) => incoming(&mut self.choices),
            _ => vec![],
        };
        let content_type = self.choices.pick(&[
            "application/grpc",
            "application/grpc",
            "application/grpc+proto",
            "application/grpc",
            "application/json",
        ]);
        headers.push(("content-type".to_owned(), content_type.to_owned()));
        if self.choices.percent(15) {
            // One that has gone by at once, or one that never does.
            let timeout = self.choices.pick(&["1n", "99999999H"]);
            headers.push(("grpc-timeout".to_owned(), timeout.to_owned()));
        }
        if self.choices.percent(20) {
            headers.push(("user-agent".to_owned(), "grpc-go/1.60".to_owned()));
            headers.push(("authorization".to_owned(), "Bearer secret".to_owned()));
        }
        let call = Call {
            task,
            side,
            path,
            headers,
            messages: self.choices.below(4),
            is_eager: self.choices.percent(40),
        };
        self.tasks.push((task, Phase::Handler));
        self.push(Op::Call(call));
        let orders = self.orders(task);
        self.push(Op::Poll(task, orders));
    }

    fn spawn(&mut self) {
        let task = self.number();
        let span = match self.choices.percent(60) {
            true => self.choices.recent(&self.spans),
            false => None,
        };
        let hub = match self.choices.percent(40) {
            true => self.choices.recent(&self.hubs),
            false => None,
        };
        let is_hub_outside = self.choices.percent(50);
        self.tasks.push((task, Phase::Task));
        self.push(Op::Spawn(Spawned {
            task,
            span,
            hub,
            is_hub_outside,
        }));
    }

    /// Ends what is open, in any order. Some of it is left for the end of the tree.
    fn finish(&mut self) {
        let mut ends = Vec::new();
        ends.extend(self.tasks.iter().map(|(task, _)| Op::Drop(*task)));
        ends.extend(self.spans.iter().map(|span| Op::Close(*span)));
        ends.extend(self.app_spans.iter().map(|span| Op::Finish(*span)));
        ends.retain(|_| self.choices.percent(85));
        self.choices.shuffle(&mut ends);
        for op in ends {
            self.push(op);
        }
        // A thread must not end in a span.
        let mut entered = std::mem::take(&mut self.entered);
        self.choices.shuffle(&mut entered);
        for (worker, span) in entered {
            let at = self.choices.below(self.steps.len() + 1);
            let is_entered = |step: &Step| matches!(step.op, Op::Enter(it) if it == span);
            let last = self.steps.iter().rposition(is_entered).unwrap_or_default();
            let step = Step {
                worker,
                op: Op::Exit(span),
            };
            self.steps.insert(at.max(last + 1), step);
        }
        self.push(Op::Clear);
    }
}
