//! An interceptor of the application that injects OpenTelemetry's trace, beside the client layer.

use http::HeaderMap;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::{Injector, TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use opentelemetry_sdk::trace::Sampler;
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};
use tower::Layer as _;
use tracing::{Instrument, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use sentry_tonic::{SentryClientLayer, SentryTracingLayer};

use crate::support::greeter::{Scripted, request};
use crate::support::helloworld::greeter_client::GreeterClient;
use crate::support::otel::Otel;
use crate::support::world::World;

struct Carrier<'a>(&'a mut MetadataMap);

impl Injector for Carrier<'_> {
    fn set(&mut self, key: &str, value: String) {
        let key = MetadataKey::from_bytes(key.as_bytes()).unwrap();
        self.0.insert(key, value.parse().unwrap());
    }
}

fn inject(mut request: Request<()>) -> Result<Request<()>, Status> {
    let propagator = TextMapCompositePropagator::new(vec![
        Box::new(BaggagePropagator::new()),
        Box::new(TraceContextPropagator::new()),
    ]);
    let mut carrier = Carrier(request.metadata_mut());
    propagator.inject_context(&Span::current().context(), &mut carrier);
    Ok(request)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers[name].to_str().unwrap()
}

/// The names of the members of `baggage`, those of Sentry as one.
fn members(headers: &HeaderMap) -> Vec<&str> {
    let members = headers.get_all("baggage").iter();
    let members = members.flat_map(|value| value.to_str().unwrap().split(','));
    let mut names: Vec<&str> = members
        .map(|member| member.split(['=', '-']).next().unwrap())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[test]
fn an_interceptor_that_injects_belongs_above_the_layer_which_sends_traceparent() {
    for (is_above, propagates, names_call, baggage) in [
        (true, true, true, &["sentry", "tenant"][..]),
        (true, false, false, &["sentry", "tenant"]),
        (false, true, true, &["tenant"]),
    ] {
        let otel = Otel::new(Sampler::AlwaysOn);
        let world = World::subscribed(
            registry()
                .with(SentryTracingLayer::new())
                .with(otel.layer()),
        );
        let headers = world.run(async {
            let (server, arrivals) = Scripted::new().serve_unobserved().await;
            let channel = server.endpoint().connect().await.unwrap();
            let layer = SentryClientLayer::new().propagate_traceparent(propagates);
            let main = {
                let tenant = [KeyValue::new("tenant", "navy")];
                let _in = Context::current_with_baggage(tenant).attach();
                info_span!("main")
            };
            let call = async {
                let name = request("Ferris");
                if is_above {
                    let service = layer.layer(channel);
                    let mut client = GreeterClient::with_interceptor(service, inject);
                    client.say_hello(name).await
                } else {
                    let service = InterceptedService::new(channel, inject);
                    let mut client = GreeterClient::new(layer.layer(service));
                    client.say_hello(name).await
                }
            };
            call.instrument(main).await.unwrap();
            server.stop().await;
            arrivals.recv().unwrap()
        });
        let spans = otel.spans();
        let main = spans.iter().find(|span| span.name == "main").unwrap();
        let call = spans
            .iter()
            .find(|span| span.name == "helloworld.Greeter/SayHello")
            .unwrap();
        let case = format!("{is_above} {propagates}");
        let trace_id = main.span_context.trace_id();
        let sentry_trace = format!("{trace_id}-{}-1", call.span_context.span_id());
        assert_eq!(text(&headers, "sentry-trace"), sentry_trace, "{case}");
        let named = if names_call { call } else { main };
        let w3c = format!("00-{trace_id}-{}-01", named.span_context.span_id());
        assert_eq!(text(&headers, "traceparent"), w3c, "{case}");
        assert_eq!(members(&headers), baggage, "{case}");
    }
}
