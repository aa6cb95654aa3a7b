//! What examples of one thing each share: how they run, a server on a free port, and what
//! is printed of what Sentry received and held against what they claim.

#[expect(
    clippy::indexing_slicing,
    reason = "of JSON, which has null for what is missing"
)]
#[path = "errors.rs"]
mod errors;
#[expect(
    clippy::indexing_slicing,
    reason = "of JSON, which has null for what is missing"
)]
#[expect(dead_code, reason = "what Spotlight is sent is for other examples")]
#[path = "ingest.rs"]
mod ingest;
#[expect(
    clippy::indexing_slicing,
    reason = "of JSON, which has null for what is missing"
)]
#[expect(dead_code, reason = "totals are for many traces")]
#[path = "waterfall.rs"]
mod waterfall;

use std::error::Error as StdError;
use std::io::Write;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::process::ExitCode;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tonic::codegen::http::Uri;
use tonic::{Code, Status};

pub(crate) use ingest::Ingest;
use ingest::Item;

pub(crate) type Error = Box<dyn StdError + Send + Sync>;

/// Done when a server is to stop.
pub(crate) type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs an example, which takes no arguments.
pub(crate) fn run(example: fn() -> Result<(), Error>) -> ExitCode {
    let name = env!("CARGO_CRATE_NAME");
    let result = match std::env::args().nth(1) {
        Some(argument) => Err(format!("unknown argument {argument:?}, usage: {name}").into()),
        None => example(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves on a free port while `call` makes its calls to there, in a runtime whose end is that
/// of the last calls.
pub(crate) fn serve_and_call<S, C>(
    serve: impl FnOnce(TcpListener, Stopped) -> S,
    call: impl FnOnce(Uri) -> C,
) -> Result<(), Error>
where
    S: Future<Output = Result<(), Error>> + Send + 'static,
    C: Future<Output = Result<(), Error>>,
{
    Runtime::new()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let uri = format!("http://{}", listener.local_addr()?).parse()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = Box::pin(async {
            let _ = stopped.await;
        });
        let server = tokio::spawn(serve(listener, stopped));
        let called = call(uri).await;
        let _ = stop.send(());
        server.await??;
        called
    })
}

/// An error where a call has not failed with `code`.
pub(crate) fn expect<T>(code: Code, result: Result<T, Status>) -> Result<(), Error> {
    match result.err().map(|status| status.code()) {
        Some(actual) if actual == code => Ok(()),
        other => Err(format!("a call ended with {other:?} instead of {code:?}").into()),
    }
}

/// A row for each transaction or event, in the order of their beginnings: what it has at the
/// JSON pointer of each column.
pub(crate) fn table(items: &[Item], kind: &str, columns: &[(&str, &str)]) -> String {
    let found = items.iter().filter(|item| item.kind() == kind);
    let mut found: Vec<&Value> = found.map(|item| &item.payload).collect();
    found.sort_by(|a, b| begin(a).total_cmp(&begin(b)));
    let titles = columns.iter().map(|(title, _)| (*title).to_owned());
    let mut rows: Vec<Vec<String>> = vec![titles.collect()];
    rows.extend(found.into_iter().map(|payload| {
        let cells = columns.iter();
        let cells = cells.map(|(_, pointer)| cell(payload.pointer(pointer)));
        cells.collect()
    }));
    let mut widths = vec![0; columns.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    });
    lines.collect()
}

fn begin(payload: &Value) -> f64 {
    let time = payload.get("start_timestamp");
    let time = time.or_else(|| payload.get("timestamp"));
    time.map_or(0.0, waterfall::seconds)
}

/// Of a list of texts all of them, of any other how long it is.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(values)) => {
            let texts: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            match texts.is_empty() {
                true => values.len().to_string(),
                false => texts.join(", "),
            }
        }
        Some(value) => value.to_string(),
    }
}

/// Prints what Sentry received, and after that the tables that were made of it; an error
/// where these are not the expected ones.
pub(crate) fn show(
    introduction: &str,
    items: &[Item],
    tables: &str,
    expected: &str,
) -> Result<(), Error> {
    let (traces, errors) = (waterfall::render(items), errors::render(items));
    let text = format!("{introduction}\n{traces}{errors}{tables}");
    // A reader like `head` may have gone.
    let _ = std::io::stdout().write_all(text.as_bytes());
    match tables == expected {
        true => Ok(()),
        false => Err(format!("Sentry should have received\n{expected}").into()),
    }
}
