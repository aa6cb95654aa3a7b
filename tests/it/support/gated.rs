//! A Sentry ingest on loopback that answers when a test lets it, and what the test says.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use tokio::sync::Semaphore;

use crate::support::wire::{Item, items};

/// Far more than anything takes that is to happen.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Gated {
    address: SocketAddr,
    inside: Arc<Inside>,
}

struct Inside {
    gate: Semaphore,
    /// With 429, where it is not empty.
    limits: Mutex<&'static str>,
    arrived: Mutex<Vec<Bytes>>,
    has_arrived: Condvar,
}

impl Gated {
    /// Answers nobody as yet.
    pub(crate) fn closed() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let inside = Arc::new(Inside {
            gate: Semaphore::new(0),
            limits: Mutex::default(),
            arrived: Mutex::default(),
            has_arrived: Condvar::new(),
        });
        let app = Router::new()
            .route("/api/{project}/envelope/", post(receive))
            .with_state(Arc::clone(&inside));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, app).await
            })
        });
        Self { address, inside }
    }

    pub(crate) fn opened() -> Self {
        let ingest = Self::closed();
        ingest.open();
        ingest
    }

    pub(crate) fn open(&self) {
        self.inside.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    /// Answers with these limits from now on.
    pub(crate) fn limit(&self, limits: &'static str) {
        *self.inside.limits.lock().unwrap() = limits;
    }

    pub(crate) fn dsn(&self) -> String {
        format!("http://key@{}/1", self.address)
    }

    /// How many envelopes have arrived, answered or not.
    pub(crate) fn arrived(&self) -> usize {
        self.inside.arrived.lock().unwrap().len()
    }

    /// Waits until so many have arrived.
    pub(crate) fn wait_for(&self, envelopes: usize) {
        let arrived = self.inside.arrived.lock().unwrap();
        let has_arrived = &self.inside.has_arrived;
        let too_few = |arrived: &mut Vec<Bytes>| arrived.len() < envelopes;
        let (arrived, _) = has_arrived
            .wait_timeout_while(arrived, LONG, too_few)
            .unwrap();
        assert!(arrived.len() >= envelopes, "{} only", arrived.len());
    }

    pub(crate) fn items(&self) -> Vec<Item> {
        let arrived = self.inside.arrived.lock().unwrap();
        let numbered = arrived.iter().enumerate();
        numbered
            .flat_map(|(envelope, bytes)| items(envelope, bytes))
            .collect()
    }
}

async fn receive(
    State(inside): State<Arc<Inside>>,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 1]) {
    inside.arrived.lock().unwrap().push(body);
    inside.has_arrived.notify_all();
    inside.gate.acquire().await.unwrap().forget();
    let limits = *inside.limits.lock().unwrap();
    let status = match limits {
        "" => StatusCode::OK,
        _ => StatusCode::TOO_MANY_REQUESTS,
    };
    (status, [("x-sentry-rate-limits", limits)])
}

/// What client reports say was lost, by kind and reason.
pub(crate) fn reported(items: &[Item]) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for item in items {
        let discarded = item.payload["discarded_events"].as_array();
        for lost in discarded.into_iter().flatten() {
            let [category, reason] = ["category", "reason"].map(|key| lost[key].as_str().unwrap());
            *sums.entry(format!("{category} {reason}")).or_default() +=
                lost["quantity"].as_u64().unwrap();
        }
    }
    sums
}
