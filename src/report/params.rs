//! Parameters of calls, as far as they may be sent.

use std::fmt;
use std::sync::Arc;

use sentry_core::protocol::Value;
use sentry_core::sentry_debug;

use crate::report::scrub::FILTERED;
use crate::report::tags;
use crate::rpc;

const SECRET_TERMS: [&str; 5] = ["password", "token", "secret", "key", "authorization"];

const DEFAULT_MAX_LEN: usize = 1024;

type RedactFn = dyn Fn(&str, Value) -> Value + Send + Sync;

/// What is sent of the parameters in fields of spans.
#[derive(Clone)]
pub(crate) struct ParamOptions {
    pub(crate) tags: Vec<String>,
    pub(crate) redact: bool,
    /// `None` for the default one, which looks at names.
    pub(crate) redactor: Option<Arc<RedactFn>>,
    /// In bytes.
    pub(crate) max_len: usize,
}

impl Default for ParamOptions {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            redact: true,
            redactor: None,
            max_len: DEFAULT_MAX_LEN,
        }
    }
}

impl ParamOptions {
    /// The value that is sent for a parameter.
    pub(crate) fn tell(&self, name: &str, value: Value) -> Value {
        let value = match &self.redactor {
            _ if !self.redact => value,
            // If it panics, what it would have removed is not known.
            Some(redactor) => {
                rpc::contained(|| redactor(name, value)).unwrap_or_else(|| FILTERED.into())
            }
            None if is_secret(name) => FILTERED.into(),
            None => value,
        };
        match value {
            Value::String(text) if text.len() > self.max_len => {
                sentry_debug!("rpc.param.{name} is cut at {} bytes", self.max_len);
                rpc::clip(&text, self.max_len).into()
            }
            // Fields of spans have no such values; only a redactor can have made one.
            Value::Array(_) | Value::Object(_) | Value::Null => FILTERED.into(),
            value => value,
        }
    }

    /// The tag of a parameter, if it is to be one.
    pub(crate) fn tag(&self, field: &str, name: &str, told: &Value) -> Option<(String, String)> {
        if !self.tags.iter().any(|tag| tag == name) {
            return None;
        }
        match told {
            Value::String(text) => tags::bounded(field, text),
            value => tags::bounded(field, &value.to_string()),
        }
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_TERMS.iter().any(|term| name.contains(term))
}

impl fmt::Debug for ParamOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tags,
            redact,
            redactor,
            max_len,
        } = self;
        f.debug_struct("ParamOptions")
            .field("tags", tags)
            .field("redact", redact)
            .field("redactor", &redactor.is_some())
            .field("max_len", max_len)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_filtered_by_name_and_texts_cut_at_a_character() {
        let params = ParamOptions::default();
        for name in [
            "password",
            "api_KEY",
            "user_token",
            "client_secret",
            "Authorization",
        ] {
            assert_eq!(params.tell(name, "hidden".into()), FILTERED);
            assert_eq!(params.tell(name, 7.into()), FILTERED);
        }
        assert_eq!(params.tell("table", "users".into()), "users");
        assert_eq!(params.tell("page", 7.into()), 7);
        assert_eq!(params.tell("all", true.into()), true);
        let text = format!("x{}", "é".repeat(600));
        assert_eq!(
            params.tell("text", text.into()),
            format!("x{}", "é".repeat(511))
        );
    }

    #[test]
    fn a_redactor_has_the_last_word_but_for_the_length() {
        let mut params = ParamOptions {
            redactor: Some(Arc::new(|name, value| match name {
                "panics" => panic!("a bad redactor"),
                "grows" => "x".repeat(5000).into(),
                "nests" => Value::Array(vec![]),
                _ => value,
            })),
            ..ParamOptions::default()
        };
        assert_eq!(params.tell("password", "told".into()), "told");
        assert_eq!(params.tell("panics", "hidden".into()), FILTERED);
        assert_eq!(params.tell("nests", "hidden".into()), FILTERED);
        assert_eq!(params.tell("grows", "".into()), "x".repeat(1024));
        params.redact = false;
        assert_eq!(params.tell("password", "told".into()), "told");
    }

    #[test]
    fn tags_are_those_that_are_asked_for() {
        let params = ParamOptions {
            tags: vec!["table".to_owned()],
            ..ParamOptions::default()
        };
        let tag = |name, told: Value| params.tag("rpc.param.x", name, &told).map(|(_, tag)| tag);
        assert_eq!(tag("table", "é".repeat(300).into()), Some("é".repeat(200)));
        assert_eq!(tag("table", 7.into()), Some("7".to_owned()));
        assert_eq!(tag("page", 7.into()), None);
    }
}
