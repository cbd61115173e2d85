//! The cursors of the read API, sealed.
//!
//! The input is an epoch's key (32 bytes; what is missing is nought), the number of bytes of a source's
//! name and that name, a point (16 bytes), and the text that somebody shows as a cursor. Whatever it is:
//! - a point has one cursor, of always as many characters, and that opens as the point;
//! - a cursor is what HMAC-SHA256, computed here, makes of key, source and point;
//! - a cursor does not open for another source, in another epoch, or with one bit changed;
//! - whatever text opens is the very cursor of what it opened as.

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use receiptd::ask::cursor::{CHARS, Seal};
use receiptd::state::feed::Point;
use sha2::Sha256;

/// Checks one key, source, point and text.
pub fn check(data: &[u8]) {
    let (key, rest) = taken::<32>(data);
    let (length, rest) = rest.split_first().map_or((0, rest), |(length, rest)| (*length, rest));
    let (source, rest) = rest.split_at(usize::from(length).min(rest.len()));
    let source = String::from_utf8_lossy(source);
    let (point, shown) = taken::<16>(rest);
    let seal = Seal::new(&key, &source);
    let cursor = seal.close(Point::from_bytes(point));
    assert_eq!(cursor, by_hand(&key, &source, point));
    assert_eq!(cursor.len(), CHARS);
    assert_eq!(seal.open(&cursor).map(Point::to_bytes), Some(point));
    check_shown(&seal, &String::from_utf8_lossy(shown));
    // Which bit of what, as the point has it.
    let bit = usize::from(point[15]) ^ usize::from(key[0]);
    let mut near = BASE64URL_NOPAD.decode(cursor.as_bytes()).unwrap();
    near[bit / 8 % 32] ^= 1 << (bit % 8);
    assert_eq!(seal.open(&BASE64URL_NOPAD.encode(&near)), None);
    let mut other = key;
    other[bit / 8 % 32] ^= 1 << (bit % 8);
    assert_eq!(Seal::new(&other, &source).open(&cursor), None);
    for other in [format!("{source}x"), format!("\0{source}"), source.chars().skip(1).collect()] {
        assert!(other == source || Seal::new(&key, &other).open(&cursor).is_none());
    }
}

/// The first bytes, and the rest; what is missing is nought.
fn taken<const BYTES: usize>(data: &[u8]) -> ([u8; BYTES], &[u8]) {
    let (first, rest) = data.split_at(BYTES.min(data.len()));
    let mut bytes = [0; BYTES];
    bytes[..first.len()].copy_from_slice(first);
    (bytes, rest)
}

/// The text itself, and each of its lines.
fn check_shown(seal: &Seal, shown: &str) {
    for text in shown.split('\n').chain([shown]) {
        if let Some(point) = seal.open(text) {
            assert_eq!(seal.close(point), text);
        }
    }
}

/// The same, written down straight: tag, and the point under a stream that the tag begins.
fn by_hand(key: &[u8], source: &str, point: [u8; 16]) -> String {
    let mac = |key: &[u8], text: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(text);
        mac.finalize().into_bytes().to_vec()
    };
    let key = |use_of: &str| mac(key, &[use_of.as_bytes(), b"\0", source.as_bytes()].concat());
    let tag = &mac(&key("receiptd cursor tag"), &point)[..16];
    let stream = mac(&key("receiptd cursor stream"), tag);
    let sealed = point.iter().zip(stream).map(|(byte, stream)| byte ^ stream);
    BASE64URL_NOPAD.encode(&tag.iter().copied().chain(sealed).collect::<Vec<u8>>())
}
