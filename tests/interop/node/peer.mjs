// The peer of grpc-js and @sentry/node: a Greeter server and a client in one
// process, which obeys the orders that tests/interop/README.md describes.

import './sentry.mjs';

import { createInterface } from 'node:readline';

import { status } from '@grpc/grpc-js';
import * as Sentry from '@sentry/node';

import { callGreeter } from './client.mjs';
import { Greeter } from './proto.mjs';
import { serve } from './server.mjs';
import { setSpanStatus } from './tracing.mjs';

const FLUSH_TIMEOUT_MS = 10_000;

/** By the names that orders have for them. */
const METHODS = new Map([
  ['unary', 'SayHello'],
  ['server_stream', 'SayHelloStream'],
  ['client_stream', 'CollectHellos'],
  ['bidi', 'Chat'],
]);

// Not `console`, which the SDK listens to.
function say(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

function fail(error) {
  process.stderr.write(`peer: ${error.stack ?? error}\n`);
  process.exit(1);
}

function parse(line) {
  const { id, flush, call, name, route, metadata, ...unknown } = JSON.parse(line);
  const method = METHODS.get(call);
  const isCall = method !== undefined && typeof name === 'string' && route?.length > 0;
  const isFlush = flush === true && call === undefined;
  if (id === undefined || !(isCall || isFlush) || Object.keys(unknown).length > 0) {
    throw new Error(`not an order: ${line}`);
  }
  return { id, method, name, route, metadata };
}

async function obey({ id, method, name, route, metadata }) {
  if (method) {
    say({ id, ...(await makeCall(method, name, route, metadata)) });
  } else {
    say({ id, flushed: await Sentry.flush(FLUSH_TIMEOUT_MS) });
  }
}

function makeCall(method, name, route, metadata) {
  const requests = Array(Greeter.service[method].requestStream ? 3 : 1).fill({ name });
  return Sentry.startNewTrace(() =>
    Sentry.startSpan({ name: 'call', op: 'test', forceTransaction: true }, async (span) => {
      const replies = [];
      let code = status.OK;
      let message = '';
      try {
        for await (const reply of callGreeter(method, route, requests, metadata)) {
          replies.push(reply.message);
        }
      } catch (error) {
        // Without a status it is the order that is wrong.
        if (!Number.isInteger(error.code)) {
          throw error;
        }
        ({ code, details: message } = error);
      }
      setSpanStatus(span, code);
      return { code: status[code], message, replies };
    }),
  );
}

async function end() {
  if (!(await Sentry.flush(FLUSH_TIMEOUT_MS))) {
    throw new Error('not all that was reported could be sent');
  }
  process.exit(0);
}

async function main() {
  process.once('SIGTERM', () => end().catch(fail));
  say({ listening: await serve((hop) => say({ hop })) });
  const running = new Set();
  for await (const line of createInterface({ input: process.stdin })) {
    const order = obey(parse(line))
      .catch(fail)
      .finally(() => running.delete(order));
    running.add(order);
  }
  await Promise.all(running);
  await end();
}

main().catch(fail);
