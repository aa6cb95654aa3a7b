//! The options that both layers have, in the same words.

/// Setters for a layer that has a method `with_call`, which gives its
/// [`CallOptions`](crate::call::CallOptions) to a closure.
macro_rules! call_setters {
    () => {
        /// Calls to leave alone besides those of [`ignore_services`](Self::ignore_services), by
        /// patterns for their paths: `*` stands for any text, as in `/internal.*` or `*/Ping`.
        ///
        /// Defaults to none.
        pub fn ignore_methods(
            self,
            patterns: impl IntoIterator<Item = impl Into<String>>,
        ) -> Self {
            let patterns = patterns.into_iter().map(Into::into);
            self.with_call(|call| call.ignored.set_methods(patterns))
        }

        /// Calls to leave alone besides those of [`ignore_services`](Self::ignore_services) and
        /// [`ignore_methods`](Self::ignore_methods): those for which `ignores` returns `true`.
        /// Called at most once for each call. Where it panics, the call is observed.
        ///
        /// Defaults to none.
        pub fn ignore_if(
            self,
            ignores: impl Fn(&::http::request::Parts) -> bool + Send + Sync + 'static,
        ) -> Self {
            self.with_call(|call| call.ignored.set_also(ignores))
        }

        /// Which failed calls become error events: those for which `wants` returns
        /// `true`. Called at the end of each call that is not OK and has not panicked,
        /// sampled or not, where a [`SentryGrpcLayer`](crate::SentryGrpcLayer) records
        /// it.
        ///
        /// It is also called for calls that were cancelled, on whatever thread drops
        /// them, and must not block. The last of this and
        /// [`capture_codes`](Self::capture_codes) holds. Where `wants` panics, there is
        /// no event.
        pub fn capture_if(
            self,
            wants: impl Fn(&crate::report::RpcOutcome<'_>) -> bool + Send + Sync + 'static,
        ) -> Self {
            let capture = crate::report::Capture::If(::std::sync::Arc::new(wants));
            self.with_call(|call| call.capture = capture)
        }

        /// How the events of failed calls are grouped into issues: by the parts that
        /// `fingerprint` returns, up to 32 of them with 1024 bytes each. `{{ default }}` among
        /// the parts stands for [what Sentry groups by]. Called for each event of this layer.
        /// Where it panics, the default holds.
        ///
        /// Defaults to the path of the method, the name of the code, and the type of the
        /// innermost [source](crate::RpcOutcome::source), or `panic`. The message, which may say
        /// anything, is never part of it.
        ///
        /// [what Sentry groups by]: https://docs.sentry.io/platforms/rust/usage/sdk-fingerprinting/
        pub fn fingerprint(
            self,
            fingerprint: impl Fn(&crate::report::RpcOutcome<'_>) -> Vec<String> + Send + Sync + 'static,
        ) -> Self {
            let fingerprint = ::std::sync::Arc::new(fingerprint);
            self.with_call(|call| call.fingerprint = Some(fingerprint))
        }

        /// How many events of this layer are sent in a minute for each method and code,
        /// and for the panics of each method, so that a storm of failures does not use up
        /// a quota. `None` is no limit. Clones of the layer share it.
        ///
        /// An event that is sent after others were held back has their number in `held_back` of
        /// its `rpc` context. Beyond 1024 methods and codes, the rest have one limit for each
        /// code. Panics of handlers that `sentry`'s panic integration reports count, too; what
        /// applications capture and trace themselves does not.
        ///
        /// Defaults to 100.
        pub fn max_events_per_minute(self, max: impl Into<Option<u32>>) -> Self {
            let limiter = max.into().map(crate::report::EventLimiter::new);
            self.with_call(|call| call.limiter = limiter.map(::std::sync::Arc::new))
        }

        /// Keys of the request's metadata whose values are captured: as
        /// `rpc.grpc.request.metadata.<key>` on the span, [with `_` for `-`][names], and
        /// as `request_metadata` in the `rpc` context of events. Up to sixteen values of a key
        /// are captured, and 1024 bytes of each.
        ///
        /// A value is `[Filtered]` if its key is [denied](Self::deny_metadata) or it is marked
        /// [sensitive](http::HeaderValue::set_sensitive). Of a `-bin` key, only the length of the
        /// value is captured.
        ///
        /// With `send_default_pii` all metadata is captured, as
        /// `rpc.request.metadata.<key>`, except for that of HTTP and gRPC themselves (`te`,
        /// `content-type`, `grpc-*`).
        ///
        /// Defaults to none.
        ///
        /// # Errors
        ///
        /// Where a key is one that no metadata can have.
        ///
        /// [names]: https://github.com/open-telemetry/semantic-conventions/blob/v1.38.0/docs/rpc/grpc.md
        pub fn request_metadata(
            self,
            keys: impl IntoIterator<Item = impl Into<String>>,
        ) -> Result<Self, crate::report::InvalidMetadataKey> {
            let keys = crate::report::MetadataKeys::new(keys)?;
            Ok(self.with_call(|call| call.metadata.request = keys))
        }

        /// Keys of the response's metadata whose values are captured, from its head
        /// and its trailers, as those of the [request](Self::request_metadata).
        ///
        /// Defaults to none.
        ///
        /// # Errors
        ///
        /// Where a key is one that no metadata can have.
        pub fn response_metadata(
            self,
            keys: impl IntoIterator<Item = impl Into<String>>,
        ) -> Result<Self, crate::report::InvalidMetadataKey> {
            let keys = crate::report::MetadataKeys::new(keys)?;
            Ok(self.with_call(|call| call.metadata.response = keys))
        }

        /// Terms by which secrets are recognized, besides the default ones: the value of a key
        /// that contains one, in upper or lower case, is `[Filtered]`, even if the key is asked
        /// for.
        ///
        /// The default ones are [Sentry's]: `auth`, `bearer`, `cookie`, `credential`,
        /// `csrf`, `identity`, `jwt`, `key`, `passwd`, `password`, `pwd`, `saml`, `secret`,
        /// `session`, `sid`, `sso`, `token` and `xsrf`.
        ///
        /// [Sentry's]: https://develop.sentry.dev/sdk/expected-features/data-handling/
        pub fn deny_metadata(self, terms: impl IntoIterator<Item = impl Into<String>>) -> Self {
            let terms = terms.into_iter().map(Into::into);
            self.with_call(|call| call.metadata.denied.add(terms))
        }

        /// A tag of all calls of this layer, on their spans and on the events of their failures.
        /// A tag that Sentry does not take is left out, as in
        /// [`RpcCaller::tag`](crate::RpcCaller::tag).
        ///
        /// Defaults to none.
        pub fn tag(self, key: &str, value: impl ::std::fmt::Display) -> Self {
            let tag = crate::report::bounded_tag(key, &value.to_string());
            self.with_call(|call| call.tags.extend(tag))
        }

        /// Whether events have a context `rpc` that says which call they belong to.
        ///
        /// Defaults to `true`.
        pub fn rpc_context(self, context: bool) -> Self {
            self.with_call(|call| call.rpc_context = context)
        }

        /// The names that the attributes of spans have, in Sentry and in an OpenTelemetry layer.
        ///
        /// Defaults to what `OTEL_SEMCONV_STABILITY_OPT_IN` says, see
        /// [`SemanticConventions::from_env`](crate::SemanticConventions::from_env), else to
        /// [`SemanticConventions::Legacy`](crate::SemanticConventions::Legacy).
        pub fn semantic_conventions(
            self,
            conventions: crate::report::SemanticConventions,
        ) -> Self {
            self.with_call(|call| call.conventions = conventions)
        }

        /// Whether the duration of each call is a metric of Sentry: `rpc.server.call.duration` or
        /// `rpc.client.call.duration`, in seconds. Its [attributes] are `rpc.system.name`,
        /// `rpc.method`, `rpc.status_code`, for failures `error.type`, and on a client
        /// `server.address` and `server.port`. The hub that is current as the call ends must have
        /// a client with metrics enabled. Needs the feature `sentry-metrics`.
        ///
        /// Defaults to `false`.
        ///
        /// [attributes]: https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/
        #[cfg(feature = "sentry-metrics")]
        pub fn sentry_metrics(self, metrics: bool) -> Self {
            self.with_call(|call| call.metrics.to_sentry = metrics)
        }

        /// The meter by which the duration of each call is recorded in OpenTelemetry, in a
        /// histogram that is named `rpc.server.call.duration` or
        /// `rpc.client.call.duration`, [as the conventions say]. Needs the feature
        /// `opentelemetry-metrics`.
        ///
        /// On a server, set [known methods](crate::GrpcServerLayer::known_methods) too if
        /// anything other than tonic's router refuses calls, such as a check of who calls.
        /// Without them, methods that callers make up are recorded by their names, any number of
        /// them.
        ///
        /// Defaults to none.
        ///
        /// [as the conventions say]: https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/
        #[cfg(feature = "opentelemetry-metrics")]
        pub fn otel_metrics(self, meter: &::opentelemetry::metrics::Meter) -> Self {
            let histogram = crate::report::histogram(Self::SIDE, meter);
            self.with_call(|call| call.metrics.histogram = Some(histogram))
        }

        /// Which methods stream, in either direction, by patterns for their paths as in
        /// [`ignore_methods`](Self::ignore_methods); all others are unary. Requests do not say
        /// which they are. Events have it as `method_type` in their `rpc` context: `stream` or
        /// `unary`. With `stream` they also have a `stream_id`, the id of the call's span.
        ///
        /// Defaults to not knowing: a call that ended with more than one message in either
        /// direction is a `stream`; before that, and for other calls, there is no
        /// `method_type`.
        pub fn streaming_methods(
            self,
            patterns: impl IntoIterator<Item = impl Into<String>>,
        ) -> Self {
            let patterns = patterns.into_iter().map(Into::into);
            let streaming = crate::rpc::MethodPatterns::new(patterns);
            self.with_call(|call| call.streaming = Some(streaming))
        }
    };
}

pub(crate) use call_setters;
