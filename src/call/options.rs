//! The options that client and server layer share.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::request::Parts;

use crate::lifecycle::PanicPolicy;
use crate::report::{
    self, Capture, EventLimiter, Metadata, MetadataOptions, MetadataPlace, RpcMetrics, RpcOutcome,
    SemanticConventions,
};
use crate::rpc::{self, MethodFilter, MethodPath, MethodPatterns};

type NameFn = dyn Fn(&Parts) -> String + Send + Sync;
type FingerprintFn = dyn Fn(&RpcOutcome<'_>) -> Vec<String> + Send + Sync;

/// For one method and code, in a minute: more of them tell nothing new.
const DEFAULT_MAX_EVENTS: u32 = 100;

/// How the calls of a layer are shown in Sentry.
#[derive(Clone)]
pub(crate) struct CallOptions {
    pub(crate) conventions: SemanticConventions,
    pub(crate) op: Cow<'static, str>,
    pub(crate) span_name: Option<Arc<NameFn>>,
    pub(crate) capture: Capture,
    pub(crate) fingerprint: Option<Arc<FingerprintFn>>,
    /// Shared by all services of a layer.
    pub(crate) limiter: Option<Arc<EventLimiter>>,
    pub(crate) panic_policy: PanicPolicy,
    pub(crate) breadcrumbs: bool,
    pub(crate) ignored: MethodFilter,
    /// `None` where it is not known which methods there are.
    pub(crate) known: Option<MethodPatterns>,
    pub(crate) metadata: MetadataOptions,
    pub(crate) metrics: RpcMetrics,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) attach_rpc_context: bool,
    pub(crate) server_id: Option<String>,
}

impl CallOptions {
    pub(crate) fn new(op: &'static str, capture: Capture) -> Self {
        Self {
            conventions: SemanticConventions::from_env(),
            op: op.into(),
            span_name: None,
            capture,
            fingerprint: None,
            limiter: Some(Arc::new(EventLimiter::new(DEFAULT_MAX_EVENTS))),
            panic_policy: PanicPolicy::Ignore,
            breadcrumbs: false,
            ignored: MethodFilter::default(),
            known: None,
            metadata: MetadataOptions::default(),
            metrics: RpcMetrics::default(),
            tags: Vec::new(),
            attach_rpc_context: true,
            server_id: None,
        }
    }

    /// Whether the method exists, as far as is known.
    pub(crate) fn knows(&self, path: &MethodPath) -> bool {
        self.known.as_ref().is_none_or(|known| known.matches(path))
    }

    /// The name that the application gives a call. Where its function panics, there is none, and
    /// the call goes on.
    pub(crate) fn name_of(&self, parts: &Parts) -> Option<String> {
        let name = self.span_name.as_ref()?;
        rpc::contained(|| {
            let name = name(parts);
            match report::bounded_name(&name) {
                cut if cut.len() < name.len() => cut.to_owned(),
                _ => name,
            }
        })
    }

    /// The metadata of a request that may be sent.
    pub(crate) fn metadata_of(&self, parts: &Parts, sends_pii: bool) -> Metadata {
        let mut metadata = Metadata::default();
        let MetadataOptions {
            request, denied, ..
        } = &self.metadata;
        let place = MetadataPlace::Request;
        metadata.add(place, &parts.headers, request, denied, sends_pii);
        metadata
    }

    /// The fingerprint that the application gives an event; `None` for the default one, also
    /// where its function panics.
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
            span_name,
            capture,
            fingerprint,
            limiter,
            panic_policy,
            breadcrumbs,
            ignored,
            known,
            metadata,
            metrics,
            tags,
            attach_rpc_context,
            server_id,
        } = self;
        f.debug_struct("CallOptions")
            .field("conventions", conventions)
            .field("op", op)
            .field("span_name", &span_name.is_some())
            .field("capture", capture)
            .field("fingerprint", &fingerprint.is_some())
            .field("limiter", &limiter.is_some())
            .field("panic_policy", panic_policy)
            .field("breadcrumbs", breadcrumbs)
            .field("ignored", ignored)
            .field("known", known)
            .field("metadata", metadata)
            .field("metrics", metrics)
            .field("tags", tags)
            .field("attach_rpc_context", attach_rpc_context)
            .field("server_id", server_id)
            .finish()
    }
}
