//! Tags that Sentry takes.

use crate::rpc;

// https://docs.sentry.io/platforms/rust/enriching-events/tags/
const MAX_KEY_LEN: usize = 200;
const MAX_VALUE_CHARS: usize = 200;

/// A tag with its value cut to 200 characters on one line; `None` for a key or a value that
/// Sentry does not take.
pub(crate) fn bounded(key: &str, value: &str) -> Option<(String, String)> {
    let is_legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-');
    let is_key = (1..=MAX_KEY_LEN).contains(&key.len()) && key.bytes().all(is_legal);
    (is_key && !value.is_empty()).then(|| (key.to_owned(), bounded_value(value.to_owned())))
}

pub(crate) fn bounded_value(mut value: String) -> String {
    if let Some((end, _)) = value.char_indices().nth(MAX_VALUE_CHARS) {
        value = rpc::clip(&value, end).to_owned();
    }
    match value.contains(['\n', '\r']) {
        true => value.replace(['\n', '\r'], " "),
        false => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_made_legal_or_left_out() {
        let tag = |key: &str, value: &str| bounded(key, value).map(|(_, value)| value);
        assert_eq!(tag("a.b:c-d_1", "x"), Some("x".to_owned()));
        assert_eq!(tag("a", "two\nlines"), Some("two lines".to_owned()));
        assert_eq!(tag("a", &"é".repeat(300)), Some("é".repeat(200)));
        for key in ["", "a b", "é", &"k".repeat(201)] {
            assert_eq!(tag(key, "x"), None);
        }
        assert_eq!(tag("a", ""), None);
    }
}
