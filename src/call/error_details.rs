//! The `google.rpc` details that a response brings, where they are read.

use sentry_core::protocol::{Event, Value};

#[cfg(feature = "error-details")]
pub(crate) use self::on::SeenDetails;

#[cfg(not(feature = "error-details"))]
pub(crate) use self::off::SeenDetails;

/// Attributes of a span.
type Attributes = Vec<(String, Value)>;

#[cfg(feature = "error-details")]
mod on {
    use http::HeaderMap;
    use sentry_core::protocol::Context;

    use crate::call::error_details::{Attributes, Event};
    use crate::report;
    use crate::rpc;

    #[derive(Debug, Default)]
    pub(crate) struct SeenDetails(Option<rpc::ErrorDetails>);

    impl SeenDetails {
        pub(crate) fn see(&mut self, headers: &HeaderMap) {
            if let Some(details) = rpc::error_details(headers) {
                self.0 = Some(details);
            }
        }

        pub(crate) fn attributes(&self, sends_pii: bool) -> Attributes {
            let details = self.0.as_ref();
            details.map_or_else(Vec::new, |details| {
                report::error_attributes(details, sends_pii)
            })
        }

        pub(crate) fn tell(&self, event: &mut Event<'_>, sends_pii: bool) {
            let context = report::error_context(&self.attributes(sends_pii));
            if !context.is_empty() {
                let name = report::ERROR_CONTEXT.to_owned();
                event.contexts.insert(name, Context::Other(context));
            }
        }
    }
}

#[cfg(not(feature = "error-details"))]
mod off {
    use http::HeaderMap;

    use crate::call::error_details::{Attributes, Event};

    #[derive(Debug, Default)]
    pub(crate) struct SeenDetails;

    #[expect(
        clippy::unused_self,
        reason = "has the signatures of the one that reads them"
    )]
    impl SeenDetails {
        pub(crate) fn see(&mut self, _: &HeaderMap) {}

        pub(crate) fn attributes(&self, _: bool) -> Attributes {
            Attributes::new()
        }

        pub(crate) fn tell(&self, _: &mut Event<'_>, _: bool) {}
    }
}
