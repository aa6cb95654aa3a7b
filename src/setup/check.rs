//! Checks the client, the subscriber, and what calls have shown so far.

use std::sync::Arc;

use sentry_core::{Client, Hub, Scope, TracesSamplingStrategy};
use sentry_tracing::{ErrorLayer, SpanLayer};
use tracing::dispatcher::{self, Dispatch};
use tracing::info_span;
use tracing::subscriber::NoSubscriber;

use crate::bridge::SentryTracingLayer;
use crate::call;
use crate::fields;
use crate::rpc::{self, RpcSide};
use crate::setup::hint::{self, OtelIds};
use crate::setup::problem::SetupProblem;
use crate::setup::report::SetupReport;
use crate::span_ext::{self, LayerSeen};

/// Looks at how this process is set up, and says in plain words what is wrong.
///
/// For developers: call it once, after `sentry::init` and after the subscriber was made, on the
/// main thread or wherever the subscriber is the default one, and print what it returns. It looks
/// for a Sentry client that is bound and can send, for tracing that is not disabled, for one
/// [`SentryTracingLayer`](crate::SentryTracingLayer) that sees the spans of calls, and for
/// layers of sentry-tracing that do the same work. A second call, after the first RPCs, also
/// tells whether these came through the tower layers, and through two of a kind.
///
/// ```
/// // In `main`, where the rest is set up.
/// if cfg!(debug_assertions) {
///     eprintln!("{}", sentry_tonic::check_setup());
/// }
/// ```
///
/// To find out, it opens a span `sentry_tonic.check_setup` and closes it at once, which other
/// layers, such as one of OpenTelemetry, see as they see any span of the level INFO and the
/// target `sentry_tonic`. Nothing is sent to Sentry, and nothing is changed. Never panics.
#[must_use = "it says what is wrong"]
pub fn check_setup() -> SetupReport {
    // Inside of `get_default` there is no other default.
    let dispatch = dispatcher::get_default(Dispatch::clone);
    let probed = probe(&dispatch);
    let client = client(&probed);
    let mut problems = vec![];
    problems.extend(problem_of(client.as_deref()));
    probed.tell(&mut problems);
    for (side, problem) in [
        (RpcSide::Server, SetupProblem::DuplicateServerLayer),
        (RpcSide::Client, SetupProblem::DuplicateClientLayer),
    ] {
        if call::is_layered_twice(side) {
            problems.push(problem);
        }
    }
    let hints = [
        vec![hint::OTHER_CRATES, hint::THE_END],
        hint::of_calls([RpcSide::Server, RpcSide::Client].map(call::is_layered)),
        hint::of_otel(probed.otel_ids()),
        hint::of_client(client.as_deref()),
    ];
    SetupReport::new(problems, hints.concat())
}

/// What the subscriber of this thread did with the probe.
struct Probed {
    has_subscriber: bool,
    /// The layers of this crate that saw the probe.
    seen: Vec<LayerSeen>,
    /// Whether all layers were shown the probe, and none has panicked.
    is_whole: bool,
    /// A layer of this crate that is there, whether it saw the probe or not. One in a
    /// `reload::Layer` is found only if it did.
    registered: Option<LayerSeen>,
    has_span_layer: bool,
    has_error_layer: bool,
    /// Whether the probe has ids in OpenTelemetry, as far as the layers can tell.
    has_otel_ids: bool,
}

fn probe(dispatch: &Dispatch) -> Probed {
    let registered = dispatch.downcast_ref::<SentryTracingLayer>();
    let mut has_span_layer = dispatch.is::<SpanLayer>();
    let mut has_otel_ids = false;
    let mut is_whole = false;
    let seen = span_ext::seen_by(|| {
        // Without a client, whatever other layers make of the probe is not sent.
        let nowhere = Hub::new(None, Arc::new(Scope::default()));
        let hub = Arc::new(nowhere);
        // The layers of sentry-tracing panic where two of them meet.
        let opened = rpc::contained(|| {
            Hub::run(hub, || {
                let span = info_span!(target: fields::TARGET, parent: None, fields::PROBE_SPAN);
                span.in_scope(|| {
                    has_otel_ids = span_ext::has_otel_ids(&span);
                    // Our layer puts no span on the scope here, but the combined layer of
                    // sentry-tracing does, which cannot be found by its type.
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

    fn tell(&self, problems: &mut Vec<SetupProblem>) {
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
    }
}

/// The client that would be told of a call outside of any span; if none can send, one that
/// cannot.
fn client(probed: &Probed) -> Option<Arc<Client>> {
    match probed.layer().and_then(|layer| layer.hub.clone()) {
        Some(pinned) => pinned.client(),
        None => {
            let known = [Hub::current().client(), Hub::main().client()];
            let mut known = known.into_iter().flatten().collect::<Vec<_>>();
            // Those that can send first; else in their order.
            known.sort_by_key(|client| !client.is_enabled());
            known.into_iter().next()
        }
    }
}

fn problem_of(client: Option<&Client>) -> Option<SetupProblem> {
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
    } else if matches!(
        options.traces_sampling_strategy,
        TracesSamplingStrategy::Disabled
    ) {
        Some(SetupProblem::TracingDisabled)
    } else {
        None
    }
}
