//! What a server layer can be told, shared by all the services it makes.

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use crate::rpc::MethodPath;

const DEFAULT_OP: &str = "grpc.server";

type NameFn = dyn Fn(&Parts) -> String + Send + Sync;

#[derive(Clone)]
pub(crate) struct ServerOptions {
    pub(crate) op: Cow<'static, str>,
    pub(crate) name: Option<Arc<NameFn>>,
    pub(crate) force_transaction: bool,
    pub(crate) server_timeout: Option<Duration>,
}

impl ServerOptions {
    pub(crate) fn name(&self, path: &MethodPath, parts: &Parts) -> String {
        let named = self.name.as_ref().and_then(|name| {
            // A naming function that panics must not take the call with it.
            catch_unwind(AssertUnwindSafe(|| name(parts))).ok()
        });
        named.unwrap_or_else(|| path.full().to_owned())
    }
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            op: DEFAULT_OP.into(),
            name: None,
            force_transaction: false,
            server_timeout: None,
        }
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            op,
            name,
            force_transaction,
            server_timeout,
        } = self;
        f.debug_struct("ServerOptions")
            .field("op", op)
            .field("name", &name.is_some())
            .field("force_transaction", force_transaction)
            .field("server_timeout", server_timeout)
            .finish()
    }
}
