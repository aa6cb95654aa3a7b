//! Choices that are read from bytes, so that whoever makes bytes makes cases.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Where no bytes are left, each choice is 0, which is the plainest.
#[derive(Debug)]
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        byte
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(crate) fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == many - 1
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    pub(crate) fn some<T>(&mut self, max: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let len = self.below(max + 1);
        (0..len).map(|_| one(self)).collect()
    }

    /// As they stand.
    pub(crate) fn bytes(&mut self, max: usize) -> Bytes {
        let len = self.below(max + 1).min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        Bytes::copy_from_slice(taken)
    }

    /// Adds headers of these names, and with values of any bytes that a value may have.
    pub(crate) fn headers(
        &mut self,
        to: &mut HeaderMap,
        names: &[(&'static str, &[&'static str])],
    ) {
        for _ in 0..self.below(7) {
            let (name, values) = self.pick(names);
            let value = match self.below(values.len() + 2) {
                0 => values
                    .first()
                    .copied()
                    .unwrap_or_default()
                    .repeat(60)
                    .into_bytes(),
                1 => self.bytes(80).to_vec(),
                n => values[n - 2].as_bytes().to_vec(),
            };
            // What HTTP/2 would not carry does not come here.
            if let Ok(mut value) = HeaderValue::from_bytes(&value) {
                value.set_sensitive(self.one_in(8));
                to.append(HeaderName::from_static(name), value);
            }
        }
    }
}
