//! As much of HTTP/1.1 as the load and the stand-ins need: messages on connections that stay open. Little, so that whoever measures takes little of the machine that is measured.

use std::{io, ops::Range};

use tokio::{io::AsyncReadExt as _, net::TcpStream};

/// A connection's bytes, message after message.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    /// Where the next message begins.
    next: usize,
}

/// Where the parts of a message are.
#[derive(Debug)]
pub(super) struct Message {
    head: Range<usize>,
    body: Range<usize>,
}

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

impl Incoming {
    /// Reads a message; none where the connection ends before one begins.
    pub(super) async fn message(&mut self, stream: &mut TcpStream) -> io::Result<Option<Message>> {
        self.bytes.drain(..self.next);
        self.next = 0;
        let mut searched = 0;
        let head = loop {
            let from = searched.min(self.bytes.len());
            let unsearched = self.bytes.get(from..).unwrap_or_default();
            if let Some(end) = unsearched.windows(END_OF_HEAD.len()).position(|four| four == END_OF_HEAD) {
                break 0..from + end;
            }
            searched = self.bytes.len().saturating_sub(END_OF_HEAD.len() - 1);
            if stream.read_buf(&mut self.bytes).await? == 0 {
                let clean = self.bytes.is_empty();
                return if clean { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        };
        let start = head.end + END_OF_HEAD.len();
        if self.header(&head, "transfer-encoding").is_some() {
            let end = self.unchunk(stream, start).await?;
            return Ok(Some(Message { head, body: start..end }));
        }
        let length: usize = match self.header(&head, "content-length") {
            Some(length) => length.parse().map_err(|_| io::ErrorKind::InvalidData)?,
            None => 0,
        };
        let end = start + length;
        self.fill(stream, end).await?;
        self.next = end;
        Ok(Some(Message { head, body: start..end }))
    }

    /// Puts the chunks (RFC 9112 §7.1) of a body that begins at `start` together in its place, and says where it ends.
    async fn unchunk(&mut self, stream: &mut TcpStream, start: usize) -> io::Result<usize> {
        let (mut end, mut at) = (start, start);
        loop {
            let line = loop {
                let unread = self.bytes.get(at..).unwrap_or_default();
                match unread.windows(2).position(|two| two == b"\r\n") {
                    Some(length) => break at..at + length,
                    None => self.fill(stream, self.bytes.len() + 1).await?,
                }
            };
            let length =
                usize::from_str_radix(self.text(&line), 16).map_err(|_| io::ErrorKind::InvalidData)?;
            at = line.end + 2;
            self.fill(stream, at + length + 2).await?;
            self.bytes.copy_within(at..at + length, end);
            (end, at) = (end + length, at + length + 2);
            if length == 0 {
                self.next = at;
                return Ok(end);
            }
        }
    }

    /// Reads until there are this many bytes.
    async fn fill(&mut self, stream: &mut TcpStream, length: usize) -> io::Result<()> {
        while self.bytes.len() < length {
            if stream.read_buf(&mut self.bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// The first line of a message.
    pub(super) fn first_line(&self, message: &Message) -> &str {
        self.text(&message.head).lines().next().unwrap_or_default()
    }

    /// A message's body.
    pub(super) fn body(&self, message: &Message) -> &[u8] {
        self.bytes.get(message.body.clone()).unwrap_or_default()
    }

    fn header(&self, head: &Range<usize>, name: &str) -> Option<&str> {
        let lines = self.text(head).lines().filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn text(&self, range: &Range<usize>) -> &str {
        std::str::from_utf8(self.bytes.get(range.clone()).unwrap_or_default()).unwrap_or_default()
    }
}
