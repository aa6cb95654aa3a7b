//! A tracing layer that writes down what happens to the middleware's spans.

use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn write(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn on<S>(&self, id: &Id, ctx: &Context<'_, S>, line: &str)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if ctx.metadata(id).unwrap().target() == "sentry_tonic" {
            self.write(line);
        }
    }
}

/// Fields and values as text, each for itself.
#[derive(Default)]
struct Fields(Vec<String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push(format!("{field}: {value:?}"));
    }
}

impl<S> Layer<S> for Recorder
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        self.on(id, &ctx, &format!("new {}", attrs.metadata().name()));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        for field in fields.0 {
            self.on(id, &ctx, &format!("record {field}"));
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let scope = ctx.event_span(event).map_or("nothing", |span| span.name());
        let name = event.metadata().target();
        self.write(format!("event of {name} in {scope}"));
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        self.on(id, &ctx, "enter");
    }

    fn on_exit(&self, id: &Id, ctx: Context<'_, S>) {
        self.on(id, &ctx, "exit");
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        self.on(&id, &ctx, "close");
    }
}
