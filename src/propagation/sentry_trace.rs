//! The `sentry-trace` header.

use std::fmt;

use http::HeaderName;
use sentry_core::protocol::{SpanId, TraceId};

use crate::propagation::id::{self, Hex};
use crate::propagation::w3c_span_context::W3cSpanContext;

pub(crate) const SENTRY_TRACE_HEADER: &str = "sentry-trace";
pub(crate) const SENTRY_TRACE_NAME: HeaderName = HeaderName::from_static(SENTRY_TRACE_HEADER);

const TRACE_ID_DIGITS: usize = 32;
const SPAN_ID_DIGITS: usize = 16;

/// `<32 hex>-<16 hex>[-0|-1]`: which span of which trace a request comes from.
///
/// See <https://develop.sentry.dev/sdk/foundations/trace-propagation/#header-sentry-trace>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SentryTrace {
    pub(crate) trace_id: TraceId,
    pub(crate) span_id: SpanId,
    /// `None` where the decision is left to whoever continues.
    pub(crate) sampled: Option<bool>,
}

impl SentryTrace {
    /// `None` for anything that Sentry's SDKs do not send, and for ids of zeros alone, for which
    /// Sentry drops a whole transaction.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let (trace_id, rest) = value.trim().split_at_checked(TRACE_ID_DIGITS)?;
        let (span_id, rest) = rest.strip_prefix('-')?.split_at_checked(SPAN_ID_DIGITS)?;
        let trace_id: [u8; 16] = id::parse(trace_id)?;
        let span_id: [u8; 8] = id::parse(span_id)?;
        let sampled = match rest {
            "" => None,
            "-0" => Some(false),
            "-1" => Some(true),
            _ => return None,
        };
        Some(Self {
            trace_id: TraceId::from(trace_id),
            span_id: SpanId::from(span_id),
            sampled,
        })
    }
}

impl SentryTrace {
    /// A caller that records its part wants the trace sampled. One that does not may have no
    /// backend at all: the decision stays open.
    pub(crate) fn of_w3c(span: &W3cSpanContext) -> Self {
        Self {
            trace_id: span.trace_id,
            span_id: span.span_id,
            sampled: span.is_sampled.then_some(true),
        }
    }

    /// The value of the header.
    pub(crate) fn to_text(self) -> String {
        let mut text = String::with_capacity(TRACE_ID_DIGITS + SPAN_ID_DIGITS + "--1".len());
        text.push_str(Hex::new(id::trace_id(self.trace_id)).as_str());
        text.push('-');
        text.push_str(Hex::new(id::span_id(self.span_id)).as_str());
        match self.sampled {
            Some(true) => text.push_str("-1"),
            Some(false) => text.push_str("-0"),
            None => {}
        }
        text
    }

    /// As W3C names the span.
    pub(crate) fn to_w3c(self) -> W3cSpanContext {
        W3cSpanContext {
            trace_id: self.trace_id,
            span_id: self.span_id,
            is_sampled: self.sampled == Some(true),
            state: String::new(),
        }
    }
}

impl fmt::Display for SentryTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_sentry_sends_and_nothing_else() {
        let trace = "09e04486820349518ac7b5d2adbf6ba5";
        let span = "9cf635fa5b870b3a";
        for (value, sent) in [
            (format!("{trace}-{span}"), format!("{trace}-{span}")),
            (format!("{trace}-{span}-0"), format!("{trace}-{span}-0")),
            (format!("{trace}-{span}-1"), format!("{trace}-{span}-1")),
            (format!(" {trace}-{span}-1\t"), format!("{trace}-{span}-1")),
            (
                format!("{}-{span}-1", trace.to_uppercase()),
                format!("{trace}-{span}-1"),
            ),
        ] {
            let parsed = SentryTrace::parse(&value).map(|trace| trace.to_string());
            assert_eq!(parsed, Some(sent), "{value:?}");
        }
        for value in [
            String::new(),
            "-".to_owned(),
            "1".to_owned(),
            trace.to_owned(),
            format!("{trace}-"),
            format!("{trace}-{span}-"),
            format!("{trace}-{span}-2"),
            format!("{trace}-{span}-1-1"),
            format!("{trace}-{span}-true"),
            format!("{trace}{span}"),
            format!("{trace}-{}", "0".repeat(16)),
            format!("{}-{span}-1", "0".repeat(32)),
            format!("{}-{span}-1", "g".repeat(32)),
            format!("{}-{span}-1", &trace[1..]),
            format!("{trace}0-{span}-1"),
            format!("{trace}-{span}0-1"),
            format!("+{}-{span}-1", &trace[1..]),
        ] {
            assert_eq!(SentryTrace::parse(&value), None, "{value:?}");
        }
    }
}
