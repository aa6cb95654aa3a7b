//! Which calls are ignored.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;

use crate::rpc::contained::contained;
use crate::rpc::method::MethodPath;
use crate::rpc::method_patterns::MethodPatterns;

/// Called by machines, again and again: of no interest in Sentry.
const DEFAULT_PATTERNS: [&str; 3] = [
    "/grpc.health.v1.Health/*",
    "/grpc.reflection.v1.ServerReflection/*",
    "/grpc.reflection.v1alpha.ServerReflection/*",
];

type PartsFn = dyn Fn(&Parts) -> bool + Send + Sync;

/// Matches calls by patterns for their paths, or by a closure.
#[derive(Clone)]
pub(crate) struct MethodFilter {
    patterns: MethodPatterns,
    also: Option<Arc<PartsFn>>,
}

impl MethodFilter {
    pub(crate) fn set_patterns(&mut self, patterns: impl IntoIterator<Item = String>) {
        self.patterns = MethodPatterns::new(patterns);
    }

    pub(crate) fn set_also(&mut self, also: impl Fn(&Parts) -> bool + Send + Sync + 'static) {
        self.also = Some(Arc::new(also));
    }

    /// A closure that panics matches nothing.
    pub(crate) fn matches(&self, path: &MethodPath, parts: &Parts) -> bool {
        let also = |also: &Arc<PartsFn>| contained(|| also(parts)).unwrap_or(false);
        self.patterns.matches(path) || self.also.as_ref().is_some_and(also)
    }
}

impl Default for MethodFilter {
    fn default() -> Self {
        Self {
            patterns: MethodPatterns::new(DEFAULT_PATTERNS.map(str::to_owned)),
            also: None,
        }
    }
}

impl fmt::Debug for MethodFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MethodFilter")
            .field("patterns", &self.patterns)
            .field("also", &self.also.is_some())
            .finish()
    }
}
