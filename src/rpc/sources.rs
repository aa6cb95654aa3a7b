//! The chain of sources of an error.

use std::error::Error;

use crate::rpc::contained::contained;

/// A longer chain is a circle or an attack.
const MAX_SOURCES: usize = 32;

/// An error, its source, the source of that, and so on. `source` of a foreign error may panic.
pub(crate) fn chain<'a>(
    outermost: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let chain = std::iter::successors(Some(outermost), |&error: &&'a (dyn Error + 'static)| {
        contained(|| error.source()).flatten()
    });
    chain.take(MAX_SOURCES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    #[derive(Debug)]
    struct Link(Option<Box<Self>>);

    impl fmt::Display for Link {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("link")
        }
    }

    impl Error for Link {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self.0.as_deref()?)
        }
    }

    #[test]
    fn a_chain_has_no_more_links_than_a_few() {
        for (links, expected) in [(1, 1), (32, 32), (33, 32)] {
            let outermost = (1..links).fold(Link(None), |inner, _| Link(Some(inner.into())));
            assert_eq!(chain(&outermost).count(), expected);
        }
    }
}
