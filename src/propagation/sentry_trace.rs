//! The `sentry-trace` header.

/// Whether `value` is `<32 hex>-<16 hex>[-0|-1]` with ids that are not all
/// zero: Sentry drops a whole transaction over an id that is.
///
/// See <https://develop.sentry.dev/sdk/foundations/trace-propagation/#header-sentry-trace>.
pub(crate) fn is_valid(value: &str) -> bool {
    let mut parts = value.trim().split('-');
    let trace_id = parts.next().is_some_and(|id| is_id(id, 32));
    let span_id = parts.next().is_some_and(|id| is_id(id, 16));
    let sampled = matches!(parts.next(), None | Some("0" | "1"));
    trace_id && span_id && sampled && parts.next().is_none()
}

fn is_id(id: &str, len: usize) -> bool {
    id.len() == len && id.bytes().all(|b| b.is_ascii_hexdigit()) && id.bytes().any(|b| b != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_sentry_sends_and_nothing_else() {
        let trace = "09e04486820349518ac7b5d2adbf6ba5";
        let span = "9cf635fa5b870b3a";
        for value in [
            format!("{trace}-{span}"),
            format!("{trace}-{span}-0"),
            format!("{trace}-{span}-1"),
            format!(" {trace}-{span}-1\t"),
            format!("{}-{span}-1", trace.to_uppercase()),
        ] {
            assert!(is_valid(&value), "{value:?}");
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
            assert!(!is_valid(&value), "{value:?}");
        }
    }
}
