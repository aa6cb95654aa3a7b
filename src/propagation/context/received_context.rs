//! The sampling context that came with a trace.

use std::borrow::Cow;

use sentry_core::protocol::{DynamicSamplingContext, OrganizationId, TraceId};

use crate::propagation::context::baggage::{Baggage, BaggageWriter};
use crate::propagation::context::envelope_context::EnvelopeContext;
use crate::propagation::context::members::{
    SentryMember, decode, escape, is_decodable, is_legal, is_token, sentry_members,
};
use crate::propagation::id;
use crate::propagation::sample::{SampleRand, SampleRate};

/// The members of `baggage` with Sentry's prefix: as they arrived, for other services, and what
/// the known ones say. Of several members with one key the first that can be read counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ReceivedContext {
    pub(crate) baggage: Baggage,
    trace_id: Option<TraceId>,
    pub(crate) org_id: Option<OrganizationId>,
    pub(crate) sample_rate: Option<SampleRate>,
    pub(crate) sample_rand: Option<SampleRand>,
    sampled: Option<bool>,
    public_key: Option<Place>,
    release: Option<Place>,
    environment: Option<Place>,
    transaction: Option<Place>,
}

/// Where a value that can be decoded is in the list of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    start: u16,
    end: u16,
}

impl ReceivedContext {
    /// Reads the values of `baggage`, which are one list, of a request in the trace `trace_id`.
    /// Of a list that names another trace only the organization counts.
    ///
    /// The members go on byte for byte, as many as are within the limits. Only bytes that no header
    /// may have are percent-encoded, which does not change a value.
    pub(crate) fn read<'a>(lists: impl Iterator<Item = &'a str>, trace_id: TraceId) -> Self {
        let mut context = Self::default();
        let mut list = BaggageWriter::default();
        for values in lists {
            let is_legal = is_legal(values);
            for member in sentry_members(values) {
                if !is_token(member.key.as_bytes()) {
                    continue;
                }
                if is_legal {
                    context.read_member(&member, &mut list);
                } else if let Some(member) = SentryMember::of(&escape(member.text)) {
                    context.read_member(&member, &mut list);
                }
            }
        }
        if context.trace_id.is_some_and(|named| named != trace_id) {
            return Self {
                org_id: context.org_id,
                ..Self::default()
            };
        }
        context.baggage = list.finish();
        context
    }

    fn read_member(&mut self, member: &SentryMember<'_>, list: &mut BaggageWriter) {
        let Some(start) = list.push([member.text]) else {
            return;
        };
        let value = || decode(member.value());
        let place = || {
            let place = Place {
                start: u16::try_from(start + member.value.start).ok()?,
                end: u16::try_from(start + member.value.end).ok()?,
            };
            is_decodable(member.value()).then_some(place)
        };
        match member.key {
            // Without a valid id it is that of no trace.
            "trace_id" => keep_first(&mut self.trace_id, || {
                Some(id::parse(&value()?).unwrap_or_default().into())
            }),
            "public_key" => keep_first(&mut self.public_key, place),
            "sample_rate" => keep_first(&mut self.sample_rate, || SampleRate::parse(&value()?)),
            "sample_rand" => keep_first(&mut self.sample_rand, || SampleRand::parse(&value()?)),
            "sampled" => keep_first(&mut self.sampled, || value()?.parse().ok()),
            "release" => keep_first(&mut self.release, place),
            "environment" => keep_first(&mut self.environment, place),
            "transaction" => keep_first(&mut self.transaction, place),
            "org_id" => keep_first(&mut self.org_id, || value()?.parse().ok()),
            _ => {}
        }
    }

    /// What the type in sentry-types can hold of it; `None` without the two keys that Sentry
    /// requires.
    pub(crate) fn envelope(&self) -> Option<DynamicSamplingContext> {
        let list = self.baggage.as_str()?;
        let text = |place: Option<Place>| {
            let Place { start, end } = place?;
            decode(list.get(start.into()..end.into())?).map(Cow::into_owned)
        };
        let context = EnvelopeContext {
            trace_id: self.trace_id?,
            public_key: text(self.public_key)?,
            sample_rate: self.sample_rate,
            sample_rand: self.sample_rand,
            sampled: self.sampled,
            release: text(self.release),
            environment: text(self.environment),
            transaction: text(self.transaction),
            org_id: self.org_id,
        };
        Some(context.typed())
    }
}

/// Keeps the first of several values that can be read.
fn keep_first<T>(kept: &mut Option<T>, read: impl FnOnce() -> Option<T>) {
    if kept.is_none() {
        *kept = read();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(list: &str) -> ReceivedContext {
        ReceivedContext::read(std::iter::once(list), TraceId::from([1; 16]))
    }

    #[test]
    fn takes_sentry_members_byte_for_byte() {
        for (list, expected) in [
            ("", None),
            ("a=1,b=2", None),
            ("sentry-a=1", Some("sentry-a=1")),
            (
                " x=1 , sentry-b=%2F%zz;p=1 ,,sentry-a = 2\t",
                Some("sentry-b=%2F%zz;p=1,sentry-a = 2"),
            ),
            ("sentry-a,sentry-=1,sentry-b c=1,Sentry-d=1", None),
            (
                "sentry-a=\"b\\é\u{7f}\r\nx: y",
                Some("sentry-a=%22b%5C%C3%A9%7F%0D%0Ax: y"),
            ),
        ] {
            assert_eq!(read(list).baggage.as_str(), expected, "{list:?}");
        }
    }

    #[test]
    fn the_first_value_that_can_be_read_counts() {
        let context = read(
            "sentry-sample_rate=2,sentry-sample_rate=0.5,sentry-sample_rate=1,\
             sentry-release=%FF,sentry-release=a%40b,sentry-release=c",
        );
        assert_eq!(context.sample_rate, SampleRate::parse("0.5"));
        let place = context.release.unwrap();
        let list = context.baggage.as_str().unwrap();
        assert_eq!(
            list.get(place.start.into()..place.end.into()),
            Some("a%40b")
        );
    }

    #[test]
    fn of_another_trace_only_the_organization_counts() {
        let own = "01".repeat(16);
        for (id, is_own) in [
            (own.as_str(), true),
            (&own.replace('0', "%30"), true),
            (&"02".repeat(16), false),
            (&"0".repeat(32), false),
            ("", false),
        ] {
            let list = format!("sentry-trace_id={id},sentry-org_id=1,sentry-sample_rate=1");
            let context = read(&list);
            assert_eq!(context.org_id, Some(1.into()));
            assert_eq!(context.sample_rate.is_some(), is_own, "{id}");
            assert_eq!(context.baggage.as_str(), is_own.then_some(&*list));
        }
    }
}
