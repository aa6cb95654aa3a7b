//! What is done in a leg, of every kind there is to go astray.

use std::sync::Arc;

use sentry::protocol::User;
use sentry::{Breadcrumb, Hub, Level, SentryFutureExt};
use tokio::task::{JoinHandle, block_in_place, spawn_blocking, yield_now};
use tonic::Status;
use tracing::{Instrument, Span, error, info, info_span, instrument};

use sentry_tonic::SentrySpanExt;

use crate::stress::books::{At, Leg, Place, ROOT, trace_id};
use crate::support::greeter::reply;
use crate::support::helloworld::HelloReply;

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Reply,
    Status,
    Panic,
}

pub(super) fn root() -> Place {
    Place {
        span: ROOT.to_owned(),
        hub: At::Main,
    }
}

impl Leg {
    /// Writes whose the scope is.
    fn claim(&self) {
        sentry::configure_scope(|scope| {
            scope.set_tag("call", &self.name);
            scope.set_user(Some(User {
                id: Some(format!("~{}~", self.name)),
                ..User::default()
            }));
        });
        self.op();
        self.op();
    }

    /// Writes to the scope of a task.
    fn mark(&self, task: &str) {
        sentry::configure_scope(|scope| scope.set_tag("task", task));
        self.op();
    }

    /// Looks whether the scope and the span are this leg's.
    fn look(&self) {
        let (user, span) =
            sentry::configure_scope(|scope| (scope.user().cloned(), scope.get_span()));
        let user = user.and_then(|user| user.id);
        let trace = span.map(|span| span.get_trace_context().trace_id.to_string());
        let header = Span::current().trace_headers();
        let header = header.map(|headers| headers.sentry_trace()[..32].to_owned());
        let (own, own_trace) = (format!("~{}~", self.name), trace_id(self.call));
        let seen = [user, trace, header];
        if seen != [&own, &own_trace, &own_trace].map(|own| Some(own.clone())) {
            self.books.stray(format!("{own} sees {seen:?}"));
        }
        for _ in 0..3 {
            self.op();
        }
    }

    /// Leaves a breadcrumb on the trail.
    pub(super) fn crumb(&self) {
        let text = self.text("crumb");
        info!(target: "test", "{text}");
        self.pages.lock().unwrap().crumbs.trail.insert(text);
        self.op();
    }

    /// Leaves a breadcrumb on the current hub, which is this.
    fn crumb_on(&self, hub: &At) {
        let of = match hub {
            At::Main => "main",
            At::Fork(task) => task,
            At::Guest | At::Marked(_) => return,
        };
        let text = format!("{}@{of}", self.text("crumb"));
        sentry::add_breadcrumb(Breadcrumb {
            message: Some(text.clone()),
            ..Breadcrumb::default()
        });
        let crumbs = &mut self.pages.lock().unwrap().crumbs;
        match hub {
            At::Main => crumbs.main.insert(text),
            _ => crumbs.forked.insert(text),
        };
        self.op();
    }

    fn message(&self, place: &Place) {
        let text = self.expect(place, false, false);
        sentry::capture_message(&text, Level::Info);
    }

    fn error(&self, place: &Place) {
        let text = self.expect(place, false, false);
        error!(target: "test", "{text}");
    }

    /// A message with a tag that only this one has.
    fn temporary(&self, place: &Place) {
        let text = self.expect(place, true, false);
        sentry::with_scope(
            |scope| scope.set_tag("temporary", &self.name),
            || sentry::capture_message(&text, Level::Info),
        );
        self.op();
    }

    /// Tells last of all, and ends.
    pub(super) fn end(&self, ending: Ending) -> Result<HelloReply, Status> {
        let text = self.expect(&root(), false, true);
        sentry::capture_message(&text, Level::Info);
        match ending {
            Ending::Reply => Ok(reply(&self.name)),
            Ending::Status => Err(Status::internal(self.expect(&root(), false, false))),
            // Prints nothing.
            Ending::Panic => {
                std::panic::resume_unwind(Box::new(self.expect(&root(), false, false)))
            }
        }
    }
}

#[instrument(target = "test", skip_all, fields(sentry.name = here.span))]
async fn nested(leg: &Leg, here: Place, depth: u32) {
    leg.look();
    leg.crumb();
    yield_now().await;
    leg.crumb_on(&here.hub);
    if depth > 0 {
        let inside = leg.span(&here);
        Box::pin(nested(leg, inside, depth - 1)).await;
    }
    leg.look();
    yield_now().await;
    leg.message(&here);
}

/// A span that is a task's own.
fn own_task(leg: &Arc<Leg>, here: &Place, task: &str) -> JoinHandle<()> {
    let leg = Arc::clone(leg);
    let task = At::Fork(task.to_owned());
    let here = Place {
        hub: task,
        ..leg.span(here)
    };
    let span = info_span!(target: "test", "task", sentry.name = here.span);
    tokio::spawn(in_fork(leg, here).instrument(span))
}

/// A fork that a task has bound.
fn fork_task(leg: &Arc<Leg>, here: &Place, task: &str) -> JoinHandle<()> {
    let leg = Arc::clone(leg);
    let here = Place {
        hub: At::Fork(task.to_owned()),
        ..here.clone()
    };
    let fork = Hub::new_from_top(Hub::current());
    tokio::spawn(in_fork(leg, here).bind_hub(fork))
}

async fn in_fork(leg: Arc<Leg>, here: Place) {
    leg.mark(here.hub.task().unwrap());
    leg.crumb_on(&here.hub);
    leg.look();
    yield_now().await;
    nested(&leg, leg.span(&here), 1).await;
    leg.crumb_on(&here.hub);
    yield_now().await;
    leg.look();
    leg.message(&here);
}

/// A task in the span of somebody else.
fn guest_task(leg: &Arc<Leg>, here: &Place, task: &str) -> JoinHandle<()> {
    let leg = Arc::clone(leg);
    let [guest, marked] = [At::Guest, At::Marked(task.to_owned())].map(|hub| Place {
        hub,
        ..here.clone()
    });
    let task = task.to_owned();
    let work = async move {
        leg.look();
        leg.crumb();
        // In a span that is not an RPC's, a task may have the hub of who runs it.
        if leg.is_rpc {
            leg.mark(&task);
            leg.message(&marked);
        }
        yield_now().await;
        leg.temporary(&guest);
    };
    tokio::spawn(work.in_current_span())
}

/// On a thread for what blocks, in the span of somebody else.
fn blocking_guest(leg: &Arc<Leg>, here: &Place) -> JoinHandle<()> {
    let leg = Arc::clone(leg);
    let here = Place {
        hub: At::Guest,
        ..here.clone()
    };
    let span = Span::current();
    let work = move || {
        leg.look();
        leg.crumb();
        leg.temporary(&here);
        leg.error(&here);
    };
    spawn_blocking(move || span.in_scope(work))
}

fn blocking(leg: &Leg, here: &Place) {
    let inside = leg.span(here);
    let span = info_span!(target: "test", "blocking", sentry.name = inside.span);
    block_in_place(|| {
        span.in_scope(|| {
            leg.crumb();
            leg.crumb_on(&inside.hub);
            leg.message(&inside);
        });
    });
}

/// Does some of everything, in the span of the leg.
pub(super) async fn work(leg: &Arc<Leg>) {
    let here = root();
    leg.claim();
    let mut tasks = vec![
        own_task(leg, &here, "own"),
        fork_task(leg, &here, "fork"),
        own_task(leg, &here, "other"),
    ];
    for task in [
        guest_task(leg, &here, "guest"),
        blocking_guest(leg, &here),
        guest_task(leg, &here, "guest of another kind"),
    ] {
        // Where it may have the hub of who runs the leg, that waits.
        match leg.is_rpc {
            true => tasks.push(task),
            false => task.await.unwrap(),
        }
    }
    leg.temporary(&here);
    nested(leg, leg.span(&here), 2).await;
    blocking(leg, &here);
    let both = [leg.span(&here), leg.span(&here)];
    let [left, right] = both.map(|inside| nested(leg, inside, 1));
    tokio::join!(left, right);
    leg.error(&here);
    for task in tasks {
        task.await.unwrap();
    }
    leg.look();
}
