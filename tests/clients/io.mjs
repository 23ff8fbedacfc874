// How the client programs talk to the tests: one JSON object in, one out.
import { text } from "node:stream/consumers";

export async function readInput() {
  return JSON.parse(await text(process.stdin));
}

export function writeOutput(value) {
  process.stdout.write(JSON.stringify(value) + "\n");
}
