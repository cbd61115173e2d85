//! The answer to a callback, read as it trickles in.
//!
//! A sender wants two things of an answer: its status code, and where it ends, so that the
//! connection can carry the next callback. Bodies are counted and dropped. Read is what the
//! senders' own library reads: `Content-Length`, chunked bodies, bodies that end with the
//! connection, interim `1xx` heads. What is no HTTP, or never ends, is [`Unreadable`].

use std::mem;

/// A head longer than this is no answer; Python's library gives up at the same length of a line.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Header lines in a head, as in Python's library.
const HEADERS_MAX: usize = 100;
/// A body longer than this is given up: the senders would read on, and their worker with them.
const BODY_BYTES_MAX: u64 = 16 << 20;
/// Digits in the size of a chunk.
const CHUNK_DIGITS_MAX: u32 = 15;

/// A whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// Whether the server lets the connection serve another request.
    pub keep_alive: bool,
}

/// The bytes are not an answer that a sender can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer that is no HTTP, or too long")]
pub struct Unreadable;

/// What of an answer has come.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
    /// The beginning of a head that came in pieces.
    head: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Head,
    Body(Answer, Body),
}

/// How much of a body is still to come.
#[derive(Clone, Copy, Debug)]
enum Body {
    /// This many bytes.
    Length(u64),
    Chunked {
        at: Chunk,
        /// Bytes of all chunks so far.
        bytes: u64,
    },
    /// Whatever comes until the connection ends; this much has.
    UntilClosed(u64),
}

#[derive(Clone, Copy, Debug)]
enum Chunk {
    /// In the line with a chunk's size: what it says so far, and how many digits it had.
    Size { size: u64, digits: u32 },
    /// After the size, in what nobody asked for, up to the end of the line.
    Extension { size: u64 },
    /// In its bytes.
    Data { left: u64 },
    /// In the line end behind them.
    End,
    /// In the lines behind the last chunk: whether this one is empty so far.
    Trailer { is_empty: bool },
}

impl Reader {
    /// Takes what has come. The answer, if these bytes end it; whatever follows is not looked at,
    /// and means that the connection must not be used again.
    ///
    /// # Errors
    /// If it is no answer.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Answer>, Unreadable> {
        match self.state {
            State::Head if self.head.is_empty() => {
                let read = self.read_head(bytes)?;
                if read.is_none() && matches!(self.state, State::Head) {
                    self.head.extend_from_slice(bytes);
                }
                Ok(read)
            }
            State::Head => {
                let mut head = mem::take(&mut self.head);
                head.extend_from_slice(bytes);
                let read = self.read_head(&head)?;
                if read.is_none() && matches!(self.state, State::Head) {
                    self.head = head;
                }
                Ok(read)
            }
            State::Body(answer, body) => self.read_body(answer, body, bytes),
        }
    }

    /// The connection has ended: the answer, if that was what ends it.
    pub fn end(&mut self) -> Option<Answer> {
        match mem::take(self) {
            Self { state: State::Body(answer, Body::UntilClosed(_)), .. } => Some(answer),
            _ => None,
        }
    }

    /// Forgets everything, for the next answer.
    pub fn reset(&mut self) {
        self.state = State::Head;
        self.head.clear();
    }

    /// Nothing is kept while the head is incomplete: it is read again when there is more of it.
    fn read_head(&mut self, all: &[u8]) -> Result<Option<Answer>, Unreadable> {
        let incomplete = if all.len() < HEAD_BYTES_MAX { Ok(None) } else { Err(Unreadable) };
        let mut bytes = all;
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut head = httparse::Response::new(&mut headers);
            let length = match head.parse(bytes).map_err(|_| Unreadable)? {
                httparse::Status::Complete(length) => length,
                httparse::Status::Partial => return incomplete,
            };
            let code = head.code.ok_or(Unreadable)?;
            let rest = &bytes[length..];
            if (100..200).contains(&code) {
                // Interim: the answer comes after it.
                bytes = rest;
                if bytes.is_empty() {
                    return incomplete;
                }
                continue;
            }
            let (answer, body) = framing(code, head.version == Some(1), head.headers)?;
            return self.read_body(answer, body, rest);
        }
    }

    fn read_body(
        &mut self,
        mut answer: Answer,
        body: Body,
        bytes: &[u8],
    ) -> Result<Option<Answer>, Unreadable> {
        let came = bytes.len() as u64;
        let (body, rest) = match body {
            Body::Length(left) if came >= left => (None, came - left),
            Body::Length(left) => (Some(Body::Length(left - came)), 0),
            Body::UntilClosed(bytes) if bytes + came > BODY_BYTES_MAX => return Err(Unreadable),
            Body::UntilClosed(bytes) => (Some(Body::UntilClosed(bytes + came)), 0),
            Body::Chunked { at, bytes: before } => chunks(at, before, bytes)?,
        };
        if let Some(body) = body {
            self.state = State::Body(answer, body);
            return Ok(None);
        }
        answer.keep_alive &= rest == 0;
        self.reset();
        Ok(Some(answer))
    }
}

/// Where the body behind this head ends.
fn framing(
    code: u16,
    is_1_1: bool,
    headers: &[httparse::Header<'_>],
) -> Result<(Answer, Body), Unreadable> {
    let mut keep_alive = is_1_1;
    let mut length = None;
    let mut is_chunked = false;
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let said = std::str::from_utf8(header.value).map_err(|_| Unreadable)?;
            let said: u64 = said.trim().parse().map_err(|_| Unreadable)?;
            if said > BODY_BYTES_MAX || length.is_some_and(|length| length != said) {
                return Err(Unreadable);
            }
            length = Some(said);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            is_chunked |= header.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
        } else if header.name.eq_ignore_ascii_case("connection") {
            keep_alive = keep_alive_said(header.value, keep_alive);
        }
    }
    let body = match (code, length) {
        (204 | 304, _) => Body::Length(0),
        _ if is_chunked => Body::Chunked { at: Chunk::Size { size: 0, digits: 0 }, bytes: 0 },
        (_, Some(length)) => Body::Length(length),
        (_, None) => Body::UntilClosed(0),
    };
    let keep_alive = keep_alive && !matches!(body, Body::UntilClosed(_));
    Ok((Answer { code, keep_alive }, body))
}

fn keep_alive_said(value: &[u8], otherwise: bool) -> bool {
    let mut options = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    options
        .find_map(|option| match option {
            _ if option.eq_ignore_ascii_case(b"close") => Some(false),
            _ if option.eq_ignore_ascii_case(b"keep-alive") => Some(true),
            _ => None,
        })
        .unwrap_or(otherwise)
}

/// Reads on in chunks: where it stops, or nothing and how many bytes follow the last of them.
fn chunks(
    mut at: Chunk,
    mut total: u64,
    mut bytes: &[u8],
) -> Result<(Option<Body>, u64), Unreadable> {
    while let Some((&byte, rest)) = bytes.split_first() {
        if let Chunk::Data { left } = at {
            let taken = left.min(bytes.len() as u64);
            bytes = &bytes[usize::try_from(taken).map_err(|_| Unreadable)?..];
            at = if taken == left { Chunk::End } else { Chunk::Data { left: left - taken } };
            continue;
        }
        bytes = rest;
        at = match (at, byte) {
            (Chunk::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F')
                if digits < CHUNK_DIGITS_MAX =>
            {
                let digit = char::from(byte).to_digit(16).ok_or(Unreadable)?;
                Chunk::Size { size: size * 16 + u64::from(digit), digits: digits + 1 }
            }
            (Chunk::Size { size, digits: 1.. }, b'\r' | b';' | b' ' | b'\t') => {
                Chunk::Extension { size }
            }
            (Chunk::Size { size, digits: 1.. } | Chunk::Extension { size }, b'\n') => {
                total += size;
                match size {
                    _ if total > BODY_BYTES_MAX => return Err(Unreadable),
                    0 => Chunk::Trailer { is_empty: true },
                    left => Chunk::Data { left },
                }
            }
            (Chunk::Extension { .. } | Chunk::Trailer { is_empty: false }, _) if byte != b'\n' => {
                at
            }
            (Chunk::End, b'\r') => Chunk::End,
            (Chunk::End, b'\n') => Chunk::Size { size: 0, digits: 0 },
            (Chunk::Trailer { is_empty: true }, b'\n') => return Ok((None, bytes.len() as u64)),
            (Chunk::Trailer { is_empty: true }, b'\r') => at,
            (Chunk::Trailer { .. }, _) => Chunk::Trailer { is_empty: byte == b'\n' },
            _ => return Err(Unreadable),
        };
    }
    Ok((Some(Body::Chunked { at, bytes: total }), 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads it whole, and again one byte at a time: both must come to the same.
    fn read(bytes: &[u8]) -> Result<Option<Answer>, Unreadable> {
        let whole = Reader::default().feed(bytes);
        let mut reader = Reader::default();
        let mut last = Ok(None);
        for byte in bytes {
            last = reader.feed(std::slice::from_ref(byte));
            if last != Ok(None) {
                break;
            }
        }
        let code = |read: Result<Option<Answer>, Unreadable>| read.map(|it| it.map(|it| it.code));
        assert_eq!(code(last), code(whole), "{}", bytes.escape_ascii());
        whole
    }

    const fn kept(code: u16) -> Result<Option<Answer>, Unreadable> {
        Ok(Some(Answer { code, keep_alive: true }))
    }

    const fn dropped(code: u16) -> Result<Option<Answer>, Unreadable> {
        Ok(Some(Answer { code, keep_alive: false }))
    }

    #[test]
    fn an_answer_ends_where_its_head_says() {
        for (bytes, answer) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", kept(204)),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", kept(204)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", kept(200)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", kept(200)),
            ("HTTP/1.1 500\r\ncontent-length:0\r\nConnection: close\r\n\r\n", dropped(500)),
            ("HTTP/1.1 500 x\r\ncontent-length:0\r\nconnection: x, CLOSE\r\n\r\n", dropped(500)),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", dropped(200)),
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", kept(200)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", Ok(None)),
            ("HTTP/1.1 200 OK\r\nContent-Le", Ok(None)),
            ("", Ok(None)),
        ] {
            assert_eq!(read(bytes.as_bytes()), answer, "{bytes:?}");
        }
    }

    #[test]
    fn chunks_are_counted_whatever_their_size_extension_or_trailer() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
        for (body, answer) in [
            ("0\r\n\r\n", kept(200)),
            ("3\r\nabc\r\n0\r\n\r\n", kept(200)),
            (
                "00A;x=\"y\"\r\n0123456789\r\n1 \r\n\n\r\n0\r\nExpires: now\r\nb:c\r\n\r\n",
                kept(200),
            ),
            ("3\r\nabc\r\n0\r\n", Ok(None)),
            ("3\r\nab", Ok(None)),
            ("x\r\n", Err(Unreadable)),
            ("\r\n", Err(Unreadable)),
            ("3\r\nabcd\r\n", Err(Unreadable)),
            ("1000001\r\n", Err(Unreadable)),
            ("fffffffffffffffff\r\n", Err(Unreadable)),
        ] {
            let bytes = format!("{head}{body}");
            assert_eq!(read(bytes.as_bytes()), answer, "{bytes:?}");
        }
    }

    #[test]
    fn interim_answers_are_not_the_answer() {
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
        assert_eq!(read(interim.as_bytes()), Ok(None));
        let whole = format!("{interim}HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!(read(whole.as_bytes()), kept(204));
    }

    #[test]
    fn a_body_without_a_length_ends_with_the_connection_and_any_other_is_cut_short() {
        let ends = |bytes: &str| {
            let mut reader = Reader::default();
            assert_eq!(reader.feed(bytes.as_bytes()), Ok(None), "{bytes:?}");
            reader.end()
        };
        let answer = Answer { code: 200, keep_alive: false };
        assert_eq!(ends("HTTP/1.1 200 OK\r\n\r\n"), Some(answer));
        assert_eq!(ends("HTTP/1.1 200 OK\r\n\r\nsome text"), Some(answer));
        for cut in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        ] {
            assert_eq!(ends(cut), None, "{cut:?}");
        }
    }

    #[test]
    fn garbage_and_what_never_ends_are_unreadable() {
        for bytes in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "\u{16}\u{3}\u{1}",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        ] {
            assert_eq!(read(bytes.as_bytes()), Err(Unreadable), "{bytes:?}");
        }
        let mut reader = Reader::default();
        let long = vec![b'a'; 4096];
        assert_eq!(reader.feed(b"HTTP/1.1 200 OK\r\nX: "), Ok(None));
        let read = (0..=HEAD_BYTES_MAX / long.len()).map(|_| reader.feed(&long));
        assert_eq!(read.last(), Some(Err(Unreadable)));
        let mut reader = Reader::default();
        let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
        let read = (0..=HEAD_BYTES_MAX / interim.len()).map(|_| reader.feed(interim));
        assert_eq!(read.last(), Some(Err(Unreadable)));
        let mut reader = Reader::default();
        assert_eq!(reader.feed(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(None));
        let mib = vec![b'a'; 1 << 20];
        let read = (0..=16).map(|_| reader.feed(&mib));
        assert_eq!(read.last(), Some(Err(Unreadable)));
    }

    #[test]
    fn bytes_behind_an_answer_end_the_connection() {
        let bytes = b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(Reader::default().feed(bytes), dropped(204));
        let bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nx";
        assert_eq!(Reader::default().feed(bytes), dropped(200));
    }
}
