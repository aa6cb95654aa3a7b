// The SDK's set-up, which has to be imported before what it may instrument.

import * as Sentry from '@sentry/node';

const { PEER_ORG_ID, PEER_STRICT } = process.env;

// The DSN, the sample rate, the environment and the release are read from
// SENTRY_* by the SDK itself.
Sentry.init({
  orgId: PEER_ORG_ID || undefined,
  strictTraceContinuation: PEER_STRICT === '1',
  // Otherwise spans are sent one by one, and there are no transactions.
  traceLifecycle: 'static',
  // What does not fit is dropped: calls come in bursts.
  transportOptions: { bufferSize: 10_000 },
  // Equal exceptions in successive calls are not duplicates here.
  integrations: (defaults) => defaults.filter(({ name }) => name !== 'Dedupe'),
});
