//! What sentry-core's own types cost: the least that any code can that sends the same.
//!
//! `floor`, or `floor <calls> <case>` for one of them alone.

use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use benches::in_process::in_measured_region;
use benches::table::{Table, short};
use benches::{Error, allocator, child};
use sentry::protocol::{Context, EnvelopeItem, Map, SpanStatus, Transaction, Value};
use sentry::{ClientOptions, Envelope, Hub, TransactionContext, Transport};

const CALLS: u32 = 500;
const WARM_UP: u32 = 100;

/// As many as a call of a server has, and a span of `#[instrument]`.
const TEXTS_OF_CALL: [&str; 6] = [
    "sentry.kind",
    "rpc.system",
    "rpc.service",
    "rpc.method",
    "server.address",
    "rpc.response.status_code",
];
const NUMBERS_OF_CALL: [&str; 3] = [
    "rpc.grpc.status_code",
    "rpc.request.message_count",
    "rpc.response.message_count",
];
const TEXTS_OF_SPAN: [&str; 3] = [
    "sentry.tracing.target",
    "code.module.name",
    "code.file.path",
];
const NUMBERS_OF_SPAN: [&str; 1] = ["code.line.number"];

/// What is done for each call.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    is_sampled: bool,
    /// Whether each call has a hub, as it must where calls share nothing.
    has_hub: bool,
    has_attributes: bool,
    spans: u32,
}

const CASES: [Case; 6] = [
    case("transaction, not sampled", false, false, false, 0),
    case("with a hub of its own", false, true, false, 0),
    case("transaction, sampled", true, false, false, 0),
    case("sampled, with a hub of its own", true, true, false, 0),
    case("and 9 attributes", true, true, true, 0),
    case("and a span with 4 attributes", true, true, true, 1),
];

const fn case(
    name: &'static str,
    is_sampled: bool,
    has_hub: bool,
    has_attributes: bool,
    spans: u32,
) -> Case {
    Case {
        name,
        is_sampled,
        has_hub,
        has_attributes,
        spans,
    }
}

fn main() -> Result<(), Error> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => compare(),
        [calls, case] => {
            let case = CASES.get(case.parse::<usize>()?);
            println!("{}", case.ok_or("no such case")?.run(calls.parse()?));
            Ok(())
        }
        _ => Err("usage: floor [<calls> <case>]".into()),
    }
}

fn compare() -> Result<(), Error> {
    let program = std::env::current_exe()?;
    let mut table = Table::new(["sentry-core alone", "instructions", "allocations"]);
    for (number, case) in CASES.iter().enumerate() {
        let arguments = [CALLS.to_string(), number.to_string()];
        let run = || {
            let mut command = Command::new(&program);
            command.args(&arguments);
            command
        };
        let allocations: f64 = child::output(&mut run())?.trim().parse()?;
        let instructions = child::instructions(&run())?;
        table.add([
            case.name.to_owned(),
            short(instructions / f64::from(CALLS)),
            short(allocations / f64::from(CALLS)),
        ]);
    }
    println!("### What sentry-core's own types cost\n");
    println!("{table}");
    Ok(())
}

impl Case {
    /// How often it allocates.
    fn run(&self, calls: u32) -> usize {
        let guard = sentry::init(
            ClientOptions::new()
                .dsn("https://key@o1.ingest.invalid/1")
                .release("benches@1.0.0")
                .environment("production")
                .traces_sample_rate(if self.is_sampled { 1.0 } else { 0.0 })
                .transport(Arc::new(Telling(*self))),
        );
        (0..WARM_UP).for_each(|_| self.call());
        let before = allocator::allocations();
        in_measured_region(&mut || (0..calls).for_each(|_| self.call()));
        let allocations = allocator::allocations() - before;
        drop(guard);
        allocations
    }

    fn call(&self) {
        let hub = match self.has_hub {
            true => Arc::new(Hub::new_from_top(Hub::current())),
            false => Hub::current(),
        };
        let context = TransactionContext::new("/helloworld.Greeter/SayHello", "grpc.server");
        let transaction = hub.start_transaction(context);
        transaction.set_origin("auto.rpc.tonic");
        if self.has_hub {
            hub.configure_scope(|scope| {
                scope.clear_breadcrumbs();
                scope.set_span(Some(transaction.clone().into()));
                scope.add_event_processor(Some);
            });
        }
        for _ in 0..self.spans {
            let now = SystemTime::now();
            let span = transaction.start_child_with_details("", "", Default::default(), now);
            hub.configure_scope(|scope| scope.set_span(Some(span.clone().into())));
            hub.configure_scope(|scope| scope.set_span(Some(transaction.clone().into())));
            span.set_status(SpanStatus::Ok);
            span.finish_with_timestamp(SystemTime::now());
        }
        transaction.set_status(SpanStatus::Ok);
        Hub::run(hub, || transaction.finish());
    }
}

/// Adds attributes where they are copied no more, and drops what the real one hands to a
/// thread.
struct Telling(Case);

impl Transport for Telling {
    fn send_envelope(&self, envelope: Envelope) {
        let mut told = Envelope::new();
        for mut item in envelope.into_items() {
            if let EnvelopeItem::Transaction(transaction) = &mut item {
                self.tell(transaction);
            }
            told.add_item(item);
        }
        drop(told);
    }
}

impl Telling {
    fn tell(&self, transaction: &mut Transaction<'_>) {
        if !self.0.has_attributes {
            return;
        }
        if let Some(Context::Trace(trace)) = transaction.contexts.get_mut("trace") {
            add(&mut trace.data, &TEXTS_OF_CALL, &NUMBERS_OF_CALL);
        }
        for span in &mut transaction.spans {
            span.op = Some("benches::greeter::child".to_owned());
            span.description = Some("child".to_owned());
            add(&mut span.data, &TEXTS_OF_SPAN, &NUMBERS_OF_SPAN);
        }
    }
}

fn add(data: &mut Map<String, Value>, texts: &[&str], numbers: &[&str]) {
    for name in texts {
        data.insert((*name).to_owned(), "helloworld".into());
    }
    for name in numbers {
        data.insert((*name).to_owned(), 1.into());
    }
}
