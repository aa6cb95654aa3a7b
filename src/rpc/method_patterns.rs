//! Patterns for the paths of methods.

use std::sync::Arc;

use crate::rpc::method::MethodPath;

/// Matches `/helloworld.Greeter/SayHello`, where `*` in a pattern stands for any
/// text, also none.
#[derive(Debug, Clone, Default)]
pub(crate) struct MethodPatterns(Arc<[String]>);

impl MethodPatterns {
    pub(crate) fn new(patterns: impl IntoIterator<Item = String>) -> Self {
        Self(patterns.into_iter().collect())
    }

    pub(crate) fn matches(&self, path: &MethodPath) -> bool {
        let path = path.full();
        self.0.iter().any(|pattern| matches(pattern, path))
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == path;
    };
    let Some(mut left) = path.strip_prefix(start) else {
        return false;
    };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    // Taking each piece where it first occurs leaves most to those that follow.
    for piece in middle.split('*') {
        match left.find(piece) {
            Some(at) => left = left.get(at + piece.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let path = "/internal.v1.Greeter/SayHello";
        for pattern in [
            path,
            "*",
            "**",
            "/internal.*",
            "*/SayHello",
            "/internal.*/Say*",
            "*v1*Hello*",
            "*.Greeter/*",
            "/internal.v1.Greeter/SayHello*",
        ] {
            assert!(matches(pattern, path), "{pattern}");
        }
        for pattern in [
            "",
            "/internal.v1.Greeter",
            "internal.*",
            "*/SayHell",
            "/internal.*/Ping",
            "*Hello*v1*",
            "/internal.v1.Greeter/SayHello*SayHello",
            "*lo*lo",
        ] {
            assert!(!matches(pattern, path), "{pattern}");
        }
    }
}
