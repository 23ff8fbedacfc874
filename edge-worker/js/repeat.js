// Pages that everybody may read (key sets, metadata, status lists): one that has just been answered is answered again
// without a call of Rust, as long as the clock shows the same second. The core knows no shorter time than that, so it
// would say the same.

// The most pages that are kept: who asks for others takes the usual way.
const MAX_PAGES = 64;
// The longest that a page may be.
const MAX_LENGTH = 64 * 1024;
const RANDOM_STOCK = 1024;
const ID_LENGTH = 16;

const pages = new Map();
// The second to which they belong.
let second = 0;

// Random bytes that nobody has used.
let stock = new Uint8Array(0);
let used = 0;

/** Keeps what was answered to a GET of this URL in this second. */
export function keep(url, answeredIn, headers, body) {
  if (answeredIn !== second) {
    pages.clear();
    second = answeredIn;
  }
  if (pages.size < MAX_PAGES && body.length <= MAX_LENGTH) {
    // A copy, because a view would be of Rust's memory, which changes.
    pages.set(url, { headers, body: body.slice() });
  }
}

/** Forgets all of them. */
export function forgetPages() {
  pages.clear();
}

/** The answer to a GET, where it is one that has just been given. */
export function repeated(request) {
  if (pages.size === 0 || Math.floor(Date.now() / 1000) !== second) {
    return undefined;
  }
  const page = pages.get(request.url);
  if (page === undefined) {
    return undefined;
  }
  const given = request.headers;
  if (given.get("if-none-match") !== null || given.get("x-request-id") !== null) {
    return undefined;
  }
  return new Response(page.body, { headers: { ...page.headers, "x-request-id": randomId() } });
}

// 128 random bits, each used once.
function randomId() {
  if (used === stock.length) {
    stock = crypto.getRandomValues(new Uint8Array(RANDOM_STOCK));
    used = 0;
  }
  const bytes = stock.subarray(used, used + ID_LENGTH);
  used += ID_LENGTH;
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}
