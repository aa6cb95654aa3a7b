//! What is counted.

use crate::contestant::Sampling;
use crate::work::{Step, Work};

/// What `more` costs over `less`, in parts.
pub struct Case {
    pub name: &'static str,
    pub sampling: Sampling,
    pub more: Work,
    pub less: Option<Work>,
    pub parts: u32,
}

impl Case {
    /// Whether it is also counted for variants of one contestant.
    pub fn is_for_variants(&self) -> bool {
        use Step::{Child, ClientCall, Event, ResponseFrame};
        !self.more.is_continued
            && matches!(self.more.step, Child | ClientCall | Event | ResponseFrame)
    }
}

const CALLS: u32 = 500;
const FEW_CALLS: u32 = 100;

pub fn all() -> Vec<Case> {
    use Sampling::{NoClient, Off, On};
    let mut cases = Vec::new();
    for sampling in [On, Off, NoClient] {
        cases.push(call(
            "unary server",
            sampling,
            Work::new(CALLS, Step::Child, 0),
        ));
    }
    for sampling in [On, Off] {
        let work = Work::new(CALLS, Step::Child, 0).continued();
        cases.push(call("unary server, trace continued", sampling, work));
    }
    for sampling in [On, Off] {
        let client = step(
            "unary client call in it",
            sampling,
            Step::ClientCall,
            CALLS,
            [0, 1],
        );
        cases.push(client);
    }
    for (name, step_of) in [
        ("further child", Step::Child),
        ("further child, 3 fields", Step::ChildWithFields),
        ("breadcrumb event", Step::Event),
    ] {
        for sampling in [On, Off] {
            cases.push(step(name, sampling, step_of, FEW_CALLS, [1, 11]));
        }
    }
    for (name, step_of) in [
        ("server, response frame", Step::ResponseFrame),
        ("server, request frame", Step::RequestFrame),
        ("client, response frame", Step::ClientResponseFrame),
        ("client, request frame", Step::ClientRequestFrame),
    ] {
        for sampling in [On, Off] {
            cases.push(step(name, sampling, step_of, 1, [1_000, 3_000]));
        }
    }
    cases
}

fn call(name: &'static str, sampling: Sampling, work: Work) -> Case {
    Case {
        name,
        sampling,
        more: work,
        less: None,
        parts: work.calls,
    }
}

fn step(
    name: &'static str,
    sampling: Sampling,
    step: Step,
    calls: u32,
    [less, more]: [u32; 2],
) -> Case {
    Case {
        name,
        sampling,
        more: Work::new(calls, step, more),
        less: Some(Work::new(calls, step, less)),
        parts: calls * (more - less),
    }
}
