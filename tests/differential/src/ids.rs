//! Random ids by what they stand for: a span that was sent has its name, and all others are
//! numbered in the order of their first appearance. Ids that a seed decided stay.

use std::collections::HashMap;

use serde_json::Value;

use crate::headers::KNOWN;

#[derive(Default)]
struct Ids {
    names: HashMap<String, String>,
    /// How many have a name.
    uses: HashMap<String, usize>,
    spans: usize,
    others: usize,
}

pub(crate) fn show(line: &mut Value) {
    let mut ids = Ids::default();
    let envelopes = line["sent"].as_array().into_iter().flatten();
    let items = envelopes.flat_map(|envelope| envelope["items"].as_array());
    for payload in items.flatten().map(|item| &item["payload"]) {
        if payload.get("spans").is_some() {
            let trace = &payload["contexts"]["trace"];
            ids.name(&trace["span_id"], &payload["transaction"]);
        }
        for span in payload["spans"].as_array().into_iter().flatten() {
            ids.name(&span["span_id"], &span["description"]);
        }
    }
    ids.walk(line);
}

impl Ids {
    fn name(&mut self, id: &Value, name: &Value) {
        let (Some(id), Some(name)) = (id.as_str(), name.as_str()) else {
            return;
        };
        if self.names.contains_key(id) {
            return;
        }
        let uses = self.uses.entry(name.to_owned()).or_default();
        *uses += 1;
        let name = match uses {
            1 => format!("<{name}>"),
            _ => format!("<{name} {uses}>"),
        };
        self.names.insert(id.to_owned(), name);
    }

    fn walk(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(shown) = self.shown(text) {
                    *text = shown;
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.walk(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.walk(value)),
            _ => {}
        }
    }

    /// `None` where there are no ids.
    fn shown(&mut self, text: &str) -> Option<String> {
        if text.len() < 16 {
            return None;
        }
        let plain = without_hyphens(text);
        let text = plain.as_deref().unwrap_or(text);
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let mut shown = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let word = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
            let word = match word {
                0 => rest.chars().next().map_or(1, char::len_utf8),
                word => word,
            };
            let (first, others) = rest.split_at(word);
            let is_id = matches!(first.len(), 16 | 32) && first.bytes().all(is_hex);
            match is_id && !first.starts_with(KNOWN) {
                true => {
                    let (kind, number) = match first.len() {
                        16 => ('S', &mut self.spans),
                        _ => ('T', &mut self.others),
                    };
                    let numbered = || {
                        *number += 1;
                        format!("<{kind}{number}>")
                    };
                    let name = self.names.entry(first.to_owned()).or_insert_with(numbered);
                    shown.push_str(name);
                }
                false => shown.push_str(first),
            }
            rest = others;
        }
        (shown != text || plain.is_some()).then_some(shown)
    }
}

/// An id as ids of events are written elsewhere, if it is a UUID with hyphens.
fn without_hyphens(text: &str) -> Option<String> {
    let parts: Vec<usize> = text.split('-').map(str::len).collect();
    (parts == [8, 4, 4, 4, 12]).then(|| text.replace('-', ""))
}
