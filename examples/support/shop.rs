//! The services of `proto/shop.proto`.

#[expect(
    clippy::allow_attributes,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
#[rustfmt::skip]
mod generated;

pub(crate) use generated::*;

/// One of an item.
pub(crate) fn order(item: &str) -> Order {
    Order {
        item: item.to_owned(),
        count: 1,
    }
}
