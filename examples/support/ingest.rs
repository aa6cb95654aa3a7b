//! A Sentry ingest on loopback: takes envelopes over HTTP, as Sentry does, and
//! keeps them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::Value;

/// One item of a received envelope.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) envelope_header: Value,
    pub(crate) item_header: Value,
    pub(crate) payload: Value,
}

impl Item {
    /// `transaction`, `event`, `session`...
    pub(crate) fn kind(&self) -> &str {
        self.item_header["type"].as_str().unwrap_or("unknown")
    }
}

#[derive(Debug, Default)]
struct Received {
    envelopes: Vec<Bytes>,
    items: Vec<Item>,
}

/// A running ingest. It stops with the process.
#[derive(Debug)]
pub(crate) struct Ingest {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

impl Ingest {
    /// Listens on a free port, on a thread and a runtime of its own: it
    /// outlives the runtime of the application, as Sentry does.
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let received = Arc::default();
        let app = Router::new()
            .route("/api/{project}/envelope/", post(receive))
            .with_state(Arc::clone(&received));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::Builder::new()
            .name("ingest".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    axum::serve(listener, app).await
                })
            })?;
        Ok(Self { address, received })
    }

    /// With `key` as its public key.
    pub(crate) fn dsn(&self, key: &str) -> String {
        format!("http://{key}@{}/1", self.address)
    }

    /// What was received so far, in the order of arrival.
    pub(crate) fn items(&self) -> Vec<Item> {
        self.received().items.clone()
    }

    /// What the items came in, as bytes.
    pub(crate) fn envelopes(&self) -> Vec<Bytes> {
        self.received().envelopes.clone()
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(
    State(received): State<Arc<Mutex<Received>>>,
    body: Bytes,
) -> Result<&'static str, (StatusCode, String)> {
    let items = parse_envelope(&body).map_err(|error| (StatusCode::BAD_REQUEST, error))?;
    let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
    received.items.extend(items);
    received.envelopes.push(body);
    Ok("{}")
}

/// See <https://develop.sentry.dev/sdk/data-model/envelopes/#serialization-format>.
fn parse_envelope(bytes: &[u8]) -> Result<Vec<Item>, String> {
    let (header, mut rest) = split_line(bytes);
    let envelope_header = json(header, "envelope header")?;
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (header, after) = split_line(rest);
        if header.is_empty() {
            rest = after;
            continue;
        }
        let item_header = json(header, "item header")?;
        let payload = match item_header["length"].as_u64() {
            Some(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let (payload, after) = after
                    .split_at_checked(length)
                    .ok_or("an item is shorter than its header says")?;
                rest = after.strip_prefix(b"\n").unwrap_or(after);
                payload
            }
            None => {
                let (payload, after) = split_line(after);
                rest = after;
                payload
            }
        };
        items.push(Item {
            envelope_header: envelope_header.clone(),
            payload: json(payload, "payload")?,
            item_header,
        });
    }
    Ok(items)
}

fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = bytes.splitn(2, |&byte| byte == b'\n');
    (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    )
}

fn json(bytes: &[u8], what: &str) -> Result<Value, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{what}: {error}"))
}
