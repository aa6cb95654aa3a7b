// The client's side.

import { Readable } from 'node:stream';

import { credentials, Metadata } from '@grpc/grpc-js';

import { Greeter } from './proto.mjs';
import { traceClientCall } from './tracing.mjs';

/** The key of the servers that a call has yet to go through. */
export const ROUTE = 'x-route';

const clients = new Map();

function clientFor(server) {
  let client = clients.get(server);
  if (!client) {
    client = new Greeter(new URL(server).host, credentials.createInsecure());
    clients.set(server, client);
  }
  return client;
}

/**
 * Calls the first server of a route, and yields its replies as they come.
 *
 * @param {string} name of the method, such as `SayHello`
 * @param {string[]} route
 * @param {Iterable | AsyncIterable} requests
 * @param {[string, string][]} entries of the request's metadata
 */
export function callGreeter(name, [server, ...others], requests, entries = []) {
  const metadata = new Metadata();
  for (const [key, value] of entries) {
    metadata.add(key, value);
  }
  if (others.length > 0) {
    metadata.set(ROUTE, others.join(','));
  }
  const client = clientFor(server);
  return traceClientCall(Greeter.service[name].path, metadata, (traced) =>
    exchange(client, name, requests, traced),
  );
}

async function* exchange(client, name, requests, metadata) {
  const { requestStream, responseStream } = Greeter.service[name];
  const leading = requestStream ? [metadata] : [await first(requests), metadata];
  if (responseStream) {
    const call = client[name](...leading);
    if (requestStream) {
      send(requests, call);
    }
    yield* call;
    return;
  }
  yield await new Promise((resolve, reject) => {
    const call = client[name](...leading, (error, reply) =>
      error ? reject(error) : resolve(reply),
    );
    if (requestStream) {
      send(requests, call);
    }
  });
}

function send(requests, call) {
  Readable.from(requests)
    .on('error', () => call.cancel())
    .pipe(call);
}

/** The first of `requests`, of which there may be none. */
export async function first(requests) {
  for await (const request of requests) {
    return request;
  }
}
