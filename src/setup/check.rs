//! Checks the client, the subscriber, and the calls so far.

use std::sync::Arc;

use sentry_core::{Client, Hub, Scope};
use sentry_tracing::{ErrorLayer, SpanLayer};
use tracing::dispatcher::{self, Dispatch};
use tracing::info_span;
use tracing::subscriber::NoSubscriber;

use crate::bridge::SentryTracingLayer;
use crate::call;
use crate::fields;
use crate::rpc::{self, RpcSide};
use crate::send;
use crate::setup::note::{self, OtelIds};
use crate::setup::problem::SetupProblem;
use crate::setup::report::SetupReport;
use crate::span_ext::{self, LayerSeen};

/// Checks the setup of this process, and reports problems and their fixes.
///
/// For developers: call it once after [`init`](crate::init()) and after the subscriber is set, on a
/// thread that uses this subscriber, and print the report. It checks that
///
/// * a Sentry client is bound and can send,
/// * the subscriber has one [`SentryTracingLayer`](crate::SentryTracingLayer), which sees the spans
///   of calls,
/// * no layer of sentry-tracing does the same work.
///
/// Call it again after some calls: it then also finds tower layers that are missing, that are there
/// twice, or that are in conflict with those of this crate.
///
/// ```
/// // In `main`, after the rest of the setup.
/// if cfg!(debug_assertions) {
///     eprintln!("{}", sentry_tonic::check_setup());
/// }
/// ```
///
/// The check opens a span `sentry_tonic.check_setup`, and closes it at once. Other layers, such as
/// a layer of OpenTelemetry, see it as any span with the level INFO and the target `sentry_tonic`.
/// The check sends nothing to Sentry, changes nothing, and never panics.
#[must_use = "the report lists the problems of the setup"]
pub fn check_setup() -> SetupReport {
    // Inside of `get_default` there is no other default.
    let dispatch = dispatcher::get_default(Dispatch::clone);
    let probed = probe(&dispatch);
    let client = client(&probed);
    let mut problems = vec![];
    problems.extend(client_problem(client.as_deref()));
    problems.extend(probed.problems());
    problems.extend(call_problems());
    let mut notes = note::about_client(client.as_deref());
    notes.extend(note::about_calls(
        [RpcSide::Server, RpcSide::Client].map(call::is_layered),
    ));
    notes.extend(note::about_otel(probed.otel_ids()));
    if !problems.contains(&SetupProblem::ConflictingHttpLayer) {
        notes.push(note::SENTRY_TOWER);
    }
    notes.extend([note::SENTRY_VERSIONS, note::SHUTDOWN]);
    SetupReport::new(problems, notes)
}

/// What the subscriber of this thread did with the probe.
struct Probed {
    has_subscriber: bool,
    /// The layers of this crate that saw the probe.
    seen: Vec<LayerSeen>,
    /// Whether the probe reached all layers, and none of them panicked.
    is_whole: bool,
    /// A layer of this crate in the subscriber, whether it saw the probe or not. A layer in a
    /// `reload::Layer` is found only if it saw the probe.
    registered: Option<LayerSeen>,
    has_span_layer: bool,
    has_error_layer: bool,
    /// Whether the probe has ids in OpenTelemetry, as far as the layers know.
    has_otel_ids: bool,
}

fn probe(dispatch: &Dispatch) -> Probed {
    let registered = dispatch.downcast_ref::<SentryTracingLayer>();
    let mut has_span_layer = dispatch.is::<SpanLayer>();
    let mut has_otel_ids = false;
    let mut is_whole = false;
    let seen = span_ext::seen_by(|| {
        // Without a client, other layers send nothing about the probe.
        let hub = Arc::new(Hub::new(None, Arc::new(Scope::default())));
        // Two layers of sentry-tracing in one subscriber panic.
        let opened = rpc::contained(|| {
            Hub::run(hub, || {
                let span = info_span!(target: fields::TARGET, parent: None, fields::PROBE_SPAN);
                span.in_scope(|| {
                    has_otel_ids = span_ext::has_otel_ids(&span);
                    // The combined layer of sentry-tracing cannot be found by its type, but it
                    // puts a span on the scope. The layer of this crate puts none there.
                    let on_scope = Hub::current().configure_scope(|scope| scope.get_span());
                    has_span_layer |= on_scope.is_some();
                });
            })
        });
        is_whole = opened.is_some();
    });
    Probed {
        has_subscriber: !dispatch.is::<NoSubscriber>(),
        seen,
        is_whole,
        registered: registered.map(SentryTracingLayer::as_seen),
        has_span_layer,
        has_error_layer: dispatch.is::<ErrorLayer>(),
        has_otel_ids,
    }
}

impl Probed {
    fn layer(&self) -> Option<&LayerSeen> {
        self.seen.first().or(self.registered.as_ref())
    }

    fn otel_ids(&self) -> OtelIds {
        match self.layer().map(|layer| layer.otel_ids.is_some()) {
            Some(true) if !self.has_otel_ids && !self.seen.is_empty() => OtelIds::NotFound,
            Some(false) => OtelIds::NotAskedFor,
            _ => OtelIds::Unknown,
        }
    }

    fn problems(&self) -> Vec<SetupProblem> {
        let mut problems = vec![];
        match self.layer() {
            _ if !self.has_subscriber => problems.push(SetupProblem::NoSubscriber),
            None => problems.push(SetupProblem::LayerMissing),
            Some(_) if self.seen.is_empty() && self.is_whole => {
                problems.push(SetupProblem::SpansFiltered)
            }
            Some(_) if self.seen.len() > 1 => problems.push(SetupProblem::DuplicateLayer),
            Some(_) => {}
        }
        if self.has_span_layer {
            problems.push(SetupProblem::ConflictingSpanLayer);
        }
        if self.has_error_layer && self.layer().is_some_and(|layer| layer.captures_errors) {
            problems.push(SetupProblem::ConflictingErrorLayer);
        }
        problems
    }
}

/// The client for a call outside of any span. A client that can send comes before one that cannot.
fn client(probed: &Probed) -> Option<Arc<Client>> {
    match probed.layer().and_then(|layer| layer.hub.clone()) {
        Some(pinned) => pinned.client(),
        None => {
            let known = [Hub::current().client(), Hub::main().client()];
            let mut known = known.into_iter().flatten().collect::<Vec<_>>();
            // Stable: otherwise the current hub comes before the main hub.
            known.sort_by_key(|client| !client.is_enabled());
            known.into_iter().next()
        }
    }
}

fn client_problem(client: Option<&Client>) -> Option<SetupProblem> {
    let Some(client) = client else {
        return Some(SetupProblem::NoClient);
    };
    let options = client.options();
    if options.dsn.is_none() {
        Some(SetupProblem::NoDsn)
    } else if options.transport.is_none() {
        Some(SetupProblem::NoTransport)
    } else if !client.is_enabled() {
        Some(SetupProblem::ClientClosed)
    } else {
        None
    }
}

/// The problems that calls have shown so far.
fn call_problems() -> impl Iterator<Item = SetupProblem> {
    // Without a server layer, the transaction of SentryHttpLayer is the only one of a call.
    let has_two_transactions = send::is_http_layer_found() && call::is_layered(RpcSide::Server);
    let found = [
        (has_two_transactions, SetupProblem::ConflictingHttpLayer),
        (
            call::is_layered_twice(RpcSide::Server),
            SetupProblem::DuplicateServerLayer,
        ),
        (
            call::is_layered_twice(RpcSide::Client),
            SetupProblem::DuplicateClientLayer,
        ),
    ];
    found
        .into_iter()
        .filter_map(|(is_found, problem)| is_found.then_some(problem))
}
