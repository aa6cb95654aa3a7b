//! What headers mean, read in the simplest way.

use http::HeaderMap;

/// Ids in lower case, and whether it is sampled, where that is said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Named {
    pub(crate) trace: String,
    pub(crate) span: String,
    pub(crate) sampled: Option<bool>,
}

impl Named {
    fn new(trace: &str, span: &str, sampled: Option<bool>) -> Option<Self> {
        let is_id = |id: &str, len| {
            id.len() == len
                && id.bytes().all(|byte| byte.is_ascii_hexdigit())
                && id.bytes().any(|byte| byte != b'0')
        };
        (is_id(trace, 32) && is_id(span, 16)).then(|| Self {
            trace: trace.to_lowercase(),
            span: span.to_lowercase(),
            sampled,
        })
    }

    pub(crate) fn by_sentry(value: &str) -> Option<Self> {
        let parts: Vec<&str> = value.trim().split('-').collect();
        match parts.as_slice() {
            [trace, span] => Self::new(trace, span, None),
            [trace, span, "0"] => Self::new(trace, span, Some(false)),
            [trace, span, "1"] => Self::new(trace, span, Some(true)),
            _ => None,
        }
    }

    pub(crate) fn by_w3c(value: &str) -> Option<Self> {
        let value = value.trim_matches([' ', '\t']);
        let parts: Vec<&str> = value.split('-').collect();
        let [version, trace, span, flags, more @ ..] = parts.as_slice() else {
            return None;
        };
        let is_hex = |part: &str| {
            let mut bytes = part.bytes();
            bytes.all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
        };
        let are_hex = parts[..4].iter().all(|part| is_hex(part));
        let is_known = *version != "ff" && (*version != "00" || more.is_empty());
        if !are_hex || !is_known || version.len() != 2 || flags.len() != 2 {
            return None;
        }
        let flags = u8::from_str_radix(flags, 16).unwrap();
        // Whoever does not record may have nobody to record for.
        Self::new(trace, span, (flags & 1 == 1).then_some(true))
    }
}

/// The trace that a request with these headers goes on with.
pub(crate) fn incoming(headers: &HeaderMap) -> Option<Named> {
    let mut by_sentry = texts(headers, "sentry-trace");
    by_sentry
        .find_map(Named::by_sentry)
        .or_else(|| w3c(headers))
}

/// Of several it is not known which one is meant.
pub(crate) fn w3c(headers: &HeaderMap) -> Option<Named> {
    let values: Vec<&str> = texts(headers, "traceparent").collect();
    match values.as_slice() {
        [only] => Named::by_w3c(only),
        _ => None,
    }
}

pub(crate) fn texts<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter();
    values.filter_map(|value| value.to_str().ok())
}

/// The members of Sentry's, as they are.
pub(crate) fn of_sentry(headers: &HeaderMap) -> Vec<&str> {
    let members = texts(headers, "baggage").flat_map(|text| text.split(','));
    let members = members.map(str::trim);
    members
        .filter(|member| member.starts_with("sentry-") && member.contains('='))
        .collect()
}

/// Nanoseconds.
pub(crate) fn timeout(headers: &HeaderMap) -> Option<u128> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let unit = value.chars().last()?;
    let digits = value.strip_suffix(unit)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let amount: u128 = digits
        .parse()
        .ok()
        .filter(|_| is_number && digits.len() <= 8)?;
    let nanos = match unit {
        'H' => 3_600_000_000_000,
        'M' => 60_000_000_000,
        'S' => 1_000_000_000,
        'm' => 1_000_000,
        'u' => 1_000,
        'n' => 1,
        _ => return None,
    };
    Some(amount * nanos)
}
