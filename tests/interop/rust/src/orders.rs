//! Reads orders from standard input, and makes the calls that they ask for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tracing::{Instrument, info_span};

use crate::upstream::{Call, Compression, Kind, Upstreams};
use crate::{Error, say};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    id: u64,
    call: Option<Kind>,
    #[serde(default)]
    flush: bool,
    #[serde(default)]
    name: String,
    #[serde(default)]
    route: Vec<String>,
    #[serde(default)]
    metadata: Vec<(String, String)>,
    /// How to compress, which not every peer can.
    #[serde(default)]
    compression: Option<Compression>,
}

#[derive(Serialize)]
struct Answer {
    id: u64,
    code: String,
    message: String,
    replies: Vec<String>,
}

#[derive(Serialize)]
struct Flushed {
    id: u64,
    flushed: bool,
}

/// Until the end of standard input, and of what was ordered until then.
pub(crate) async fn obey(upstreams: Arc<Upstreams>) -> Result<(), Error> {
    let mut lines = lines();
    let mut running = JoinSet::new();
    while let Some(line) = lines.recv().await {
        let line = line?;
        let order: Order =
            serde_json::from_str(&line).map_err(|error| format!("{line:?}: {error}"))?;
        let upstreams = Arc::clone(&upstreams);
        running.spawn(async move {
            match order.call {
                Some(kind) => say(&make(order, kind, &upstreams).await?),
                None => say(&flush(&order).await?),
            }
            Ok::<(), Error>(())
        });
        while let Some(done) = running.try_join_next() {
            done??;
        }
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

/// On a thread of its own: a runtime waits at its end for reads that it began.
fn lines() -> mpsc::UnboundedReceiver<std::io::Result<String>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

async fn flush(order: &Order) -> Result<Flushed, Error> {
    if !order.flush {
        return Err(format!("order {} asks for nothing", order.id).into());
    }
    let client = sentry::Hub::main().client().ok_or("Sentry is off")?;
    let flushed = tokio::task::spawn_blocking(move || client.flush(None)).await?;
    Ok(Flushed {
        id: order.id,
        flushed,
    })
}

async fn make(order: Order, kind: Kind, upstreams: &Upstreams) -> Result<Answer, Error> {
    let call = Call {
        kind,
        metadata: metadata(&order.metadata)?,
        compression: order.compression.map(CompressionEncoding::from),
    };
    let names = kind.names(&order.name);
    let root = info_span!(parent: None, "call", sentry.op = "test");
    let answer = upstreams
        .call(&order.route, call, names)
        .instrument(root)
        .await?;
    let (code, message) = match answer.failure {
        None => ("OK".to_owned(), String::new()),
        Some(status) => (name_of(status.code()), status.message().to_owned()),
    };
    Ok(Answer {
        id: order.id,
        code,
        message,
        replies: answer.replies,
    })
}

fn metadata(pairs: &[(String, String)]) -> Result<MetadataMap, Error> {
    let mut metadata = MetadataMap::new();
    for (key, value) in pairs {
        let key: AsciiMetadataKey = key.parse()?;
        let value: AsciiMetadataValue = value.parse()?;
        metadata.append(key, value);
    }
    Ok(metadata)
}

/// As the specification writes it: `NotFound` is `NOT_FOUND`.
fn name_of(code: tonic::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
