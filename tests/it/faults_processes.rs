//! Processes whose ingest has a fault: they do what they do, and end when they are told to.

use std::io::Read;
use std::process::Stdio;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use sentry::{Client, Hub, Level};

use crate::processes::{Server, ended};
use crate::support::alone::alone;
use crate::support::example::example;
use crate::support::faulty::{Fault, Faulty, Via};
use crate::support::gated::LONG;
use crate::support::used::Used;
#[cfg(target_os = "linux")]
use crate::support::wait::wait_for;

const SHORT: Duration = Duration::from_millis(20);

/// Time enough for what does not wait for an ingest. A machine that is slow makes no
/// test fail that finds nothing done by then.
const PATIENCE: Duration = Duration::from_millis(200);

fn run_and_stop(fault: Fault) {
    let ingest = Faulty::with(fault);
    let server = Server::start("server", &ingest.dsn(), "1", None);
    let mut client = example("client")
        .args([
            "--addr",
            &server.uri,
            "--streams",
            "Ferris",
            "internal",
            "panic",
        ])
        .env("SENTRY_DSN", ingest.dsn())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = ended(&mut client);
    let mut said = String::new();
    let mut stdout = client.stdout.take().unwrap();
    stdout.read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(0), "{fault:?}");
    let broken = |name: &str, message: &str| format!("{name}: Internal: {message}\n").repeat(4);
    let expected = [
        "Ferris: Hello FERRIS!\n\
         Ferris: Hello FERRIS! Hello FERRIS! Hello FERRIS!\n\
         Ferris: Hello FERRIS and FERRIS and FERRIS!\n\
         Ferris: Hello FERRIS! Hello FERRIS! Hello FERRIS!\n",
        &broken("internal", "lookup failed"),
        &broken("panic", "internal server error"),
    ];
    assert_eq!(said, expected.concat(), "{fault:?}");
    server.stop("-TERM");
    if fault.holds() {
        // One connection of each process, which was never answered.
        assert_eq!(ingest.held(), 2, "{fault:?}");
    }
}

#[test]
fn a_process_ends_with_success_whatever_the_ingest_does() {
    thread::scope(|scope| {
        for fault in Fault::ALL {
            scope.spawn(move || run_and_stop(fault));
        }
    });
}

fn client(via: Via, ingest: &Faulty) -> Arc<Client> {
    let options = via.options(&ingest.dsn()).shutdown_timeout(SHORT);
    Arc::new(Client::from(options))
}

fn send(client: &Arc<Client>, messages: usize) {
    let hub = Hub::new(Some(Arc::clone(client)), Arc::default());
    for _ in 0..messages {
        hub.capture_message("message", Level::Info);
    }
}

fn close_in_time(client: &Arc<Client>) {
    client.close(None);
}

/// What the end of a guard is: a client that is closed within its `shutdown_timeout`, and
/// dropped. `false` where that waits for the ingest.
fn ends_while_held(via: Via, fault: Fault, end: fn(&Arc<Client>)) -> bool {
    let ingest = Faulty::with(fault);
    let client = client(via, &ingest);
    send(&client, 1);
    ingest.wait_for_held(1);
    let (done, is_done) = mpsc::channel();
    let ending = thread::spawn(move || {
        end(&client);
        drop(client);
        done.send(()).unwrap();
    });
    let patience = if via == Via::Trace { LONG } else { PATIENCE };
    let has_ended = is_done.recv_timeout(patience).is_ok();
    assert_eq!(ingest.held(), 1);
    ingest.mend();
    ending.join().unwrap();
    has_ended
}

/// sentry's own transport waits for its thread, which waits for the ingest: no
/// `shutdown_timeout` bounds that.
#[test]
fn the_end_of_a_client_is_bounded_by_a_trace_transport_and_only_so() {
    for fault in [Fault::Hangs, Fault::Slow] {
        for (via, expected) in [(Via::Trace, true), (Via::Plain, false)] {
            for end in [close_in_time as fn(&_), |_| ()] {
                assert_eq!(ends_while_held(via, fault, end), expected, "{via:?}");
            }
        }
    }
}

/// For a flush there has to be room in the queue of sentry's own transport.
#[test]
fn a_flush_of_a_full_queue_is_bounded_by_a_trace_transport_and_only_so() {
    for (via, expected) in [(Via::Trace, true), (Via::Plain, false)] {
        let ingest = Faulty::with(Fault::Hangs);
        let options = via.options(&ingest.dsn()).transport_channel_capacity(1);
        let client = Arc::new(Client::from(options));
        send(&client, 1);
        ingest.wait_for_held(1);
        send(&client, 3);
        let (done, is_done) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = done.send(client.flush(Some(SHORT)));
            });
            let patience = if via == Via::Trace { LONG } else { PATIENCE };
            assert_eq!(is_done.recv_timeout(patience).is_ok(), expected, "{via:?}");
            ingest.mend();
        });
        assert!(client.close(Some(LONG)));
    }
}

/// A client with each fault.
fn round() {
    for (fault, via) in Fault::ALL
        .into_iter()
        .flat_map(|f| Via::BOTH.map(|v| (f, v)))
    {
        let ingest = Faulty::with(fault);
        let client = client(via, &ingest);
        send(&client, 3);
        if fault.holds() && via == Via::Plain {
            ingest.mend();
        }
        client.close(None);
        drop(client);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn neither_threads_nor_files_are_left_of_faults() {
    alone(
        "faults_processes::neither_threads_nor_files_are_left_of_faults",
        || {
            round();
            round();
            let warm = wait_for_at_most(None);
            for _ in 0..3 {
                round();
                wait_for_at_most(Some(warm));
            }
        },
    );
}

/// Waits until the threads and files that are to go have gone. All are where there is
/// one thread beside that of the test and that of its harness.
#[cfg(target_os = "linux")]
fn wait_for_at_most(warm: Option<Used>) -> Used {
    wait_for(|| {
        let now = Used::now();
        let is_less = match warm {
            Some(warm) => now.threads <= warm.threads && now.files <= warm.files,
            None => now.threads <= 2,
        };
        if is_less { Ok(now) } else { Err((warm, now)) }
    })
}
