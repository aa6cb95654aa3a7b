// Prints what Sentry's conventions know of attributes and of operations, for
// judges in other languages.

import { ATTRIBUTE_METADATA } from '@sentry/conventions/attributes';
import * as ops from '@sentry/conventions/op';

function describe({ type, deprecation, hasDynamicSuffix }) {
  return {
    type,
    deprecated: deprecation
      ? { replacement: deprecation.replacement ?? null, status: deprecation.status ?? null }
      : null,
    has_dynamic_suffix: hasDynamicSuffix ?? false,
  };
}

const attributes = Object.fromEntries(
  Object.entries(ATTRIBUTE_METADATA).map(([key, metadata]) => [key, describe(metadata)]),
);
process.stdout.write(`${JSON.stringify({ attributes, ops: Object.values(ops).sort() })}\n`);
