// The server's side.

import { promisify } from 'node:util';

import { Server, ServerCredentials, status } from '@grpc/grpc-js';
import * as Sentry from '@sentry/node';

import { callGreeter, first, ROUTE } from './client.mjs';
import { Greeter } from './proto.mjs';
import { codeOf, traceServerCall } from './tracing.mjs';

/** What each method replies to names whose route ends here. */
const greetings = {
  async *SayHello(requests) {
    const { name } = await first(requests);
    findName(name);
    yield hello(name);
  },

  async *SayHelloStream(requests) {
    const { name } = await first(requests);
    yield hello(name);
    findName(name);
    yield hello(name);
    yield hello(name);
  },

  async *CollectHellos(requests) {
    const names = [];
    for await (const { name } of requests) {
      names.push(name);
    }
    const [name = ''] = names;
    findName(name);
    yield hello(name);
  },

  async *Chat(requests) {
    for await (const { name } of requests) {
      yield hello(name);
      findName(name);
    }
  },
};

function hello(name) {
  return { message: `Hello ${name}!` };
}

function findName(name) {
  const [kind] = name.split('-', 1);
  if (kind === 'notfound') {
    throw failure(status.NOT_FOUND, 'nobody has this name');
  }
  if (kind === 'internal') {
    Sentry.captureException(new Error('lookup failed'));
    throw failure(status.INTERNAL, 'lookup failed');
  }
}

function failure(code, details) {
  return Object.assign(new Error(details), { code, details });
}

/**
 * Serves the Greeter on a free port, and resolves with its URI.
 *
 * @param {(hop: object) => void} onHop is told of each call
 */
export async function serve(onHop) {
  const server = new Server();
  const names = Object.keys(Greeter.service);
  server.addService(
    Greeter.service,
    Object.fromEntries(names.map((name) => [name, implement(name, onHop)])),
  );
  const bind = promisify(server.bindAsync.bind(server));
  const port = await bind('127.0.0.1:0', ServerCredentials.createInsecure());
  return `http://127.0.0.1:${port}`;
}

function implement(name, onHop) {
  const { responseStream } = Greeter.service[name];
  return async (call, callback) => {
    const replies = [];
    // A stream buffers the few replies that there are. To wait for room in it
    // would take for ever where the call is cancelled.
    const send = (reply) => (responseStream ? call.write(reply) : replies.push(reply));
    let error = null;
    await traceServerCall(call, async () => {
      try {
        await answer(name, call, requestsOf(call, onHop), send);
        return status.OK;
      } catch (thrown) {
        // Without the metadata that came with it from the next server.
        error = { code: codeOf(thrown), details: thrown.details ?? thrown.message };
        return error.code;
      }
    });
    // The transaction ends before the call: whoever has the status may order a flush.
    if (!responseStream) {
      callback(error, replies[0]);
    } else if (error) {
      call.emit('error', error);
    } else {
      call.end();
    }
  };
}

async function answer(name, call, requests, send) {
  const [route] = call.metadata.get(ROUTE);
  if (route) {
    for await (const reply of callGreeter(name, route.split(','), requests)) {
      send(reply);
    }
    return;
  }
  // The generator runs in the async context of the loop: its exceptions are the span's.
  await Sentry.startSpan({ name: 'find_name', op: 'function' }, async () => {
    for await (const reply of greetings[name](requests)) {
      send(reply);
    }
  });
}

function applicationMetadata(metadata) {
  const keys = Object.keys(metadata.getMap()).filter((key) => key.startsWith('x-') && key !== ROUTE);
  return keys.sort().flatMap((key) => metadata.get(key).map((value) => [key, value]));
}

async function* requestsOf(call, onHop) {
  // Where a handler fails early, its stream has yet to send the status.
  const requests = call.request ? [call.request] : call.iterator({ destroyOnReturn: false });
  let announced = false;
  for await (const request of requests) {
    if (!announced) {
      announced = true;
      onHop({
        method: call.getPath(),
        name: request.name,
        'sentry-trace': call.metadata.get('sentry-trace'),
        baggage: call.metadata.get('baggage'),
        metadata: applicationMetadata(call.metadata),
      });
    }
    yield request;
  }
}
