//! HTTP at its edges: requests as no library would write them.

use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;

use crate::support::{PATH, TOKEN, post, receipt};

/// Requests that are wrong on purpose, or strange and right.
pub fn edges() -> Vec<Vec<u8>> {
    let body = receipt("raw");
    let length = body.len();
    let auth = format!("authorization: Bearer {TOKEN}\r\n");
    let with = |line: &str, headers: &str| {
        format!("{line}\r\n{headers}{auth}content-length: {length}\r\n\r\n{body}").into_bytes()
    };
    let usual = format!("POST {PATH} HTTP/1.1");
    let mut edges: Vec<Vec<u8>> =
        LINES.iter().map(|line| with(&line.replace("PATH", PATH), "host: a\r\n")).collect();
    edges.extend(HEADERS.iter().map(|headers| with(&usual, headers)));
    edges.extend(LENGTHS.iter().map(|lengths| {
        format!("{usual}\r\nhost: a\r\n{auth}{lengths}\r\n\r\n{body}").into_bytes()
    }));
    edges.extend(CHUNKS.iter().map(|chunks| {
        format!("{usual}\r\nhost: a\r\n{auth}transfer-encoding: chunked\r\n\r\n{chunks}")
            .into_bytes()
    }));
    edges.extend(GARBAGE.iter().map(|garbage| garbage.to_vec()));
    edges.push(with(&usual, &format!("host: a\r\nx: {}\r\n", "y".repeat(60_000))));
    edges.push(with(&usual, &format!("host: a\r\n{}", "x: y\r\n".repeat(3_000))));
    edges.push(with(&format!("POST /{} HTTP/1.1", "a".repeat(60_000)), "host: a\r\n"));
    edges.push(with(&format!("{} {PATH} HTTP/1.1", "P".repeat(30_000)), "host: a\r\n"));
    edges
}

/// A right request with a few of its bytes changed, removed, repeated or swapped.
pub fn mutated(id: &str, chance: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = post(PATH, TOKEN, receipt(id));
    for _ in 0..chance.random_range(1..5) {
        mutate(&mut bytes, chance);
    }
    bytes
}

/// One small change.
pub fn mutate(bytes: &mut Vec<u8>, chance: &mut ChaCha8Rng) {
    if bytes.is_empty() {
        return;
    }
    let at = chance.random_range(0..bytes.len());
    let end = (at + chance.random_range(1..16)).min(bytes.len());
    match chance.random_range(0..7) {
        0 => bytes[at] ^= 1 << chance.random_range(0..8),
        1 => bytes[at] = INTERESTING[chance.random_range(0..INTERESTING.len())],
        2 => bytes.insert(at, INTERESTING[chance.random_range(0..INTERESTING.len())]),
        3 => drop(bytes.drain(at..end)),
        4 => bytes.truncate(at),
        5 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        _ => {
            let other = chance.random_range(0..bytes.len());
            bytes.swap(at, other);
        }
    }
}

const INTERESTING: &[u8] = b"\0\t\n\r \"\\{}[]:,0-9eE.+u'/<%;=\x7f\x80\xc3\xed\xff";

const LINES: &[&str] = &[
    "POST PATH HTTP/1.0",
    "POST PATH HTTP/0.9",
    "POST PATH HTTP/2.0",
    "POST PATH HTTP/1.1 ",
    "POST  PATH HTTP/1.1",
    "POST\tPATH\tHTTP/1.1",
    "POST PATH http/1.1",
    "POST PATH",
    "POST",
    "post PATH HTTP/1.1",
    "GET PATH HTTP/1.1",
    "HEAD PATH HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "CONNECT a:80 HTTP/1.1",
    "TRACE PATH HTTP/1.1",
    "POST * HTTP/1.1",
    "POST  HTTP/1.1",
    "POST http://a/PATH HTTP/1.1",
    "POST //PATH HTTP/1.1",
    "POST PATH/ HTTP/1.1",
    "POST PATH/../passport HTTP/1.1",
    "POST PATH%00 HTTP/1.1",
    "POST %2Fcallbacks%2Fpassport HTTP/1.1",
    "POST PATH?a=b#c HTTP/1.1",
    "POST PATH;a HTTP/1.1",
    "POST /\u{e9} HTTP/1.1",
    "\r\nPOST PATH HTTP/1.1",
    "\r\n\r\nPOST PATH HTTP/1.1",
];

const HEADERS: &[&str] = &[
    "",
    "host: a\r\nhost: b\r\n",
    "host:\r\n",
    "host: a:b:c\r\n",
    "host: a\r\nauthorization: Bearer x\r\n",
    "host: a\r\n authorization: x\r\n",
    "host: a\r\nx : y\r\n",
    "host: a\r\n: y\r\n",
    "host: a\r\nx\r\n",
    "host: a\r\nx: \u{e9}\r\n",
    "host: a\r\nx: a\u{0}b\r\n",
    "host: a\r\nx: a\rb\r\n",
    "host: a\nx: y\n",
    "host: a\r\nexpect: 100-continue\r\n",
    "host: a\r\nexpect: nonsense\r\n",
    "host: a\r\nupgrade: h2c\r\nconnection: upgrade\r\n",
    "host: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n",
    "host: a\r\nconnection: close, keep-alive\r\n",
    "host: a\r\nconnection: content-length\r\n",
    "host: a\r\ncontent-type: text/plain\r\n",
    "host: a\r\ncontent-type: \r\n",
    "host: a\r\ncontent-encoding: gzip\r\n",
    "host: a\r\ntrailer: x\r\n",
    "host: a\r\nte: trailers\r\n",
    "host: a\r\nrange: bytes=0-\r\n",
    "host: a\r\nx-forwarded-for: 1.2.3.4\r\nforwarded: for=_a\r\n",
];

const LENGTHS: &[&str] = &[
    "x: y",
    "content-length: 0",
    "content-length: -1",
    "content-length: +5",
    "content-length: 5, 5",
    "content-length: 5\r\ncontent-length: 5",
    "content-length: 5\r\ncontent-length: 6",
    "content-length: 0x5",
    "content-length: 5 ",
    "content-length: five",
    "content-length:",
    "content-length: 99999999999999999999",
    "content-length: 18446744073709551615",
    "content-length: 5\r\ntransfer-encoding: chunked",
    "transfer-encoding: gzip, chunked",
    "transfer-encoding: chunked, chunked",
    "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
    "transfer-encoding: identity",
    "transfer-encoding : chunked",
    "transfer-encoding:\u{b}chunked",
    "transfer-encoding: xchunked",
];

const CHUNKS: &[&str] = &[
    "0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\r\n",
    "5;a=b\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nx: y\r\n\r\n",
    "05\r\nhello\r\n00\r\n\r\n",
    "5\nhello\n0\n\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "6\r\nhello\r\n0\r\n\r\n",
    "4\r\nhello\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "\r\nhello\r\n",
    "5\r\nhel",
    "zz\r\n",
];

const GARBAGE: &[&[u8]] = &[
    b"",
    b"\r\n",
    b"\0",
    b"\n\n\n\n",
    b"hello\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client hello\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"\x05\x01\x00",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    b"EHLO a\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"\xff\xfe\xfd\xfc\r\n\r\n",
];
