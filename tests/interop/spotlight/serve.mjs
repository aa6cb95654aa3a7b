// Spotlight, a Sentry UI, on loopback: `node serve.mjs [--until-stdin-ends] [port]`.
//
// Spotlight's own command listens on all interfaces, and it and its UI report to
// the Sentry of their makers. Without that command, without those interfaces, and
// with a UI that may talk to this machine alone, nothing leaves it.
import { readdirSync, readFileSync } from "node:fs";
import { Server } from "node:net";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { setupSpotlight } from "@spotlightjs/spotlight";

const { values, positionals } = parseArgs({
  options: { "until-stdin-ends": { type: "boolean" } },
  allowPositionals: true,
});
// Standard input ends with whoever holds its other end, even by a signal that leaves them
// no time to stop this. Nobody may hold one: hence an option.
if (values["until-stdin-ends"]) {
  process.stdin.on("end", () => process.exit()).resume();
  // Waiting for it does not keep this from ending by a signal. A file is never waited for.
  process.stdin.unref?.();
}

// `setupSpotlight` has no option for it.
const { listen } = Server.prototype;
Server.prototype.listen = function (port, _host, ...rest) {
  return listen.call(this, port, "127.0.0.1", ...rest);
};

const ui = fileURLToPath(new URL("../ui/", import.meta.resolve("@spotlightjs/spotlight")));
const filesToServe = {};
for (const file of readdirSync(ui, { recursive: true, withFileTypes: true })) {
  if (file.isDirectory()) continue;
  const path = join(file.parentPath, file.name);
  filesToServe[relative(ui, path)] = readFileSync(path);
}
const page = filesToServe["index.html"].toString();
filesToServe["index.html"] = Buffer.from(page.replace(" https://*.sentry.io", ""));

const server = await setupSpotlight({ port: Number(positionals[0] ?? 8969), filesToServe });
// It leaves a port alone where another Spotlight is.
if (!server) process.exit(1);
// The UI asks for `localhost` whatever its own address is.
console.log(`Spotlight is at http://localhost:${server.address().port}`);
