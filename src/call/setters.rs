//! The options that both layers have.

/// Setters for a layer that has a method `with_call`, which gives its
/// [`CallOptions`](crate::call::CallOptions) to a closure.
macro_rules! call_setters {
    ($layer:literal) => {
        /// The [operation](https://develop.sentry.dev/sdk/telemetry/traces/span-operations/)
        /// of the spans of calls.
        ///
        /// Defaults to `grpc.server` on a server and `grpc.client` on a client.
        pub fn op(self, op: impl Into<::std::borrow::Cow<'static, str>>) -> Self {
            self.with_call(|call| call.op = op.into())
        }

        /// Names the spans of calls, and on a server the transactions. Called once for each call,
        /// before its span is first entered, where a
        /// [`SentryTracingLayer`](crate::SentryTracingLayer) records it, sampled or not.
        ///
        /// Sentry groups by name, so there should be few different names. A name is cut at 200
        /// bytes. If `name` panics, the call keeps its default name.
        ///
        /// Defaults to the path of the method, `/helloworld.Greeter/SayHello`. On a server, a
        /// method that does not exist, which is answered with UNIMPLEMENTED and no message, is
        /// named `_OTHER`, with its path in `rpc.method_original`.
        pub fn span_name(
            self,
            name: impl Fn(&::http::request::Parts) -> String + Send + Sync + 'static,
        ) -> Self {
            self.with_call(|call| call.span_name = Some(::std::sync::Arc::new(name)))
        }

        /// Whether each call leaves a breadcrumb for the errors of the span or transaction that it
        /// is part of. For a call outside of any span, the breadcrumb goes to the hub of the
        /// tracing layer, else to the current hub, else to the main hub. Calls that share that hub
        /// share its breadcrumbs.
        ///
        /// A breadcrumb has the type `grpc` and the category `grpc.server` or `grpc.client`. Its
        /// data are `method`, `status`, `status_code`, `duration_ms`, `request_message_count` and
        /// `response_message_count`. Its message is that of the failure. Its level is `error` if
        /// the failure is the server's fault, `warning` if it is the caller's, else `info`.
        ///
        /// Defaults to `false` on a server and `true` on a client.
        pub fn breadcrumbs(self, breadcrumbs: bool) -> Self {
            self.with_call(|call| call.breadcrumbs = breadcrumbs)
        }

        /// Calls to ignore, by patterns for their paths: `*` stands for any text, as in
        /// `/internal.Admin/*` or `*/Ping`.
        ///
        /// An ignored call is not recorded. On a server, the spans of its handler start no
        /// transaction, but errors in it are sent. On a client, the request carries no trace.
        ///
        /// The patterns replace the default ones, which are `/grpc.health.v1.Health/*`,
        /// `/grpc.reflection.v1.ServerReflection/*` and
        /// `/grpc.reflection.v1alpha.ServerReflection/*`. With an empty list, all calls are
        /// recorded: `.ignore([""; 0])`.
        pub fn ignore(self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
            let patterns = patterns.into_iter().map(Into::into);
            self.with_call(|call| call.ignored.set_patterns(patterns))
        }

        /// Calls to ignore in addition to those of [`ignore`](Self::ignore): those for which
        /// `ignores` returns `true`. Called at most once for each call. If it panics, the call is
        /// recorded.
        ///
        /// Defaults to none.
        pub fn ignore_if(
            self,
            ignores: impl Fn(&::http::request::Parts) -> bool + Send + Sync + 'static,
        ) -> Self {
            self.with_call(|call| call.ignored.set_also(ignores))
        }

        /// Which failed calls become error events: those with one of these codes. With an empty
        /// list there are no events.
        ///
        /// An event has the exceptions of the status and of its
        /// [source](crate::StatusExt::with_source), and belongs to the span of the call. It is
        /// omitted if another event was sent in the call before its end, which the `last_event_id`
        /// of the hub that captured that event shows. A fingerprint on the scope does not replace
        /// that of the event; `before_send` can.
        ///
        /// Defaults to UNKNOWN, INTERNAL and DATA_LOSS on a server, which are faults of the
        /// service itself. Defaults to none on a client, because only the application knows what a
        /// failed call means to it.
        pub fn capture_codes(
            self,
            codes: impl IntoIterator<Item = ::tonic::Code>,
        ) -> Self {
            let capture = crate::report::Capture::Codes(codes.into_iter().collect());
            self.with_call(|call| call.capture = capture)
        }

        /// Which failed calls become error events: those for which `wants` returns
        /// `true`. Called at the end of each call that is not OK and has not panicked,
        /// sampled or not, where a [`SentryTracingLayer`](crate::SentryTracingLayer) records
        /// it.
        ///
        /// It is also called for cancelled calls, on the thread that drops them, so it must not
        /// block. If `wants` panics, there is no event.
        ///
        /// Defaults to the codes of [`capture_codes`](Self::capture_codes). Each of the two
        /// replaces the other.
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
        /// code. Panics that `sentry`'s panic integration reports count too; events that the
        /// application captures do not.
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
        /// A value is `[Filtered]` if its key is [denied](Self::metadata_denylist) or it is marked
        /// [sensitive](http::HeaderValue::set_sensitive). For a `-bin` key, only the length of the
        /// value is captured.
        ///
        /// With `send_default_pii` all metadata is captured, as
        /// `rpc.request.metadata.<key>`, except for that of HTTP and gRPC themselves (`te`,
        /// `content-type`, `grpc-*`).
        ///
        /// The keys replace those of a previous call. Defaults to none.
        ///
        /// ```
        /// use http::HeaderName;
        /// use http::header::USER_AGENT;
        ///
        #[doc = concat!("let layer = sentry_tonic::", $layer, "::new()")]
        ///     .request_metadata([USER_AGENT, HeaderName::from_static("x-request-id")]);
        /// # let _ = layer;
        /// ```
        ///
        /// [names]: https://github.com/open-telemetry/semantic-conventions/blob/v1.38.0/docs/rpc/grpc.md
        pub fn request_metadata(
            self,
            keys: impl IntoIterator<Item = ::http::HeaderName>,
        ) -> Self {
            self.with_call(|call| call.metadata.request = keys.into_iter().collect())
        }

        /// Keys of the response's metadata whose values are captured, from its head
        /// and its trailers, as those of the [request](Self::request_metadata).
        ///
        /// The keys replace those of a previous call. Defaults to none.
        pub fn response_metadata(
            self,
            keys: impl IntoIterator<Item = ::http::HeaderName>,
        ) -> Self {
            self.with_call(|call| call.metadata.response = keys.into_iter().collect())
        }

        /// Terms by which secrets are recognized, besides the default ones: the value of a key
        /// that contains one, in upper or lower case, is `[Filtered]`, even if the key is asked
        /// for.
        ///
        /// The default ones are [Sentry's]: `auth`, `bearer`, `cookie`, `credential`,
        /// `csrf`, `identity`, `jwt`, `key`, `passwd`, `password`, `pwd`, `saml`, `secret`,
        /// `session`, `sid`, `sso`, `token` and `xsrf`.
        ///
        /// They always apply: `terms` are added to them.
        ///
        /// [Sentry's]: https://develop.sentry.dev/sdk/expected-features/data-handling/
        pub fn metadata_denylist(self, terms: impl IntoIterator<Item = impl Into<String>>) -> Self {
            let terms = terms.into_iter().map(Into::into);
            self.with_call(|call| call.metadata.denied.add(terms))
        }

        /// A tag of all calls of this layer, on their spans and on the events of their failures.
        /// A tag that Sentry does not accept is omitted, as in
        /// [`CallerIdentity::tag`](crate::CallerIdentity::tag). Call it once for each tag.
        ///
        /// Defaults to none.
        pub fn tag(self, key: &str, value: impl ::std::fmt::Display) -> Self {
            let tag = crate::report::bounded_tag(key, &value.to_string());
            self.with_call(|call| call.tags.extend(tag))
        }

        /// Whether events have a context `rpc` that says which call they belong to.
        ///
        /// Defaults to `true`.
        pub fn attach_rpc_context(self, attach: bool) -> Self {
            self.with_call(|call| call.attach_rpc_context = attach)
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

        /// Whether to record the duration of each call as a metric in Sentry:
        /// `rpc.server.call.duration` or `rpc.client.call.duration`, in seconds. Its [attributes]
        /// are `rpc.system.name`, `rpc.method`, `rpc.status_code`, for failures `error.type`, and
        /// on a client `server.address` and `server.port`. The hub that is current when the call
        /// ends must have an enabled client. Needs the feature `sentry-metrics`.
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
        /// On a server, set [known methods](crate::SentryServerLayer::known_methods) too if
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
    };
}

pub(crate) use call_setters;
