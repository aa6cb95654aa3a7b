//! The transaction of a segment, in the two forms in which it is sent: as JSON, and as a type of
//! sentry-types for transports that are not this crate's.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use sentry_core::Envelope;
use sentry_core::protocol::{
    Context, DynamicSamplingContext, EnvelopeHeaders, Map, Span, TraceContext, Transaction, Value,
};

use crate::fields;
use crate::report::{Attribute, SeeAttribute};
use crate::send::attributes::{self, ORIGIN_RPC};
use crate::send::client_info::ClientInfo;
use crate::send::depth;
use crate::send::handover::WrittenTransaction;
use crate::send::json::{Json, Members, Unwritable};
use crate::send::span_record::{NO_OP, Records, SpanRecord};
use crate::span_ext::RpcStart;

/// The name of the context that says which trace a transaction is in.
const TRACE: &str = "trace";

/// Room for the length of an item, which is known once the item is written.
const NO_LENGTH: &str = "          ";

/// A usual size, so that the buffer need not grow.
const USUAL_LEN: usize = 2048;

/// The transaction of a segment, as it is sent.
#[derive(Debug)]
pub(crate) struct SegmentTransaction {
    /// What sentry-core has of it: ids and times, what the application set, and the scope.
    set: Box<Transaction<'static>>,
    /// What is kept of each span in it; `None` for a span that the application made.
    records: Vec<Option<SpanRecord>>,
    /// How many spans are not sent.
    dropped_spans: u64,
    /// `None` where the scope has a trace context of its own, which is sent as it is.
    own: Option<SegmentFacts>,
    /// The sampling context of the trace.
    sampling: Option<DynamicSamplingContext>,
}

/// What is known of a segment's own span.
#[derive(Debug, Default)]
pub(crate) struct SegmentFacts {
    /// The call that it is the span of.
    pub(crate) call: Option<Arc<RpcStart>>,
    /// How the call ended; for a span of another kind, what its fields said.
    pub(crate) data: Vec<(Cow<'static, str>, Value)>,
}

impl SegmentTransaction {
    pub(crate) fn new(
        mut set: Box<Transaction<'static>>,
        records: Records,
        own: Option<SegmentFacts>,
        sampling: Option<DynamicSamplingContext>,
    ) -> Self {
        depth::limit(&mut set);
        let (records, dropped_spans) = records.aligned(&set.spans);
        Self {
            set,
            records,
            dropped_spans,
            own,
            sampling,
        }
    }

    fn own_call(&self) -> Option<&RpcStart> {
        self.own.as_ref()?.call.as_deref()
    }

    fn name(&self) -> Option<&str> {
        let set = self.set.name.as_deref().filter(|name| !name.is_empty());
        set.or_else(|| Some(self.own_call()?.about.name()))
    }

    /// See <https://develop.sentry.dev/sdk/data-model/event-payloads/transaction/#transaction-annotations>.
    fn name_source(&self) -> &'static str {
        let route = self.own_call().filter(|call| {
            let name = self.name().unwrap_or_default();
            name == fields::UNKNOWN_METHOD || is_path_of(name, call)
        });
        match route {
            Some(_) => "route",
            None => "custom",
        }
    }

    /// The form for any transport.
    pub(crate) fn into_typed(self, client: &ClientInfo) -> Envelope {
        let name = self.name().map(str::to_owned);
        let Self {
            mut set,
            records,
            dropped_spans,
            own,
            sampling,
        } = self;
        set.name = name;
        for (span, record) in set.spans.iter_mut().zip(&records) {
            if let Some(record) = record {
                complete_span(span, record);
            }
        }
        if let (Some(own), Some(Context::Trace(trace))) = (own, set.contexts.get_mut(TRACE)) {
            own.complete(trace, dropped_spans);
        }
        client.add_to(&mut set);
        let headers = match sampling {
            Some(sampling) => EnvelopeHeaders::new().with_trace(sampling),
            None => EnvelopeHeaders::new(),
        };
        let mut envelope = Envelope::new().with_headers(headers);
        envelope.add_item(*set);
        envelope
    }

    /// The form for this crate's transport: a whole envelope.
    pub(crate) fn to_json(
        &self,
        client: &ClientInfo,
        sent_at: SystemTime,
    ) -> Result<WrittenTransaction, Unwritable> {
        let mut json = Json::with_capacity(USUAL_LEN);
        let mut headers = Members::begin(&mut json);
        headers
            .known("\"event_id\":")
            .serialized(&self.set.event_id)?;
        headers.known("\"sent_at\":").rfc3339(sent_at)?;
        if let Some(sampling) = &self.sampling {
            headers.known("\"trace\":").serialized(sampling)?;
        }
        headers.end();
        json.raw("\n{\"type\":\"transaction\",\"length\":");
        let length_at = json.len();
        json.raw(NO_LENGTH);
        json.raw("}\n");
        let start = json.len();
        self.write(&mut json, client)?;
        let mut length = Json::with_capacity(NO_LENGTH.len());
        length.unsigned(u64::try_from(json.len() - start).map_err(|_| Unwritable)?);
        json.overwrite(length_at, &length.into_bytes());
        json.raw("\n");
        Ok(WrittenTransaction::new(json.into_bytes(), &self.set))
    }

    fn write(&self, json: &mut Json, client: &ClientInfo) -> Result<(), Unwritable> {
        let set = &*self.set;
        let mut members = Members::begin(json);
        members.known("\"event_id\":").uuid(set.event_id);
        if let Some(name) = self.name() {
            members.known("\"transaction\":").text(name);
        }
        let info = members.known("\"transaction_info\":{\"source\":");
        info.text(self.name_source());
        info.raw("}");
        members.known(client.json()?);
        let ended_at = set.timestamp.ok_or(Unwritable)?;
        members.known("\"timestamp\":").rfc3339(ended_at)?;
        members
            .known("\"start_timestamp\":")
            .seconds(set.start_timestamp)?;
        if let Some(user) = &set.user {
            members.known("\"user\":").serialized(user)?;
        }
        if !set.tags.is_empty() {
            members.known("\"tags\":").serialized(&set.tags)?;
        }
        if !set.extra.is_empty() {
            members.known("\"extra\":").serialized(&set.extra)?;
        }
        if let Some(request) = &set.request {
            members.known("\"request\":").serialized(request)?;
        }
        self.write_contexts(members.known("\"contexts\":"))?;
        let spans = members.known("\"spans\":[");
        let mut separator = "";
        for (span, record) in set.spans.iter().zip(&self.records) {
            spans.raw(std::mem::replace(&mut separator, ","));
            write_span(spans, span, record.as_ref())?;
        }
        spans.raw("]");
        members.end();
        Ok(())
    }

    fn write_contexts(&self, json: &mut Json) -> Result<(), Unwritable> {
        let mut contexts = Members::begin(json);
        for (name, context) in &self.set.contexts {
            let json = contexts.name(name);
            match (context, &self.own) {
                (Context::Trace(trace), Some(own)) if name == TRACE => {
                    own.write(json, trace, self.dropped_spans)?
                }
                (context, _) => json.serialized(context)?,
            }
        }
        contexts.end();
        Ok(())
    }
}

/// Whether the name of a transaction is the path of its call's method.
fn is_path_of(name: &str, call: &RpcStart) -> bool {
    let method = || {
        let rest = name.strip_prefix('/')?;
        rest.strip_prefix(call.about.service())?.strip_prefix('/')
    };
    method() == Some(call.about.method())
}

impl SegmentFacts {
    fn op<'a>(&'a self, trace: &'a TraceContext) -> Option<&'a str> {
        let set = trace.op.as_deref().filter(|op| *op != NO_OP);
        set.or_else(|| Some(&*self.call.as_ref()?.op))
    }

    fn origin<'a>(&self, trace: &'a TraceContext) -> Option<&'a str> {
        let of_call = self.call.is_some().then_some(ORIGIN_RPC);
        trace.origin.as_deref().or(of_call)
    }

    fn attributes(&self, set: &Map<String, Value>, dropped_spans: u64, see: SeeAttribute<'_>) {
        let dropped = fields::DROPPED_SPANS_COUNT;
        let has_dropped = dropped_spans > 0;
        if has_dropped {
            let count = i64::try_from(dropped_spans).unwrap_or(i64::MAX);
            see(dropped, Attribute::Number(count));
        }
        attributes::of_call(self.call.as_deref(), &self.data, set, &mut |name, value| {
            if !(has_dropped && name == dropped) {
                see(name, value);
            }
        });
    }

    /// Adds what a trace context does not have.
    pub(crate) fn complete(&self, trace: &mut TraceContext, dropped_spans: u64) {
        trace.op = self.op(trace).map(str::to_owned);
        trace.origin = self.origin(trace).map(str::to_owned);
        trace.data = collected(|see| self.attributes(&trace.data, dropped_spans, see));
    }

    fn write(
        &self,
        json: &mut Json,
        trace: &TraceContext,
        dropped_spans: u64,
    ) -> Result<(), Unwritable> {
        let mut members = Members::begin(json);
        members.known("\"type\":\"trace\"");
        members.known("\"span_id\":").span_id(trace.span_id);
        members.known("\"trace_id\":").trace_id(trace.trace_id);
        if let Some(parent) = trace.parent_span_id {
            members.known("\"parent_span_id\":").span_id(parent);
        }
        for (name, text) in [
            ("\"op\":", self.op(trace)),
            ("\"description\":", trace.description.as_deref()),
            ("\"origin\":", self.origin(trace)),
        ] {
            if let Some(text) = text {
                members.known(name).text(text);
            }
        }
        if let Some(status) = trace.status {
            members.known("\"status\":").serialized(&status)?;
        }
        let data = members.known("\"data\":");
        write_attributes(data, |see| self.attributes(&trace.data, dropped_spans, see))?;
        members.end();
        Ok(())
    }
}

fn complete_span(span: &mut Span, record: &SpanRecord) {
    span.description = record.name(span).map(str::to_owned);
    span.op = Some(record.op(span).into_owned());
    span.data = collected(|see| record.attributes(&span.data, see));
}

fn write_span(json: &mut Json, span: &Span, record: Option<&SpanRecord>) -> Result<(), Unwritable> {
    let mut members = Members::begin(json);
    members.known("\"span_id\":").span_id(span.span_id);
    members.known("\"trace_id\":").trace_id(span.trace_id);
    if let Some(parent) = span.parent_span_id {
        members.known("\"parent_span_id\":").span_id(parent);
    }
    if let Some(is_same) = span.same_process_as_parent {
        let name = "\"same_process_as_parent\":";
        members
            .known(name)
            .raw(if is_same { "true" } else { "false" });
    }
    let (op, name) = match record {
        Some(record) => (Some(record.op(span)), record.name(span)),
        None => (
            span.op.as_deref().map(Cow::Borrowed),
            span.description.as_deref(),
        ),
    };
    if let Some(op) = op {
        members.known("\"op\":").text(&op);
    }
    if let Some(name) = name {
        members.known("\"description\":").text(name);
    }
    if let Some(ended_at) = span.timestamp {
        members.known("\"timestamp\":").rfc3339(ended_at)?;
    }
    members
        .known("\"start_timestamp\":")
        .seconds(span.start_timestamp)?;
    if let Some(status) = span.status {
        members.known("\"status\":").serialized(&status)?;
    }
    if !span.tags.is_empty() {
        members.known("\"tags\":").serialized(&span.tags)?;
    }
    match record {
        Some(record) => {
            let data = members.known("\"data\":");
            write_attributes(data, |see| record.attributes(&span.data, see))?;
        }
        None if span.data.is_empty() => {}
        None => members.known("\"data\":").serialized(&span.data)?,
    }
    members.end();
    Ok(())
}

fn write_attributes(
    json: &mut Json,
    attributes: impl FnOnce(SeeAttribute<'_>),
) -> Result<(), Unwritable> {
    let mut members = Members::begin(json);
    let mut result = Ok(());
    attributes(&mut |name, value| {
        let json = members.name(name);
        let written = match value {
            Attribute::Number(number) => {
                json.integer(number);
                Ok(())
            }
            Attribute::Text(text) => {
                json.text(text);
                Ok(())
            }
            Attribute::Json(value) => json.value(value),
        };
        result = result.and(written);
    });
    members.end();
    result
}

fn collected(attributes: impl FnOnce(SeeAttribute<'_>)) -> Map<String, Value> {
    let mut data = Map::new();
    attributes(&mut |name, value| {
        data.insert(name.to_owned(), value.to_value());
    });
    data
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use sentry_core::ClientOptions;
    use sentry_core::protocol::{Request, SpanId, SpanStatus, TraceId, User};
    use serde_json::json;
    use tracing::Metadata;

    use super::*;
    use crate::report::EventLimiter;
    use crate::span_ext::{AboutRpc, RpcFacts};

    /// A call whose attributes are those of the test.
    #[derive(Debug)]
    struct Call {
        name: String,
        attributes: Map<String, Value>,
    }

    impl AboutRpc for Call {
        fn name(&self) -> &str {
            &self.name
        }

        fn service(&self) -> &str {
            "helloworld.Greeter"
        }

        fn method(&self) -> &str {
            "SayHello"
        }

        fn context(&self) -> Option<Map<String, Value>> {
            None
        }

        fn attributes(&self, see: SeeAttribute<'_>) {
            for (name, value) in &self.attributes {
                let value = match value {
                    Value::String(text) => Attribute::Text(text),
                    value => value
                        .as_i64()
                        .map_or(Attribute::Json(value), Attribute::Number),
                };
                see(name, value);
            }
        }
    }

    /// Few names, so that they meet.
    fn name() -> impl Strategy<Value = String> {
        prop_oneof!["[a-c]", ".{0,8}", Just(fields::SENTRY_ORIGIN.to_owned())]
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<String>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(3, 8, 3, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..3).prop_map(Value::from),
                btree_map(name(), inner, 0..3).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    fn data() -> impl Strategy<Value = Map<String, Value>> {
        btree_map(name(), value(), 0..4)
    }

    fn kept() -> impl Strategy<Value = Vec<(Cow<'static, str>, Value)>> {
        let pair = (name(), value());
        vec(pair.prop_map(|(name, value)| (name.into(), value)), 0..4)
    }

    fn time() -> impl Strategy<Value = SystemTime> {
        // Numbers of seconds that a float holds exactly with their fractions.
        (0..4_000_000_000_u64, 0..64_u32)
            .prop_map(|(seconds, part)| UNIX_EPOCH + Duration::new(seconds, part * 15_625_000))
    }

    fn call() -> impl Strategy<Value = Option<Arc<RpcStart>>> {
        let path = Just("/helloworld.Greeter/SayHello".to_owned());
        let about = (prop_oneof![path, name()], data());
        let about = about.prop_map(|(name, attributes)| Call { name, attributes });
        proptest::option::of(about.prop_map(start))
    }

    fn start(call: Call) -> Arc<RpcStart> {
        Arc::new(RpcStart {
            op: "grpc.server".into(),
            about: Arc::new(call),
            incoming: None,
            force_transaction: false,
            only_if_parent: false,
            is_run_by_others: false,
            facts: RpcFacts::default(),
            limiter: None::<Arc<EventLimiter>>,
        })
    }

    fn metadata() -> &'static Metadata<'static> {
        let span = || tracing::info_span!("spän \"of\" code");
        let subscriber = tracing_subscriber::registry();
        tracing::subscriber::with_default(subscriber, || span().metadata().unwrap())
    }

    fn span() -> impl Strategy<Value = (Span, Option<SpanRecord>)> {
        let texts = (proptest::option::of(name()), proptest::option::of(name()));
        let times = (time(), proptest::option::of(time()));
        let tags = btree_map(name(), name(), 0..3);
        let set = (texts, times, tags, data(), any::<bool>());
        let record = (any::<bool>(), call(), kept());
        (set, record).prop_map(|(set, (is_ours, call, data))| {
            let ((name, op), (start, end), tags, set_data, has_parent) = set;
            let span = Span {
                op: if is_ours { Some(NO_OP.to_owned()) } else { op },
                description: name,
                start_timestamp: start,
                timestamp: end,
                tags,
                data: set_data,
                status: has_parent.then_some(SpanStatus::DeadlineExceeded),
                parent_span_id: has_parent.then(SpanId::default),
                ..Span::default()
            };
            let record = is_ours.then(|| SpanRecord {
                id: span.span_id,
                metadata: metadata(),
                call,
                data,
            });
            (span, record)
        })
    }

    fn transaction() -> impl Strategy<Value = SegmentTransaction> {
        let texts = (proptest::option::of(name()), name());
        let maps = (btree_map(name(), name(), 0..3), data(), data(), data());
        let own = (call(), kept(), any::<bool>(), 0..3_u64);
        (texts, maps, own, (time(), time()), vec(span(), 0..4)).prop_map(
            |((name, op), (tags, extra, trace_data, other), own, times, spans)| {
                let (call, data, is_own, dropped_spans) = own;
                let trace = TraceContext {
                    op: Some(op),
                    data: trace_data,
                    status: is_own.then_some(SpanStatus::UnknownError),
                    ..TraceContext::default()
                };
                let mut contexts = Map::new();
                contexts.insert(TRACE.to_owned(), trace.into());
                contexts.insert("mine".to_owned(), Context::Other(other));
                let (spans, records) = spans.into_iter().unzip();
                let set = Transaction {
                    name,
                    tags,
                    extra,
                    contexts,
                    spans,
                    start_timestamp: times.0,
                    timestamp: Some(times.1),
                    user: is_own.then(|| User {
                        id: Some("7".to_owned()),
                        ..User::default()
                    }),
                    request: is_own.then(Request::default),
                    ..Transaction::default()
                };
                let sampling = DynamicSamplingContext::new().with_trace_id(TraceId::default());
                SegmentTransaction {
                    set: Box::new(set),
                    records,
                    dropped_spans,
                    own: is_own.then_some(SegmentFacts { call, data }),
                    sampling: is_own.then_some(sampling),
                }
            },
        )
    }

    fn client() -> ClientInfo {
        let options = ClientOptions::new()
            .release("shop@1")
            .environment("\"live\"");
        let sdk = serde_json::from_value(json!({"name": "sentry.rust", "version": "1"}));
        ClientInfo::new(
            &sentry_core::Client::with_options(options),
            Some(sdk.unwrap()),
        )
    }

    /// The lines of an envelope.
    fn lines(bytes: Vec<u8>) -> Vec<Value> {
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let item: Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(item["length"], lines[2].len());
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    proptest! {
        #[test]
        fn both_forms_say_the_same(transaction in transaction()) {
            let client = client();
            let sent_at = UNIX_EPOCH + Duration::from_millis(1_500);
            let written = transaction.to_json(&client, sent_at).unwrap();
            let losses: u64 = written.losses().map(|loss| loss.quantity).sum();
            prop_assert_eq!(losses, 2 + transaction.set.spans.len() as u64);
            let mut json = lines(written.bytes.clone());
            let mut typed = Vec::new();
            let envelope = transaction.into_typed(&client);
            envelope.to_writer(&mut typed).unwrap();
            let typed = lines(typed);
            // What sentry-types cannot say.
            let sent_at = json[0].as_object_mut().unwrap().remove("sent_at");
            prop_assert_eq!(sent_at, Some("1970-01-01T00:00:01.5Z".into()));
            let info = json[2].as_object_mut().unwrap().remove("transaction_info").unwrap();
            prop_assert!(["route", "custom"].contains(&info["source"].as_str().unwrap()));
            for index in [0, 2] {
                prop_assert_eq!(without_empty(&json[index]), without_empty(&typed[index]));
            }
            // sentry-types reads it.
            let read = Envelope::from_slice(&written.bytes).unwrap();
            prop_assert_eq!(read.items().count(), 1);
        }
    }

    #[test]
    fn the_path_of_a_method_is_a_route_and_other_names_are_custom() {
        let path = "/helloworld.Greeter/SayHello";
        for (of_call, set, expected) in [
            (Some(path), None, "route"),
            (Some(path), Some(""), "route"),
            (Some(path), Some(fields::UNKNOWN_METHOD), "route"),
            (Some(path), Some("mine"), "custom"),
            (Some("mine"), None, "custom"),
            (None, Some(path), "custom"),
        ] {
            let call = of_call.map(|name| {
                let attributes = Map::new();
                start(Call {
                    name: name.to_owned(),
                    attributes,
                })
            });
            let transaction = SegmentTransaction {
                set: Box::new(Transaction {
                    name: set.map(str::to_owned),
                    ..Transaction::default()
                }),
                records: Vec::new(),
                dropped_spans: 0,
                own: Some(SegmentFacts {
                    call,
                    data: Vec::new(),
                }),
                sampling: None,
            };
            assert_eq!(transaction.name_source(), expected, "{of_call:?} {set:?}");
        }
    }

    /// Without maps that are empty, which one form leaves out.
    fn without_empty(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let map = map.iter().filter(|(name, value)| {
                    !(*name == "data" && value.as_object().is_some_and(serde_json::Map::is_empty))
                });
                map.map(|(name, value)| (name.clone(), without_empty(value)))
                    .collect()
            }
            Value::Array(values) => values.iter().map(without_empty).collect(),
            value => value.clone(),
        }
    }
}
