//! The peer of tonic and sentry-tonic: a Greeter server and a client in one
//! process, which obeys the orders that `tests/interop/README.md` describes.

mod greeter;
#[allow(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes,
    reason = "generated"
)]
#[rustfmt::skip]
#[path = "../../../../examples/support/helloworld.rs"]
mod helloworld;
mod listen;
mod orders;
mod setup;
mod upstream;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use greeter::MyGreeter;
use listen::Listener;
use upstream::Upstreams;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// For calls that are running at the end.
const GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let listener = Listener::from_arguments(std::env::args().skip(1))?;
    let guard = setup::sentry()?;
    // The runtime ends before the guard, and with it the last calls.
    tokio::runtime::Runtime::new()?.block_on(serve(listener))?;
    drop(guard);
    Ok(())
}

async fn serve(listener: Listener) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let upstreams = Arc::new(Upstreams::from_env()?);
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(listener.serve(MyGreeter::new(Arc::clone(&upstreams)), stopped));
    tokio::select! {
        orders = orders::obey(upstreams) => orders?,
        _ = terminate.recv() => {}
    }
    let _ = stop.send(true);
    tokio::time::timeout(GRACE, server).await???;
    Ok(())
}

/// Prints a line of the protocol.
fn say(line: &impl Serialize) {
    let mut line = serde_json::to_string(line).expect("lines are made of strings");
    line.push('\n');
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(line.as_bytes());
    // Who gave the orders may have gone.
    let _ = written.and_then(|()| stdout.flush());
}
