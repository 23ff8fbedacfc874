// Yardstick (a): a Worker that answers a constant.

const HEADERS = { "content-type": "application/json", "cache-control": "no-store" };

export default {
  async fetch() {
    return new Response('{"status":"ok"}', { headers: HEADERS });
  },
};
