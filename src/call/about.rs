//! What is known of a call, for whoever reports it.

use std::sync::Arc;

use sentry_core::protocol::{Map, Value};

use crate::call::head::CallHead;
use crate::call::options::CallOptions;
use crate::fields;
use crate::lifecycle::RequestProgress;
use crate::report::{Attribute, Metadata, SeeAttribute};
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

    fn attributes(&self, see: SeeAttribute<'_>) {
        let names = self.head.names(self.options.conventions);
        let kind = match self.head.side {
            RpcSide::Server => "server",
            RpcSide::Client => "client",
        };
        for (name, text) in [
            (fields::SENTRY_KIND, Some(kind)),
            (fields::RPC_SYSTEM, names.system),
            (fields::RPC_SYSTEM_NAME, names.system_name),
            (fields::RPC_SERVICE, names.service),
            (fields::RPC_METHOD, Some(names.method)),
            (fields::RPC_METHOD_ORIGINAL, names.original),
            (fields::SERVER_ADDRESS, self.head.server_address()),
        ] {
            if let Some(text) = text {
                see(name, Attribute::Text(text));
            }
        }
        if let Some(port) = self.head.server_port() {
            see(fields::SERVER_PORT, Attribute::Number(port));
        }
        if let Some(peer) = self.head.peer.filter(|_| self.sends_pii) {
            let address = peer.ip().to_string();
            see(fields::NETWORK_PEER_ADDRESS, Attribute::Text(&address));
            let port = peer.port().into();
            see(fields::NETWORK_PEER_PORT, Attribute::Number(port));
        }
        let conventions = self.options.conventions;
        for (name, value) in self.metadata.attributes(conventions, self.sends_pii) {
            see(&name, Attribute::Json(&value));
        }
    }
}
