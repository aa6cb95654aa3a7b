//! What an error came from.

use std::error::Error;

use crate::rpc::contained::contained;

/// An error chain longer than this is a circle or an attack.
const MAX_SOURCES: usize = 32;

/// An error, its source, the source of that, and so on: somebody else wrote them, and
/// they may panic when they are asked.
pub(crate) fn chain<'a>(
    outermost: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let chain = std::iter::successors(Some(outermost), |&error: &&'a (dyn Error + 'static)| {
        contained(|| error.source()).flatten()
    });
    chain.take(MAX_SOURCES)
}
