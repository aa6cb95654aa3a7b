//! Random ids, numbered in the order of their first appearance. Ids that a seed decided stay.

use std::collections::HashMap;

use serde_json::Value;

use crate::headers::KNOWN;

#[derive(Default)]
struct Ids(HashMap<String, usize>);

pub(crate) fn number(line: &mut Value) {
    Ids::default().walk(line);
}

impl Ids {
    fn walk(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(numbered) = self.numbered(text) {
                    *text = numbered;
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.walk(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.walk(value)),
            _ => {}
        }
    }

    /// `None` where there are no ids.
    fn numbered(&mut self, text: &str) -> Option<String> {
        if text.len() < 16 {
            return None;
        }
        let plain = without_hyphens(text);
        let text = plain.as_deref().unwrap_or(text);
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let mut numbered = String::new();
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
                    let next = self.0.len() + 1;
                    let number = self.0.entry(first.to_owned()).or_insert(next);
                    let kind = if first.len() == 16 { 'S' } else { 'T' };
                    numbered.push_str(&format!("{kind}{number}"));
                }
                false => numbered.push_str(first),
            }
            rest = others;
        }
        (numbered != text || plain.is_some()).then_some(numbered)
    }
}

/// An id as ids of events are written elsewhere, if it is a UUID with hyphens.
fn without_hyphens(text: &str) -> Option<String> {
    let parts: Vec<usize> = text.split('-').map(str::len).collect();
    (parts == [8, 4, 4, 4, 12]).then(|| text.replace('-', ""))
}
