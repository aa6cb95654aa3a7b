//! The trace that an incoming request belongs to.

use http::HeaderMap;

use crate::propagation::sentry_trace;

const SENTRY_TRACE: &str = "sentry-trace";
const BAGGAGE: &str = "baggage";

/// The headers of an incoming trace, proved valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IncomingTrace {
    sentry_trace: String,
    baggage: String,
}

impl IncomingTrace {
    /// `None` where there is no valid `sentry-trace`. Of several, the first
    /// valid one counts; all `baggage` values are one list.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let sentry_trace = headers
            .get_all(SENTRY_TRACE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find(|value| sentry_trace::is_valid(value))?;
        let mut baggage = String::new();
        for value in headers.get_all(BAGGAGE) {
            let Ok(value) = value.to_str() else { continue };
            if !baggage.is_empty() {
                baggage.push(',');
            }
            baggage.push_str(value);
        }
        Some(Self {
            sentry_trace: sentry_trace.trim().to_owned(),
            baggage,
        })
    }

    /// From the value of a `sentry-trace` header alone.
    pub(crate) fn from_sentry_trace(value: &str) -> Option<Self> {
        sentry_trace::is_valid(value).then(|| Self {
            sentry_trace: value.trim().to_owned(),
            baggage: String::new(),
        })
    }

    /// As sentry-core reads them.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        [
            (SENTRY_TRACE, self.sentry_trace.as_str()),
            (BAGGAGE, self.baggage.as_str()),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const VALID: &str = "09e04486820349518ac7b5d2adbf6ba5-9cf635fa5b870b3a-1";

    fn from(headers: &[(&'static str, &[u8])]) -> Option<Vec<(String, String)>> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let incoming = IncomingTrace::from_headers(&map)?;
        let headers = incoming.headers();
        Some(headers.map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    #[test]
    fn the_first_valid_trace_and_all_baggage_count() {
        let trace = (SENTRY_TRACE.to_owned(), VALID.to_owned());
        assert_eq!(from(&[]), None);
        assert_eq!(from(&[(BAGGAGE, b"sentry-org_id=1")]), None);
        assert_eq!(from(&[(SENTRY_TRACE, b"nonsense")]), None);
        assert_eq!(from(&[(SENTRY_TRACE, b"\xff")]), None);
        assert_eq!(
            from(&[(SENTRY_TRACE, VALID.as_bytes())]),
            Some(vec![trace.clone()])
        );
        assert_eq!(
            from(&[
                (SENTRY_TRACE, b"nonsense"),
                (SENTRY_TRACE, VALID.as_bytes()),
                (BAGGAGE, b"a=1,b=2"),
                (BAGGAGE, b"\xff"),
                (BAGGAGE, b"sentry-org_id=1"),
            ]),
            Some(vec![
                trace,
                (BAGGAGE.to_owned(), "a=1,b=2,sentry-org_id=1".to_owned())
            ])
        );
    }
}
