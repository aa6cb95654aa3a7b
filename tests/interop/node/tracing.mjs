// gRPC has no instrumentation in the SDK: this is what its documentation
// suggests for such a transport.

import { status } from '@grpc/grpc-js';
import * as Sentry from '@sentry/node';

/** The codes whose names the SDK does not share with gRPC. */
const SPAN_STATUS = {
  [status.INTERNAL]: 'internal_error',
  [status.UNKNOWN]: 'unknown_error',
};

/** The status code of what a call threw, which need not come from gRPC. */
export function codeOf(error) {
  return Number.isInteger(error.code) ? error.code : status.UNKNOWN;
}

/** @param {number} code of gRPC */
export function setSpanStatus(span, code) {
  // The SDK does not export names for these numbers: 1 is a success, 2 an error.
  span.setStatus(
    code === status.OK
      ? { code: 1 }
      : { code: 2, message: SPAN_STATUS[code] ?? status[code].toLowerCase() },
  );
}

/**
 * Runs `handle` in a transaction that continues the caller's trace.
 *
 * @param call any of the four kinds of a server's call
 * @param {() => Promise<number>} handle resolves with the status code
 */
export function traceServerCall(call, handle) {
  const [sentryTrace] = call.metadata.get('sentry-trace');
  const baggage = call.metadata.get('baggage');
  return Sentry.withIsolationScope(() =>
    Sentry.continueTrace({ sentryTrace, baggage }, () =>
      Sentry.startSpan(
        { name: call.getPath(), op: 'grpc.server', forceTransaction: true },
        async (span) => setSpanStatus(span, await handle()),
      ),
    ),
  );
}

/**
 * Yields the replies of a call, which a span covers from the first request for
 * one to the end.
 *
 * The span is never the active one: a generator runs in the async context of
 * who asks it for the next value.
 *
 * @param {string} path of the method
 * @param {import('@grpc/grpc-js').Metadata} metadata of the request
 * @param {(metadata: import('@grpc/grpc-js').Metadata) => AsyncIterable} start makes the call
 */
export async function* traceClientCall(path, metadata, start) {
  const span = Sentry.startInactiveSpan({ name: path, op: 'grpc.client' });
  let code = status.OK;
  try {
    yield* start(withTrace(metadata, span));
  } catch (error) {
    code = codeOf(error);
    throw error;
  } finally {
    setSpanStatus(span, code);
    span.end();
  }
}

function withTrace(metadata, span) {
  const { 'sentry-trace': sentryTrace, baggage } = Sentry.getTraceData({ span });
  const traced = metadata.clone();
  if (sentryTrace) {
    traced.set('sentry-trace', sentryTrace);
  }
  // Members of others go through as they are; those of another trace do not.
  const members = metadata
    .get('baggage')
    .flatMap((value) => value.split(','))
    .map((member) => member.trim())
    .filter((member) => member && !member.startsWith('sentry-'));
  if (baggage) {
    members.push(baggage);
  }
  traced.remove('baggage');
  if (members.length > 0) {
    traced.set('baggage', members.join(','));
  }
  return traced;
}
