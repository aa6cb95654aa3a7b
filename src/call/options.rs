//! What both layers can be told.

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::request::Parts;

use crate::report::Capture;
use crate::rpc::{MethodFilter, MethodPath};
use crate::span_ext::RpcStart;

type NameFn = dyn Fn(&Parts) -> String + Send + Sync;

/// How the calls of a layer are shown in Sentry.
#[derive(Clone)]
pub(crate) struct CallOptions {
    pub(crate) op: Cow<'static, str>,
    pub(crate) name: Option<Arc<NameFn>>,
    pub(crate) capture: Capture,
    pub(crate) breadcrumbs: bool,
    pub(crate) ignored: MethodFilter,
}

impl CallOptions {
    pub(crate) fn new(op: &'static str, capture: Capture, breadcrumbs: bool) -> Self {
        Self {
            op: op.into(),
            name: None,
            capture,
            breadcrumbs,
            ignored: MethodFilter::default(),
        }
    }

    /// What the Sentry layer is told of a call by default.
    pub(crate) fn start(&self, path: &MethodPath, parts: &Parts) -> RpcStart {
        let named = self.name.as_ref().and_then(|name| {
            // A naming function that panics must not take the call with it.
            catch_unwind(AssertUnwindSafe(|| name(parts))).ok()
        });
        RpcStart {
            op: self.op.clone(),
            name: named.unwrap_or_else(|| path.full().to_owned()),
            service: path.service().to_owned(),
            method: path.method().to_owned(),
            incoming: None,
            force_transaction: false,
            only_if_parent: false,
        }
    }
}

impl fmt::Debug for CallOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            op,
            name,
            capture,
            breadcrumbs,
            ignored,
        } = self;
        f.debug_struct("CallOptions")
            .field("op", op)
            .field("name", &name.is_some())
            .field("capture", capture)
            .field("breadcrumbs", breadcrumbs)
            .field("ignored", ignored)
            .finish()
    }
}
