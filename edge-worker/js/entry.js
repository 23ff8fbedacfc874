// Where workerd enters: takes out of a request what the core reads, and hands it over in one call.

import { begin, beginLong } from "./keypost_edge.js";
import { repeated } from "./repeat.js";
import { answered, brokenOff, guarded, ready, waitFor } from "./shell.js";

// The most that a body may say to have; the core knows the same number (MAX_BODY). What says more is not read at all.
const MAX_BODY = 128 * 1024;
// A body up to this length is read in one go, and as text: bytes would be a buffer of their own, which takes longer to make and
// to clear away than most of what the core does with it. For a longer one, or one that does not say, room is made as it comes, so
// that many who send slowly cannot fill the isolate's memory.
const SHORT_BODY = 16 * 1024;

const EMPTY = new Uint8Array(0);

ready();

export default {
  fetch(request) {
    const again = request.method === "GET" ? repeated(request) : undefined;
    if (again !== undefined) {
      return again;
    }
    return waitFor((number) => {
      if (request.method !== "POST") {
        guarded(() => begin(number, headOf("GET", request)));
        return;
      }
      const said = request.headers.get("content-length");
      const length = said === null ? NaN : /^[0-9]{1,16}$/.test(said) ? Number(said) : Infinity;
      if (length > MAX_BODY) {
        guarded(() => beginLong(number, headOf("POST", request), EMPTY, true));
      } else if (length <= SHORT_BODY) {
        request.text().then(
          (text) => guarded(() => begin(number, `${headOf("POST", request)}\n\n${text}`)),
          () => brokenOff(number),
        );
      } else {
        // Touching `request.body` makes a stream, which a usual request can do without.
        readInPieces(request.body).then(
          (bytes) =>
            guarded(() => beginLong(number, headOf("POST", request), bytes ?? EMPTY, bytes === null)),
          () => brokenOff(number),
        );
      }
    }).then(answered);
  },
};

// The request without its body in one text, a line for each thing: no header's value and no URL can hold a line's end. Of the
// headers, those that the core reads of such a request.
function headOf(kind, request) {
  const headers = request.headers;
  let text = `${request.method}\n${request.url}`;
  let value;
  if (kind === "POST") {
    if ((value = headers.get("authorization")) !== null) text += `\na${value}`;
    if ((value = headers.get("content-type")) !== null) text += `\nc${value}`;
  } else if ((value = headers.get("if-none-match")) !== null) {
    text += `\nn${value}`;
  }
  if ((value = headers.get("origin")) !== null) text += `\no${value}`;
  if ((value = headers.get("x-request-id")) !== null) text += `\nr${value}`;
  return text;
}

// The body, or null where it has more than any may have.
async function readInPieces(stream) {
  if (stream === null) {
    return EMPTY;
  }
  const reader = stream.getReader({ mode: "byob" });
  let body = EMPTY;
  for (;;) {
    // One byte more than there may be, so that the end shows in the same read.
    const room = Math.min(MAX_BODY + 1 - body.length, SHORT_BODY);
    const { value } = await reader.read(new Uint8Array(room), { min: room });
    if (value === undefined) {
      return body;
    }
    const longer = new Uint8Array(body.length + value.length);
    longer.set(body);
    longer.set(value, body.length);
    body = longer;
    if (body.length > MAX_BODY) {
      return null;
    }
    if (value.length < room) {
      return body;
    }
  }
}
