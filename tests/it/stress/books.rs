//! What was written where, and whether it arrived there, once, and nowhere else.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::received::Received;

/// The span that a leg is in itself.
pub(super) const ROOT: &str = "root";

/// All that is written in a batch of calls.
#[derive(Default)]
pub(super) struct Books {
    is_sampled: bool,
    operations: AtomicU64,
    /// By name.
    legs: Mutex<HashMap<String, Arc<Leg>>>,
    expected_events: AtomicUsize,
    expected_transactions: AtomicUsize,
    strays: Mutex<Vec<String>>,
}

/// What has a root of its own: the job that makes a call, and each call that a server
/// received for it.
pub(super) struct Leg {
    /// That of the call and the number of the leg: `17.1`.
    pub(super) name: String,
    pub(super) call: u64,
    pub(super) is_rpc: bool,
    pub(super) is_sampled: bool,
    pub(super) books: Arc<Books>,
    number: AtomicUsize,
    pub(super) pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Name, and that of the span around it.
    pub(super) spans: Vec<(String, String)>,
    pub(super) calls: usize,
    pub(super) crumbs: Crumbs,
    /// By text.
    pub(super) events: HashMap<String, Expected>,
}

/// Breadcrumbs that were written, by where all can see them.
#[derive(Debug, Default, Clone)]
pub(super) struct Crumbs {
    /// All events of the leg.
    pub(super) trail: BTreeSet<String>,
    /// Those on the leg's own hub, and on forks of it that are made later.
    pub(super) main: BTreeSet<String>,
    /// Those of one task, which is in their text.
    pub(super) forked: BTreeSet<String>,
}

/// Where something is done.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) span: String,
    pub(super) hub: At,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    /// The leg's own hub.
    Main,
    /// A fork that is forgotten.
    Guest,
    /// One that has a task's tag nevertheless.
    Marked(String),
    /// That of a task, and its tag.
    Fork(String),
}

impl At {
    pub(super) fn task(&self) -> Option<&str> {
        match self {
            Self::Main | Self::Guest => None,
            Self::Marked(task) | Self::Fork(task) => Some(task),
        }
    }
}

/// How an event is to arrive.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) place: Place,
    pub(super) is_temporary: bool,
    /// All that is written is there by then.
    pub(super) is_last: bool,
    /// What was written before it.
    pub(super) before: Crumbs,
    pub(super) calls: usize,
}

/// Sums of what arrived where it belongs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) events: usize,
    pub(super) breadcrumbs: usize,
    pub(super) transactions: usize,
    pub(super) spans: usize,
}

/// The trace of a call.
pub(super) fn trace_id(call: u64) -> String {
    let odd = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    format!("{:032x}", u128::from(call + 1).wrapping_mul(odd))
}

/// Whether a call is sampled, where any is.
pub(super) fn is_sampled(call: u64) -> bool {
    call % 5 != 3
}

impl Books {
    pub(super) fn new(is_sampled: bool) -> Self {
        Self {
            is_sampled,
            ..Self::default()
        }
    }

    pub(super) fn op(&self) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    pub(super) fn open(self: &Arc<Self>, name: &str) -> Arc<Leg> {
        let (call, number) = name.split_once('.').unwrap();
        let call = call.parse().unwrap();
        let is_sampled = self.is_sampled && is_sampled(call);
        let leg = Arc::new(Leg {
            name: name.to_owned(),
            call,
            is_rpc: number != "0",
            is_sampled,
            books: Arc::clone(self),
            number: AtomicUsize::new(0),
            pages: Mutex::default(),
        });
        let known = self
            .legs
            .lock()
            .unwrap()
            .insert(name.to_owned(), Arc::clone(&leg));
        assert!(known.is_none(), "{name}");
        let transactions = usize::from(is_sampled);
        self.expected_transactions
            .fetch_add(transactions, Ordering::Relaxed);
        leg
    }

    pub(super) fn stray(&self, what: String) {
        self.strays.lock().unwrap().push(what);
    }

    /// Whether as much is there as is to come.
    pub(super) fn are_all_there(&self, events: usize, transactions: usize) -> bool {
        events >= self.expected_events.load(Ordering::Relaxed)
            && transactions >= self.expected_transactions.load(Ordering::Relaxed)
    }

    /// Closes them: what was received is all that was written, and in its place.
    pub(super) fn close(&self, received: &Received, tally: &mut Tally) {
        let legs = std::mem::take(&mut *self.legs.lock().unwrap());
        self.expected_events.store(0, Ordering::Relaxed);
        self.expected_transactions.store(0, Ordering::Relaxed);
        super::judge::judge(self, &legs, received, tally);
        let strays = self.strays.lock().unwrap();
        let some = strays
            .iter()
            .take(10)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n");
        assert!(strays.is_empty(), "{} strays:\n{some}", strays.len());
    }
}

impl std::fmt::Debug for Leg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.name, self.pages)
    }
}

impl Leg {
    pub(super) fn op(&self) {
        self.books.op();
    }

    /// A text that says whose it is.
    pub(super) fn text(&self, kind: &str) -> String {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        format!("~{}~ {kind}{number}", self.name)
    }

    /// Notes that an event is about to be told; its text.
    pub(super) fn expect(&self, place: &Place, is_temporary: bool, is_last: bool) -> String {
        let text = self.text("event");
        let mut pages = self.pages.lock().unwrap();
        let expected = Expected {
            place: place.clone(),
            is_temporary,
            is_last,
            before: pages.crumbs.clone(),
            calls: pages.calls,
        };
        pages.events.insert(text.clone(), expected);
        self.books.expected_events.fetch_add(1, Ordering::Relaxed);
        self.op();
        text
    }

    /// The name of the leg that it calls.
    pub(super) fn callee(&self) -> String {
        let (call, number) = self.name.split_once('.').unwrap();
        let number: u32 = number.parse().unwrap();
        format!("{call}.{}", number + 1)
    }

    /// Notes that a call is about to be made, to this path.
    pub(super) fn call_to(&self, path: &str) {
        let mut pages = self.pages.lock().unwrap();
        pages.spans.push((path.to_owned(), ROOT.to_owned()));
        pages.calls += 1;
    }

    /// Notes a span that is about to be made in another one.
    pub(super) fn span(&self, around: &Place) -> Place {
        let span = self.text("span");
        let names = (span.clone(), around.span.clone());
        self.pages.lock().unwrap().spans.push(names);
        let hub = around.hub.clone();
        Place { span, hub }
    }
}
