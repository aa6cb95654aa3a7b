//! Which generation of semantic conventions names the attributes of spans.

use std::env;
use std::sync::OnceLock;

/// Which generation of OpenTelemetry's semantic conventions for RPC names the
/// attributes of a span.
///
/// | | [legacy] | [stable] |
/// |---|---|---|
/// | system | `rpc.system` = `grpc` | `rpc.system.name` = `grpc` |
/// | service | `rpc.service` = `helloworld.Greeter` | |
/// | method | `rpc.method` = `SayHello` | `rpc.method` = `helloworld.Greeter/SayHello` |
/// | status | `rpc.grpc.status_code` = 5 | `rpc.status_code` = `NOT_FOUND` |
/// | metadata | `rpc.grpc.request.metadata.my_key`, `rpc.grpc.response.metadata.my_key` | `rpc.request.header.my-key`, `rpc.response.header.my-key`, `rpc.response.trailer.my-key` |
///
/// Other attributes are the same in both.
///
/// [legacy]: https://github.com/open-telemetry/semantic-conventions/blob/v1.38.0/docs/rpc/grpc.md
/// [stable]: https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SemanticConventions {
    /// Those of 1.38 and before.
    #[default]
    Legacy,
    /// Those of 1.45.
    Stable,
    /// Both; of `rpc.method`, which both have, the stable value.
    Both,
}

/// See <https://opentelemetry.io/docs/specs/semconv/rpc/>.
const OPT_IN: &str = "OTEL_SEMCONV_STABILITY_OPT_IN";

impl SemanticConventions {
    /// What the environment variable `OTEL_SEMCONV_STABILITY_OPT_IN` says. It is read once.
    ///
    /// It is a list separated by commas. With `rpc/dup` in it, this is [`Both`](Self::Both); else
    /// with `rpc`, [`Stable`](Self::Stable); else [`Legacy`](Self::Legacy). Other entries are for
    /// other protocols.
    #[must_use]
    pub fn from_env() -> Self {
        static READ: OnceLock<SemanticConventions> = OnceLock::new();
        *READ.get_or_init(|| Self::of_opt_in(&env::var(OPT_IN).unwrap_or_default()))
    }

    fn of_opt_in(list: &str) -> Self {
        let has = |name| list.split(',').any(|item| item.trim() == name);
        if has("rpc/dup") {
            Self::Both
        } else if has("rpc") {
            Self::Stable
        } else {
            Self::Legacy
        }
    }

    pub(crate) fn has_legacy(self) -> bool {
        self != Self::Stable
    }

    pub(crate) fn has_stable(self) -> bool {
        self != Self::Legacy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opt_in_is_a_list_of_names_of_which_others_are_for_others() {
        for (list, expected) in [
            ("", SemanticConventions::Legacy),
            ("http", SemanticConventions::Legacy),
            ("rpcs,rpc/duplicate,RPC", SemanticConventions::Legacy),
            ("rpc", SemanticConventions::Stable),
            ("http, rpc ,database/dup", SemanticConventions::Stable),
            ("rpc/dup", SemanticConventions::Both),
            ("rpc,rpc/dup", SemanticConventions::Both),
            (",,rpc/dup,", SemanticConventions::Both),
        ] {
            assert_eq!(SemanticConventions::of_opt_in(list), expected, "{list:?}");
        }
    }
}
