//! What both layers can be told.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use sentry_core::protocol::{Map, Value};

use crate::fields;
use crate::report::{
    self, Capture, EventLimiter, Metadata, MetadataOptions, MetadataPlace, RpcMetrics, RpcOutcome,
    SemanticConventions,
};
use crate::rpc::{self, MethodFilter, MethodPath, MethodPatterns};
use crate::span_ext::{RpcFacts, RpcStart};
use crate::watch::OnPanic;

type NameFn = dyn Fn(&Parts) -> String + Send + Sync;
type FingerprintFn = dyn Fn(&RpcOutcome<'_>) -> Vec<String> + Send + Sync;

/// Of one method and code, in a minute: more tell no more.
const DEFAULT_MAX_EVENTS: u32 = 100;

/// How the calls of a layer are shown in Sentry.
#[derive(Clone)]
pub(crate) struct CallOptions {
    pub(crate) conventions: SemanticConventions,
    pub(crate) op: Cow<'static, str>,
    pub(crate) name: Option<Arc<NameFn>>,
    pub(crate) capture: Capture,
    pub(crate) fingerprint: Option<Arc<FingerprintFn>>,
    /// Shared by all services of a layer.
    pub(crate) limiter: Option<Arc<EventLimiter>>,
    pub(crate) on_panic: OnPanic,
    pub(crate) breadcrumbs: bool,
    pub(crate) ignored: MethodFilter,
    /// `None` where it is not known which methods there are.
    pub(crate) known: Option<MethodPatterns>,
    /// `None` where it is not known which methods stream.
    pub(crate) streaming: Option<MethodPatterns>,
    pub(crate) metadata: MetadataOptions,
    pub(crate) metrics: RpcMetrics,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) rpc_context: bool,
    pub(crate) server_id: Option<String>,
}

impl CallOptions {
    pub(crate) fn new(op: &'static str, capture: Capture) -> Self {
        Self {
            conventions: SemanticConventions::from_env(),
            op: op.into(),
            name: None,
            capture,
            fingerprint: None,
            limiter: Some(Arc::new(EventLimiter::new(DEFAULT_MAX_EVENTS))),
            on_panic: OnPanic::Ignore,
            breadcrumbs: false,
            ignored: MethodFilter::default(),
            known: None,
            streaming: None,
            metadata: MetadataOptions::default(),
            metrics: RpcMetrics::default(),
            tags: Vec::new(),
            rpc_context: true,
            server_id: None,
        }
    }

    /// Whether there is such a method, as far as is known.
    pub(crate) fn knows(&self, path: &MethodPath) -> bool {
        self.known.as_ref().is_none_or(|known| known.matches(path))
    }

    /// What the Sentry layer is told of a call by default.
    pub(crate) fn start(&self, path: &MethodPath, parts: &Parts, sends_pii: bool) -> RpcStart {
        let named = self.name.as_ref().and_then(|name| {
            // A naming function that panics must not take the call with it.
            rpc::contained(|| name(parts))
        });
        let (full, service, method) = match self.knows(path) {
            true => (path.full(), path.service(), path.method()),
            false => (fields::UNKNOWN_METHOD, "", fields::UNKNOWN_METHOD),
        };
        RpcStart {
            op: self.op.clone(),
            name: named.unwrap_or_else(|| full.to_owned()),
            service: service.to_owned(),
            method: method.to_owned(),
            incoming: None,
            force_transaction: false,
            only_if_parent: false,
            is_run_by_others: false,
            facts: self.facts(path, parts, sends_pii),
            limiter: self.limiter.clone(),
        }
    }

    fn facts(&self, path: &MethodPath, parts: &Parts, sends_pii: bool) -> RpcFacts {
        let mut metadata = Metadata::default();
        let MetadataOptions {
            request, denied, ..
        } = &self.metadata;
        metadata.add(
            MetadataPlace::Request,
            &parts.headers,
            request,
            denied,
            sends_pii,
        );
        RpcFacts {
            context: self.rpc_context.then(|| self.context(path, &metadata)),
            data: metadata.attributes(self.conventions, sends_pii),
            tags: self.tags.clone(),
            user: None,
            is_session: false,
        }
    }

    fn context(&self, path: &MethodPath, metadata: &Metadata) -> Map<String, Value> {
        let text = |text: &str| Value::from(text);
        let known = [
            ("system", Some(text("grpc"))),
            ("service", Some(text(path.service()))),
            ("method", Some(text(path.method()))),
            ("server_id", self.server_id.as_deref().map(text)),
            (
                "request_metadata",
                (!metadata.is_empty()).then(|| metadata.to_value()),
            ),
        ];
        let known = known
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let mut context = known.collect();
        if let Some(streaming) = &self.streaming {
            report::set_method_type(&mut context, streaming.matches(path));
        }
        context
    }

    /// Issues are grouped as the application says, or as they are by default where
    /// it panics.
    pub(crate) fn fingerprint(&self, outcome: &RpcOutcome<'_>) -> Option<Vec<String>> {
        let fingerprint = self.fingerprint.as_ref()?;
        rpc::contained(|| fingerprint(outcome))
    }
}

impl fmt::Debug for CallOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            conventions,
            op,
            name,
            capture,
            fingerprint,
            limiter,
            on_panic,
            breadcrumbs,
            ignored,
            known,
            streaming,
            metadata,
            metrics,
            tags,
            rpc_context,
            server_id,
        } = self;
        f.debug_struct("CallOptions")
            .field("conventions", conventions)
            .field("op", op)
            .field("name", &name.is_some())
            .field("capture", capture)
            .field("fingerprint", &fingerprint.is_some())
            .field("limiter", &limiter.is_some())
            .field("on_panic", on_panic)
            .field("breadcrumbs", breadcrumbs)
            .field("ignored", ignored)
            .field("known", known)
            .field("streaming", streaming)
            .field("metadata", metadata)
            .field("metrics", metrics)
            .field("tags", tags)
            .field("rpc_context", rpc_context)
            .field("server_id", server_id)
            .finish()
    }
}
