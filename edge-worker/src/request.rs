//! A request as the JavaScript half of the shell writes it down: a text with a line for each thing, and the body, in the same
//! text after an empty line or by itself.

use std::ops::Range;

use keypost_shared::edge::{Body, Headers, Request};

/// A request. Its parts stay where they stand in the text.
pub(crate) struct ReceivedRequest {
    head: String,
    method: Range<usize>,
    url: Range<usize>,
    headers: [Option<Range<usize>>; HEADERS.len()],
    body: Vec<u8>,
    too_large: bool,
}

/// The letters that the lines of headers begin with.
const HEADERS: [u8; 5] = [b'a', b'c', b'n', b'o', b'r'];

impl ReceivedRequest {
    /// Takes a text apart that may have a body.
    ///
    /// Whatever was not UTF-8 has become U+FFFD on its way: it goes on as a byte that is not UTF-8 either, and so does a
    /// U+FFFD that was sent unencoded. A byte order mark at the beginning is gone (Encoding Standard §6), which makes a first
    /// parameter readable that it would have spoilt.
    pub(crate) fn with_text(mut text: String) -> Self {
        let Some(end) = text.find("\n\n") else { return Self::new(text, Vec::new(), false) };
        let mut body = text.split_off(end);
        body.drain(.."\n\n".len());
        let marred = body.contains(char::REPLACEMENT_CHARACTER);
        let mut body = body.into_bytes();
        body.extend(marred.then_some(0xff));
        Self::new(text, body, false)
    }

    /// Takes the text apart.
    pub(crate) fn new(head: String, body: Vec<u8>, too_large: bool) -> Self {
        let mut headers = [const { None }; HEADERS.len()];
        let mut lines = Vec::with_capacity(2);
        let mut start = 0;
        for line in head.split('\n') {
            let range = start..start + line.len();
            start = range.end + 1;
            if lines.len() < 2 {
                lines.push(range);
            } else if let Some(letter) = line.bytes().next()
                && let Some(place) = HEADERS.iter().zip(&mut headers).find(|(own, _)| **own == letter)
            {
                *place.1 = Some(range.start + 1..range.end);
            }
        }
        let mut lines = lines.into_iter();
        let (method, url) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        Self { head, method, url, headers, body, too_large }
    }

    /// The request as the core takes it.
    pub(crate) fn as_request(&self) -> Request<'_> {
        let (path, query) = path_and_query(self.text(&self.url));
        let [authorization, content_type, if_none_match, origin, request_id] =
            self.headers.each_ref().map(|range| range.as_ref().map(|range| self.text(range)));
        Request {
            method: self.text(&self.method),
            path,
            query,
            headers: Headers { authorization, content_type, if_none_match, origin, request_id },
            body: if self.too_large { Body::TooLarge } else { Body::Complete(&self.body) },
        }
    }

    /// The whole URL, of a GET.
    pub(crate) fn url_to_get(&self) -> Option<&str> {
        (self.text(&self.method) == "GET").then(|| self.text(&self.url))
    }

    fn text(&self, range: &Range<usize>) -> &str {
        self.head.get(range.clone()).unwrap_or_default()
    }
}

/// The path and the query, as they stand in an absolute URL.
fn path_and_query(url: &str) -> (&str, &str) {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let without_fragment = after_scheme.split_once('#').map_or(after_scheme, |(before, _)| before);
    let (before_query, query) = without_fragment.split_once('?').unwrap_or((without_fragment, ""));
    let path = before_query.find('/').and_then(|start| before_query.get(start..)).unwrap_or("/");
    (path, query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_and_query_are_taken_as_they_were_sent() {
        for (url, path, query) in [
            ("https://edge.example/a/oauth2/token", "/a/oauth2/token", ""),
            ("https://edge.example/a%2Fb/../c?x=%20&y=?#z", "/a%2Fb/../c", "x=%20&y=?"),
            ("http://127.0.0.1:8787/", "/", ""),
            ("http://127.0.0.1:8787", "/", ""),
            ("http://h?q=/x", "/", "q=/x"),
            ("", "/", ""),
        ] {
            assert_eq!(path_and_query(url), (path, query), "{url}");
        }
    }

    #[test]
    fn a_header_is_there_or_not_and_may_be_empty() {
        let head = "POST\nhttps://e/p/oauth2/token\naBasic x:y\nc";
        let received = ReceivedRequest::with_text(format!("{head}\n\nbody\n\nmore"));
        let request = received.as_request();
        assert_eq!((request.method, request.path, request.query), ("POST", "/p/oauth2/token", ""));
        let Headers { authorization, content_type, if_none_match, origin, request_id } = request.headers;
        assert_eq!((authorization, content_type), (Some("Basic x:y"), Some("")));
        assert_eq!((if_none_match, origin, request_id), (None, None, None));
        assert!(matches!(request.body, Body::Complete(b"body\n\nmore")));
        assert_eq!(received.url_to_get(), None);
    }

    #[test]
    fn a_body_that_was_not_utf_8_is_not_taken_for_text() {
        let received = ReceivedRequest::with_text("POST\nhttps://e/\n\na=\u{fffd}".to_owned());
        let Body::Complete(body) = received.as_request().body else { panic!("it is short") };
        assert!(str::from_utf8(body).is_err());
    }

    #[test]
    fn all_headers_that_the_core_reads_arrive() {
        let received =
            ReceivedRequest::new("GET\nhttps://e/\nrid\nohttps://o\nn\"tag\"".to_owned(), vec![], true);
        let request = received.as_request();
        assert_eq!(request.headers.if_none_match, Some("\"tag\""));
        assert_eq!((request.headers.origin, request.headers.request_id), (Some("https://o"), Some("id")));
        assert!(matches!(request.body, Body::TooLarge));
        assert_eq!(received.url_to_get(), Some("https://e/"));
    }

    #[test]
    fn no_text_makes_it_panic() {
        for head in ["", "\n", "\n\n", "\n\n\n", "é\né\né", "GET\n\nzé\na"] {
            let _ = ReceivedRequest::new(head.to_owned(), vec![], false).as_request();
            let _ = ReceivedRequest::with_text(head.to_owned()).as_request();
        }
    }
}
