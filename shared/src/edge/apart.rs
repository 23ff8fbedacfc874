//! Parts of a request's way that most requests do not take.

use std::pin::Pin;

/// Makes a future a function of its own. Awaited in place it becomes a part of the one that awaits it, and V8 compiles a
/// function of WebAssembly as a whole when it is first called: so that an isolate's first token would wait for the
/// compilation of all that other requests need.
pub(super) fn apart<'a, T>(future: impl Future<Output = T> + 'a) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    Box::pin(future)
}
