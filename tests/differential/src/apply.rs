//! Carries out what a plan says.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::thread;

use sentry::protocol::{Context, Event, Exception};
use sentry::{Breadcrumb, Hub, Level, Scope, TransactionContext, TransactionOrSpan, User};
use sentry_tonic::{SentrySpanExt, TracePropagationInterceptor};
use serde_json::{Value, json};
use tonic::service::Interceptor;
use tracing::Span;

use crate::calls;
use crate::plan::{self, Asked, Change, Number, Op, ScopeChange};
use crate::spans::{self, Failure};
use crate::world::{OWN, World, lock};

pub(crate) fn all(world: &Arc<World>, ops: &[Op]) {
    for op in ops {
        one(world, op);
    }
}

pub(crate) fn one(world: &Arc<World>, op: &Op) {
    match op {
        Op::Open(opening) => {
            let span = spans::open(world, opening);
            world.spans.put(opening.number, span);
        }
        Op::Enter(number) => enter(world, *number),
        Op::Exit(number) => exit(world, *number),
        Op::In(number, ops) => match world.spans.get(*number) {
            Some(span) => span.in_scope(|| all(world, ops)),
            None => all(world, ops),
        },
        Op::Record(number, field, value) => {
            if let Some(span) = world.spans.get(*number) {
                spans::record(&span, *field, value);
            }
        }
        Op::Close(number) => drop(world.spans.take(*number)),
        Op::Continue(number, headers) => {
            if let Some(span) = world.spans.get(*number) {
                let pairs = headers.iter();
                let pairs = pairs.map(|(name, value)| (name.as_str(), value.as_str()));
                let done = span.continue_trace(pairs);
                world.saw(json!({"continued": number, "result": format!("{done:?}")}));
            }
        }
        Op::Fork(number) => {
            let fork = Arc::new(Hub::new_from_top(Hub::current()));
            world.hubs.put(*number, fork);
        }
        Op::OnHub(number, ops) => match world.hubs.get(*number) {
            Some(hub) => Hub::run(hub, || all(world, ops)),
            None => all(world, ops),
        },
        Op::WithScope(number, ops) => {
            sentry::with_scope(|scope| scope.set_tag("pushed", number), || all(world, ops))
        }
        Op::Scope(number, change) => {
            sentry::configure_scope(|scope| rescope(scope, *number, *change))
        }
        Op::Begin(number, headers) => {
            let pairs = headers.iter();
            let pairs = pairs.map(|(name, value)| (name.as_str(), value.as_str()));
            let name = format!("own {number}");
            let context = TransactionContext::continue_from_headers(&name, OWN, pairs);
            let begun = sentry::start_transaction(context);
            world.app_spans.put(*number, begun.into());
        }
        Op::Child(number, of) => {
            if let Some(around) = app_span(world, *of) {
                let child = around.start_child("child", &format!("child {number}"));
                world.app_spans.put(*number, child.into());
            }
        }
        Op::Set(of, number, change) => {
            if let Some(span) = app_span(world, *of) {
                set(&span, *number, change);
            }
        }
        Op::Place(number, ops) => match world.app_spans.get(*number) {
            Some(span) => {
                sentry::with_scope(|scope| scope.set_span(Some(span)), || all(world, ops))
            }
            None => all(world, ops),
        },
        Op::Finish(number) => {
            if let Some(span) = world.app_spans.take(*number) {
                span.finish();
            }
        }
        Op::FinishCurrent => {
            if let Some(span) = app_span(world, None) {
                span.finish();
            }
        }
        Op::Crumb(number) => sentry::add_breadcrumb(Breadcrumb {
            message: Some(format!("crumb {number}")),
            category: Some("own".to_owned()),
            ..Breadcrumb::default()
        }),
        Op::Log(logged) => spans::log(world, logged),
        Op::Message(number, level) => {
            let id = sentry::capture_message(&format!("message {number}"), *level);
            saw_event(world, *number, id);
        }
        Op::Error(number, text) => {
            let id = sentry::capture_error(&Failure::new(*number, *text));
            saw_event(world, *number, id);
        }
        Op::Event(number) => {
            let id = sentry::capture_event(event(*number));
            saw_event(world, *number, id);
        }
        Op::Panic(number, span) => {
            let span = span.and_then(|span| world.spans.get(span));
            let throw = || throw(*number);
            let _ = caught(|| match &span {
                Some(span) => span.in_scope(throw),
                None => throw(),
            });
        }
        Op::Throw(number) => throw(*number),
        Op::Ask(number, asked) => {
            let headers = ask(world, *asked);
            world.saw(json!({"asked": number, "headers": headers}));
        }
        Op::Spawn(spawned) => calls::spawn(world, spawned),
        Op::Call(call) => calls::call(world, call),
        Op::Poll(task, orders) => calls::poll(world, *task, orders),
        Op::Drop(task) => drop(world.tasks.take(*task)),
        Op::Many(number, count) => spans::many(*number, *count),
        Op::Flush => {
            if let Some(client) = Hub::current().client() {
                client.flush(None);
            }
        }
        Op::Wait => thread::sleep(plan::PART * 2),
        Op::Clear => world.clear(),
    }
}

/// The message of a panic in `f`.
#[expect(
    clippy::disallowed_methods,
    reason = "no payload here panics as it is dropped"
)]
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| text(&*payload))
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a payload of another type".to_owned())
}

fn throw(number: Number) {
    match number % 5 {
        0 => panic_any(number),
        _ => panic!("panic {number}"),
    }
}

/// Unlike `Span::entered`, a span that is entered so may be left in any order.
fn enter(world: &World, number: Number) {
    if let Some(span) = world.spans.get(number) {
        span.with_subscriber(|(id, dispatch)| dispatch.enter(id));
        lock(&world.entered).push((thread::current().id(), number, span));
    }
}

fn exit(world: &World, number: Number) {
    let mut entered = lock(&world.entered);
    let own = thread::current().id();
    let at = entered
        .iter()
        .rposition(|(thread, it, _)| (*thread, *it) == (own, number));
    let left = at.map(|at| entered.remove(at));
    drop(entered);
    if let Some((_, _, span)) = left {
        span.with_subscriber(|(id, dispatch)| dispatch.exit(id));
    }
}

fn rescope(scope: &mut Scope, number: Number, change: ScopeChange) {
    match change {
        ScopeChange::Tag => scope.set_tag(["who", "where"][number % 2], number),
        ScopeChange::RemoveTag => scope.remove_tag("who"),
        ScopeChange::Extra => scope.set_extra(["more", "less"][number % 2], number.into()),
        ScopeChange::User => scope.set_user(Some(User {
            id: Some(format!("user {number}")),
            ..User::default()
        })),
        ScopeChange::NoUser => scope.set_user(None),
        ScopeChange::Context => {
            let context = [("number".to_owned(), Value::from(number))];
            scope.set_context("own", Context::Other(context.into_iter().collect()));
        }
        ScopeChange::Level => scope.set_level(Some(Level::Warning)),
        ScopeChange::Fingerprint => scope.set_fingerprint(Some(&["own", "print"])),
        ScopeChange::Transaction => scope.set_transaction(Some(&format!("set {number}"))),
    }
}

/// A span of the application, or the one on the scope.
fn app_span(world: &World, own: Option<Number>) -> Option<TransactionOrSpan> {
    match own {
        Some(number) => world.app_spans.get(number),
        None => sentry::configure_scope(|scope| scope.get_span()),
    }
}

fn set(span: &TransactionOrSpan, number: Number, change: &Change) {
    match change {
        Change::Data => span.set_data(["one", "other"][number % 2], number.into()),
        Change::Tag => span.set_tag(["one", "other"][number % 2], number),
        Change::Status(status) => span.set_status(*status),
        Change::Name => span.set_name(&format!("renamed {number}")),
        Change::Op => span.set_op(&format!("op.{number}")),
    }
}

fn event(number: Number) -> Event<'static> {
    let mut event = Event {
        message: Some(format!("event {number}")),
        level: Level::Error,
        ..Event::default()
    };
    if number.is_multiple_of(2) {
        event.tags.insert("own".to_owned(), number.to_string());
        event.exception.values.push(Exception {
            ty: "Own".to_owned(),
            value: Some(format!("exception {number}")),
            ..Exception::default()
        });
    }
    if number.is_multiple_of(3) {
        event.transaction = Some(format!("of event {number}"));
        event.user = Some(User::default());
    }
    event
}

fn saw_event(world: &World, number: Number, id: sentry::types::Uuid) {
    let last = sentry::last_event_id() == Some(id);
    world.saw(json!({"captured": number, "id": id.simple().to_string(), "is_last": last}));
}

/// The headers that an outgoing request gets.
fn ask(world: &World, asked: Asked) -> Value {
    let of_span = |span: &Span| {
        let headers = span.trace_headers()?;
        let pairs = headers.iter().map(|(name, value)| json!([name, value]));
        Some(
            pairs
                .chain([json!(["traceparent", headers.traceparent()])])
                .collect(),
        )
    };
    match asked {
        Asked::Current => of_span(&Span::current()).unwrap_or_default(),
        Asked::Span(number) => {
            let span = world.spans.get(number);
            span.as_ref().and_then(of_span).unwrap_or_default()
        }
        Asked::Interceptor { traceparent } => {
            let interceptor = TracePropagationInterceptor::new();
            let mut interceptor = interceptor.propagate_traceparent(traceparent);
            let request = interceptor.call(tonic::Request::new(()));
            request.map_or(Value::Null, |request| {
                calls::shown(request.metadata().as_ref())
            })
        }
        Asked::SentrySpan => app_span(world, None)
            .map(|span| {
                span.iter_headers()
                    .map(|(name, value)| json!([name, value]))
                    .collect()
            })
            .unwrap_or_default(),
        Asked::Scope => sentry::configure_scope(|scope| {
            let headers = scope.iter_trace_propagation_headers();
            headers.map(|(name, value)| json!([name, value])).collect()
        }),
    }
}
