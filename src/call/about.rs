//! What is known of a call, for whoever reports it.

use std::borrow::Cow;
use std::sync::Arc;

use sentry_core::protocol::{Map, Value};

use crate::call::head::CallHead;
use crate::call::options::CallOptions;
use crate::fields;
use crate::lifecycle::RequestProgress;
use crate::report::Metadata;
use crate::rpc::RpcSide;
use crate::span_ext::AboutRpc;

/// A call and the options of its layer. Shared by all parts of this crate that handle the call.
#[derive(Debug)]
pub(crate) struct AboutCall {
    pub(crate) head: CallHead,
    pub(crate) options: Arc<CallOptions>,
    pub(crate) progress: RequestProgress,
    /// The name that the application gives it.
    pub(crate) name: Option<String>,
    pub(crate) metadata: Metadata,
    /// Whether the Sentry client has `send_default_pii`.
    pub(crate) sends_pii: bool,
}

impl AboutCall {
    pub(crate) fn new(head: CallHead, options: &Arc<CallOptions>) -> Self {
        Self {
            head,
            options: Arc::clone(options),
            progress: RequestProgress::default(),
            name: None,
            metadata: Metadata::default(),
            sends_pii: false,
        }
    }
}

impl AboutRpc for AboutCall {
    fn name(&self) -> &str {
        self.name
            .as_deref()
            .unwrap_or_else(|| self.head.known_path())
    }

    fn service(&self) -> &str {
        self.head.known_as().0
    }

    fn method(&self) -> &str {
        self.head.known_as().1
    }

    fn context(&self) -> Option<Map<String, Value>> {
        if !self.options.attach_rpc_context {
            return None;
        }
        let peer = self.head.peer.filter(|_| self.sends_pii);
        let known = [
            ("system", Some("grpc".into())),
            ("service", Some(self.head.path.service().into())),
            ("method", Some(self.head.path.method().into())),
            ("server_id", self.options.server_id.clone().map(Value::from)),
            (
                "peer_address",
                peer.map(|peer| peer.ip().to_string().into()),
            ),
            (
                "request_metadata",
                (!self.metadata.is_empty()).then(|| self.metadata.to_value()),
            ),
        ];
        let known = known
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Some(known.collect())
    }

    fn data(&self) -> Vec<(Cow<'static, str>, Value)> {
        let names = self.head.names(self.options.conventions);
        let kind = match self.head.side {
            RpcSide::Server => "server",
            RpcSide::Client => "client",
        };
        let peer = self.head.peer.filter(|_| self.sends_pii);
        let text = |text: Option<&str>| text.map(Value::from);
        let known = [
            (fields::SENTRY_KIND, text(Some(kind))),
            (fields::RPC_SYSTEM, text(names.system)),
            (fields::RPC_SYSTEM_NAME, text(names.system_name)),
            (fields::RPC_SERVICE, text(names.service)),
            (fields::RPC_METHOD, text(Some(names.method))),
            (fields::RPC_METHOD_ORIGINAL, text(names.original)),
            (fields::SERVER_ADDRESS, text(self.head.server_address())),
            (
                fields::SERVER_PORT,
                self.head.server_port().map(Value::from),
            ),
            (
                fields::NETWORK_PEER_ADDRESS,
                peer.map(|peer| peer.ip().to_string().into()),
            ),
            (
                fields::NETWORK_PEER_PORT,
                peer.map(|peer| peer.port().into()),
            ),
        ];
        let metadata = self
            .metadata
            .attributes(self.options.conventions, self.sends_pii);
        let mut data = Vec::with_capacity(known.len() + metadata.len());
        data.extend(
            known
                .into_iter()
                .filter_map(|(name, value)| Some((Cow::Borrowed(name), value?))),
        );
        data.extend(
            metadata
                .into_iter()
                .map(|(name, value)| (Cow::Owned(name), value)),
        );
        data
    }
}
