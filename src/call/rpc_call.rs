//! One observed RPC: joins how it is watched to what is reported of it.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Uri};
use tracing::Span;

use crate::call::about::AboutCall;
use crate::call::address;
use crate::call::error_details::SeenDetails;
use crate::call::head::CallHead;
use crate::call::options::CallOptions;
use crate::call::span;
use crate::lifecycle::{Finished, Observer, PanicPolicy, RequestProgress, Watch};
#[cfg(feature = "opentelemetry")]
use crate::report::MetadataOptions;
use crate::report::{Metadata, MetadataPlace, OutcomeAttributes};
use crate::rpc::{MethodPath, Outcome, RpcSide};
use crate::span_ext::{
    self, AboutRpc, Enterer, HeldPanics, Muted, RpcFacts, RpcKey, RpcStart, SpanEntered, SpanSink,
};

/// A running RPC and its span.
#[derive(Debug)]
pub struct RpcCall {
    pub(crate) span: Span,
    /// What records the span; `None` where no layer of ours does.
    sink: Option<Arc<dyn SpanSink>>,
    /// Nothing is reported of it, nor of what is traced in it.
    is_ignored: bool,
    pub(crate) about: Arc<AboutCall>,
    pub(crate) response: SeenResponse,
}

/// What is kept of a response.
#[derive(Debug, Default)]
pub(crate) struct SeenResponse {
    has_head: bool,
    pub(crate) metadata: Metadata,
    pub(crate) details: SeenDetails,
}

/// Enters the span of an RPC, but does not end it: for request bodies.
#[derive(Debug)]
pub struct RpcScope {
    span: Span,
    sink: Option<Arc<dyn SpanSink>>,
    is_ignored: bool,
    about: Arc<AboutCall>,
}

/// In a call, until it is dropped.
#[derive(Debug)]
pub struct RpcEntered<'a> {
    // Dropped before the span: it sends events in it.
    _held: Option<HeldPanics>,
    _span: SpanEntered<'a>,
    _muted: Option<Muted>,
}

impl RpcCall {
    /// Opens the span of an RPC that a server received. The call is observed even where no layer
    /// wants the span: what a caller gets must not depend on that.
    pub(crate) fn open_server(
        path: &MethodPath,
        parts: &mut Parts,
        options: &Arc<CallOptions>,
    ) -> Self {
        let mut head = CallHead::of_server(path, parts, options);
        let (span, sink) = span_ext::opened(|| span::open(&head, options.conventions));
        if !span.is_disabled() {
            head.peer = address::remote_addr(parts);
            span::record_peer(&span, &head);
        }
        Self::new(span, sink, head, options)
    }

    /// Opens the span of an RPC that a client makes; `None` where no subscriber
    /// wants it.
    pub(crate) fn open_client(
        path: &MethodPath,
        server: Option<&Uri>,
        options: &Arc<CallOptions>,
    ) -> Option<Self> {
        let head = CallHead::of_client(path, server);
        let (span, sink) = span_ext::opened(|| span::open(&head, options.conventions));
        let is_wanted = !span.is_disabled() || options.metrics.is_on();
        is_wanted.then(|| Self::new(span, sink, head, options))
    }

    /// For a call of which nothing is to be reported.
    pub(crate) fn ignore(path: &MethodPath, parts: &Parts, options: &Arc<CallOptions>) -> Self {
        let head = CallHead::of_server(path, parts, options);
        Self {
            is_ignored: true,
            ..Self::new(Span::none(), None, head, options)
        }
    }

    fn new(
        span: Span,
        sink: Option<Arc<dyn SpanSink>>,
        head: CallHead,
        options: &Arc<CallOptions>,
    ) -> Self {
        Self {
            span,
            sink,
            is_ignored: false,
            about: Arc::new(AboutCall::new(head, options)),
            response: SeenResponse::default(),
        }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    fn key(&self) -> RpcKey {
        RpcKey::of(&self.about)
    }

    pub(crate) fn sink(&self) -> Option<&Arc<dyn SpanSink>> {
        self.sink.as_ref()
    }

    pub(crate) fn options(&self) -> &CallOptions {
        &self.about.options
    }

    pub(crate) fn scope(&self) -> RpcScope {
        RpcScope {
            span: self.span.clone(),
            sink: self.sink.clone(),
            is_ignored: self.is_ignored,
            about: Arc::clone(&self.about),
        }
    }

    /// Tells the Sentry layer that this is the span of an RPC; `complete` is called only where
    /// there is such a layer.
    pub(crate) fn announce(&mut self, parts: &Parts, complete: impl FnOnce(&mut RpcStart)) {
        let Some(sink) = &self.sink else {
            return;
        };
        self.span
            .with_subscriber(|(_, dispatch)| sink.learn_dispatch(dispatch));
        // It is not shared yet.
        if let Some(about) = Arc::get_mut(&mut self.about) {
            about.sends_pii = sink.sends_pii();
            about.name = about.options.name_of(parts);
            about.metadata = about.options.metadata_of(parts, about.sends_pii);
        }
        let options = &self.about.options;
        let mut start = RpcStart {
            op: options.op.clone(),
            about: Arc::clone(&self.about) as Arc<dyn AboutRpc>,
            incoming: None,
            force_transaction: false,
            only_if_parent: false,
            is_run_by_others: false,
            facts: RpcFacts {
                tags: options.tags.clone(),
                ..RpcFacts::default()
            },
            limiter: options.limiter.clone(),
        };
        complete(&mut start);
        sink.open(start);
    }

    pub(crate) fn outcome_attributes<'a>(
        &self,
        finished: &'a Finished<'_>,
    ) -> OutcomeAttributes<'a> {
        OutcomeAttributes {
            conventions: self.options().conventions,
            side: self.about.head.side,
            outcome: &finished.outcome,
            request_messages: self.progress().messages(),
            response_messages: finished.response_messages,
        }
    }

    /// Whether a panic ends the call, and not the process.
    fn catches_panics(&self) -> bool {
        cfg!(panic = "unwind") && self.panic_policy() != PanicPolicy::Ignore
    }

    /// Sets the captured metadata on the span in OpenTelemetry; the Sentry layer gets it with
    /// [`announce`](Self::announce).
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn tell_otel(&self, request: &HeaderMap) {
        let MetadataOptions {
            request: allowed,
            denied,
            ..
        } = &self.options().metadata;
        let mut metadata = Metadata::default();
        metadata.add(MetadataPlace::Request, request, allowed, denied, false);
        self.set_otel_attributes(&metadata);
    }

    #[cfg(feature = "opentelemetry")]
    fn set_otel_attributes(&self, metadata: &Metadata) {
        if !metadata.is_empty() {
            let attributes = metadata.attributes(self.options().conventions, false);
            span_ext::set_otel_attributes(&self.span, attributes);
        }
    }
}

/// For a call that is parked with its span, and must not hold it.
#[cfg(feature = "tower-http")]
impl RpcCall {
    pub(crate) fn take_span(&mut self) -> Span {
        std::mem::replace(&mut self.span, Span::none())
    }

    pub(crate) fn set_span(&mut self, span: Span) {
        self.span = span;
    }
}

impl Watch for RpcCall {
    type Entered<'a> = RpcEntered<'a>;

    fn enter(&self) -> RpcEntered<'_> {
        RpcEntered {
            _span: span_ext::enter(&self.span, self.sink.as_ref(), self.key(), Enterer::Runner),
            _held: self.catches_panics().then(HeldPanics::new),
            _muted: self.is_ignored.then(Muted::new),
        }
    }

    fn progress(&self) -> &RequestProgress {
        &self.about.progress
    }
}

impl Drop for RpcScope {
    fn drop(&mut self) {
        span_ext::drop_span(std::mem::replace(&mut self.span, Span::none()));
    }
}

impl Watch for RpcScope {
    type Entered<'a> = RpcEntered<'a>;

    fn enter(&self) -> RpcEntered<'_> {
        let key = RpcKey::of(&self.about);
        // As where the handler reads its request.
        let is_inside = key.is_current();
        let enter = || span_ext::enter(&self.span, self.sink.as_ref(), key, Enterer::Guest);
        RpcEntered {
            _held: None,
            _span: (!is_inside).then(enter).unwrap_or_default(),
            _muted: self.is_ignored.then(Muted::new),
        }
    }

    fn progress(&self) -> &RequestProgress {
        &self.about.progress
    }
}

impl Observer for RpcCall {
    fn panic_policy(&self) -> PanicPolicy {
        match self.is_ignored {
            true => PanicPolicy::Ignore,
            false => self.options().panic_policy,
        }
    }

    fn side(&self) -> RpcSide {
        self.about.head.side
    }

    fn see_response(&mut self, headers: &HeaderMap) {
        if self.is_ignored {
            return;
        }
        let options = &self.about.options.metadata;
        let sends_pii = self.about.sends_pii;
        if sends_pii || !options.response.is_empty() {
            // The head of a trailers-only response is its trailers.
            let is_last = self.response.has_head || Outcome::is_in(headers);
            let place = match is_last {
                true => MetadataPlace::Trailer,
                false => MetadataPlace::Header,
            };
            let metadata = &mut self.response.metadata;
            metadata.add(
                place,
                headers,
                &options.response,
                &options.denied,
                sends_pii,
            );
        }
        self.response.has_head = true;
        self.response.details.see(headers);
    }

    fn end(self, mut finished: Finished<'_>) {
        if self.is_ignored {
            return;
        }
        // The request was cut off, so nobody is there to read the answer. It shows in how the
        // call fails: with the error of the request body, or, where tonic took that for the
        // end, for want of a message.
        if self.about.head.side == RpcSide::Server
            && let Some(cut) = self.progress().cut()
            && (finished.outcome == *cut || finished.outcome.is_of_cut_request())
        {
            finished.outcome = Outcome::dropped();
        }
        // The last exit is the end of a span in OpenTelemetry.
        let entered = self.enter();
        self.outcome_attributes(&finished).record(&self.span);
        #[cfg(feature = "opentelemetry")]
        self.set_otel_attributes(&self.response.metadata);
        self.tell(&finished);
        drop(entered);
        span_ext::drop_span(self.span);
    }
}
