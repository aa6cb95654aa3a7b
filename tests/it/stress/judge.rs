//! Whether what arrived is what was written.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::stress::books::{At, Books, Expected, Leg, ROOT, Tally, trace_id};
use crate::support::received::{Received, event_trace, trace};
use sentry::protocol::{Event, Map, SpanId, Transaction, User, Value};

type Legs = HashMap<String, Arc<Leg>>;

/// The spans of a leg's transaction, by their ids.
type Names = HashMap<SpanId, String>;

pub(super) fn judge(books: &Books, legs: &Legs, received: &Received, tally: &mut Tally) {
    let mut names = HashMap::<&str, Names>::new();
    for (transaction, context) in received.transactions.iter().zip(&received.contexts) {
        tally.transactions += 1;
        tally.spans += transaction.spans.len();
        let Some(leg) = transaction.tags.get("call").and_then(|name| legs.get(name)) else {
            books.stray(format!("nobody's: {transaction:?}"));
            continue;
        };
        for what in wrong_in_transaction(leg, transaction, context) {
            books.stray(format!("{what}: {transaction:?} {context} of {leg:?}"));
        }
        if names.insert(&leg.name, names_of(transaction)).is_some() {
            books.stray(format!("sent twice: {transaction:?}"));
        }
    }
    for event in &received.events {
        tally.events += 1;
        tally.breadcrumbs += event.breadcrumbs.len();
        let text = text(event);
        let leg = marks(&text).first().and_then(|name| legs.get(*name));
        let expected = leg.and_then(|leg| leg.pages.lock().unwrap().events.remove(&text));
        let (Some(leg), Some(expected)) = (leg, expected) else {
            books.stray(format!("nobody's, or sent twice: {event:?}"));
            continue;
        };
        let names = names.get(&*leg.name);
        for what in wrong_in_event(leg, event, &expected, names) {
            books.stray(format!("{what}: {event:?} is not {expected:?} of {leg:?}"));
        }
    }
    for leg in legs.values() {
        for (text, expected) in &leg.pages.lock().unwrap().events {
            books.stray(format!("missing: {text} {expected:?}"));
        }
        if leg.is_sampled && !names.contains_key(&*leg.name) {
            books.stray(format!("not sent: {leg:?}"));
        }
    }
}

/// The first text of an event that says whose it is.
fn text(event: &Event<'_>) -> String {
    let exceptions = event.exception.iter().rev();
    let exceptions = exceptions.filter_map(|exception| exception.value.as_deref());
    let mut texts = event.message.as_deref().into_iter().chain(exceptions);
    let text = texts.find(|text| text.starts_with('~'));
    text.unwrap_or_default().to_owned()
}

/// Whose it is that is in a text.
fn marks(text: &str) -> BTreeSet<&str> {
    text.split('~').skip(1).step_by(2).collect()
}

/// Whether all that is in it is the leg's. Who makes a call is told how that failed.
fn is_own(leg: &Leg, whole: serde_json::Result<String>) -> bool {
    let whole = whole.unwrap();
    let mut marks = marks(&whole);
    marks.remove(&*leg.callee());
    marks == BTreeSet::from([&*leg.name])
}

fn is_user_own(leg: &Leg, user: Option<&User>) -> bool {
    user.and_then(|user| user.id.as_ref()) == Some(&format!("~{}~", leg.name))
}

/// But for those of each call.
fn tags(tags: &Map<String, String>) -> Map<String, String> {
    let tags = tags.clone().into_iter();
    tags.filter(|(key, _)| !key.starts_with("rpc.")).collect()
}

fn names_of(transaction: &Transaction<'_>) -> Names {
    let name = |span: &sentry::protocol::Span| span.description.clone().unwrap_or_default();
    let spans = transaction.spans.iter();
    let spans = spans.map(|span| (span.span_id, name(span)));
    let root = (trace(transaction).span_id, ROOT.to_owned());
    spans.chain([root]).collect()
}

fn wrong_in_transaction(
    leg: &Leg,
    transaction: &Transaction<'static>,
    context: &Value,
) -> impl Iterator<Item = &'static str> {
    let trace_id = trace_id(leg.call);
    let names = names_of(transaction);
    let parent = |id: Option<SpanId>| names.get(&id?).cloned();
    let spans = transaction.spans.iter().map(|span| {
        let parent = parent(span.parent_span_id).unwrap_or_default();
        (names[&span.span_id].clone(), parent)
    });
    let mut spans: Vec<_> = spans.collect();
    spans.sort();
    let mut expected = leg.pages.lock().unwrap().spans.clone();
    expected.sort();
    let own = Map::from([("call".to_owned(), leg.name.clone())]);
    let head = format!("job {}", leg.call);
    let wrong = [
        (
            "others in a transaction",
            !is_own(leg, serde_json::to_string(transaction)),
        ),
        ("sent", !leg.is_sampled),
        ("trace", trace(transaction).trace_id.to_string() != trace_id),
        ("context", context["trace_id"] != *trace_id),
        ("context's name", context["transaction"] != *head),
        ("user", !is_user_own(leg, transaction.user.as_ref())),
        ("tags", tags(&transaction.tags) != own),
        ("spans", spans != expected),
    ];
    wrong
        .into_iter()
        .filter(|(_, is_so)| *is_so)
        .map(|(what, _)| what)
}

fn wrong_in_event(
    leg: &Leg,
    event: &Event<'static>,
    expected: &Expected,
    names: Option<&Names>,
) -> impl Iterator<Item = &'static str> {
    let trace = event_trace(event);
    let task = expected.place.hub.task();
    let own = [
        Some(("call", leg.name.as_str())),
        task.map(|task| ("task", task)),
        expected.is_temporary.then_some(("temporary", &*leg.name)),
    ];
    let own = own.into_iter().flatten();
    let own: Map<_, _> = own
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let mut tags = tags(&event.tags);
    // A fork has what the scope held when it was made, for a while or not.
    if expected.place.hub != At::Main && !expected.is_temporary {
        tags.remove("temporary");
    }
    let within = names.and_then(|names| names.get(&trace.span_id));
    let (crumbs, calls) = crumbs_of(event);
    let wrong = [
        (
            "others in an event",
            !is_own(leg, serde_json::to_string(event)),
        ),
        ("trace", trace.trace_id.to_string() != trace_id(leg.call)),
        (
            "span",
            names.is_some() && within != Some(&expected.place.span),
        ),
        ("user", !is_user_own(leg, event.user.as_ref())),
        ("tags", tags != own),
        ("breadcrumbs", !are_crumbs_right(leg, expected, &crumbs)),
        ("calls", expected.is_last && calls != expected.calls),
        ("twice", crumbs.len() + calls != event.breadcrumbs.len()),
    ];
    wrong
        .into_iter()
        .filter(|(_, is_so)| *is_so)
        .map(|(what, _)| what)
}

/// Those of the leg, and how many there are of its calls.
fn crumbs_of<'a>(event: &'a Event<'_>) -> (BTreeSet<&'a str>, usize) {
    let (calls, own): (Vec<_>, Vec<_>) = event
        .breadcrumbs
        .iter()
        .partition(|crumb| crumb.category.as_deref() == Some("grpc.client"));
    let own = own.iter().filter_map(|crumb| crumb.message.as_deref());
    (own.collect(), calls.len())
}

/// Whether all are there that are to be, and of the others those that may be.
fn are_crumbs_right(leg: &Leg, expected: &Expected, crumbs: &BTreeSet<&str>) -> bool {
    let before = &expected.before;
    let place = &expected.place;
    let is_of = |crumb: &str, task: &str| crumb.ends_with(&format!("@{task}"));
    let of_hub: Vec<_> = match &place.hub {
        At::Main => before.main.iter().collect(),
        At::Guest | At::Marked(_) => Vec::new(),
        At::Fork(task) => {
            let forked = before.forked.iter();
            forked.filter(|crumb| is_of(crumb, task)).collect()
        }
    };
    let least = before.trail.iter().chain(of_hub).map(String::as_str);
    let least: BTreeSet<_> = least.collect();
    if expected.is_last {
        return *crumbs == least;
    }
    let pages = leg.pages.lock().unwrap();
    let may_be = |crumb: &str| match crumb.split_once('@') {
        None => pages.crumbs.trail.contains(crumb),
        Some((_, "main")) => pages.crumbs.main.contains(crumb),
        Some((_, of)) => {
            place.hub == At::Fork(of.to_owned()) && pages.crumbs.forked.contains(crumb)
        }
    };
    crumbs.is_superset(&least) && crumbs.iter().all(|crumb| may_be(crumb))
}
