import { fileURLToPath } from 'node:url';

import { loadPackageDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const PROTO = new URL('../../../examples/proto/helloworld.proto', import.meta.url);

export const { Greeter } = loadPackageDefinition(loadSync(fileURLToPath(PROTO))).helloworld;
