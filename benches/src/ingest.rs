//! A Sentry ingest on loopback that counts what it gets, and takes its time.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::Error;

#[derive(Debug, Clone, Default)]
pub struct Received {
    pub transactions: u64,
    /// Transactions that client reports say were lost, by reason.
    pub reported: BTreeMap<String, u64>,
}

/// A running ingest. It stops with the process.
pub struct Ingest {
    address: SocketAddr,
    delay: watch::Sender<Duration>,
    received: Arc<Mutex<Received>>,
}

impl Ingest {
    /// Takes `delay` for each envelope.
    pub fn start(delay: Duration) -> Result<Self, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let received = Arc::default();
        let (delay, delayed) = watch::channel(delay);
        let state = (delayed, Arc::clone(&received));
        let app = Router::new()
            .route("/api/{project}/envelope/", post(receive))
            .with_state(state);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, app).await
            })
        });
        Ok(Self {
            address,
            delay,
            received,
        })
    }

    /// Takes no more time, also for what has arrived.
    pub fn hurry(&self) {
        self.delay.send_replace(Duration::ZERO);
    }

    pub fn dsn(&self) -> String {
        format!("http://key@{}/1", self.address)
    }

    pub fn received(&self) -> Received {
        let received = self.received.lock();
        received.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn receive(
    State((mut delayed, received)): State<(watch::Receiver<Duration>, Arc<Mutex<Received>>)>,
    body: Bytes,
) -> &'static str {
    let delay = *delayed.borrow_and_update();
    if !delay.is_zero() {
        let _ = timeout(delay, delayed.changed()).await;
    }
    let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
    // A header and a payload for each item, below the header of the envelope.
    let mut lines = body.split(|&byte| byte == b'\n').skip(1);
    while let (Some(header), Some(payload)) = (lines.next(), lines.next()) {
        let json = |line| serde_json::from_slice::<Value>(line).unwrap_or_default();
        match json(header)["type"].as_str() {
            Some("transaction") => received.transactions += 1,
            Some("client_report") => received.add_report(&json(payload)),
            _ => {}
        }
    }
    "{}"
}

impl Received {
    fn add_report(&mut self, report: &Value) {
        for lost in report["discarded_events"].as_array().into_iter().flatten() {
            if lost["category"] == "transaction" {
                let reason = lost["reason"].as_str().unwrap_or("unknown");
                *self.reported.entry(reason.to_owned()).or_default() +=
                    lost["quantity"].as_u64().unwrap_or_default();
            }
        }
    }
}
