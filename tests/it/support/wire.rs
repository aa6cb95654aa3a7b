//! Envelopes as they are on the wire.

use sentry::Envelope;
use serde_json::Value;

#[derive(Debug, PartialEq)]
pub(crate) struct Item {
    /// The number of its envelope, from 0.
    pub(crate) envelope: usize,
    pub(crate) envelope_header: Value,
    pub(crate) kind: String,
    pub(crate) payload: Value,
}

/// The bytes of an envelope, be it made of types or of bytes.
pub(crate) fn bytes(envelope: &Envelope) -> Vec<u8> {
    let mut bytes = Vec::new();
    envelope.to_writer(&mut bytes).unwrap();
    bytes
}

/// Each has a header and a payload, below the header of the envelope.
pub(crate) fn items(envelope: usize, bytes: &[u8]) -> Vec<Item> {
    let json = |line: &[u8]| serde_json::from_slice::<Value>(line).unwrap();
    let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
    let envelope_header = json(&lines.next().unwrap());
    let mut items = vec![];
    while let (Some(header), Some(payload)) = (lines.next(), lines.next()) {
        items.push(Item {
            envelope,
            envelope_header: envelope_header.clone(),
            kind: json(&header)["type"].as_str().unwrap().to_owned(),
            payload: json(&payload),
        });
    }
    items
}
