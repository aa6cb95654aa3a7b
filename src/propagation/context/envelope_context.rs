//! The dynamic sampling context as the header of an envelope has it.

use sentry_core::protocol::{self, DynamicSamplingContext, OrganizationId, TraceId};

use crate::propagation::sample::{SampleRand, SampleRate};

/// The fields of the type in sentry-types. Sentry requires the first two.
#[derive(Debug)]
pub(crate) struct EnvelopeContext {
    pub(crate) trace_id: TraceId,
    pub(crate) public_key: String,
    pub(crate) sample_rate: Option<SampleRate>,
    pub(crate) sample_rand: Option<SampleRand>,
    pub(crate) sampled: Option<bool>,
    pub(crate) release: Option<String>,
    pub(crate) environment: Option<String>,
    pub(crate) transaction: Option<String>,
    pub(crate) org_id: Option<OrganizationId>,
}

impl EnvelopeContext {
    pub(crate) fn typed(self) -> DynamicSamplingContext {
        let mut context = DynamicSamplingContext::new()
            .with_trace_id(self.trace_id)
            .with_public_key(self.public_key);
        if let Some(rate) = self.sample_rate {
            context = context.with_sample_rate(rate.get());
        }
        let rand = self.sample_rand;
        if let Some(rand) = rand.and_then(|rand| protocol::SampleRand::try_from(rand.get()).ok()) {
            context = context.with_sample_rand(rand);
        }
        if let Some(sampled) = self.sampled {
            context = context.with_sampled(sampled);
        }
        if let Some(release) = self.release {
            context = context.with_release(release);
        }
        if let Some(environment) = self.environment {
            context = context.with_environment(environment);
        }
        if let Some(transaction) = self.transaction {
            context = context.with_transaction(transaction);
        }
        if let Some(org_id) = self.org_id {
            context = context.with_org_id(org_id);
        }
        context
    }
}
