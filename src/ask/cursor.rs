//! Cursors: where a reader has got to, sealed, so that it says that and nothing else.
//!
//! Promises of the text that a [`Seal`] makes of a [`Point`]:
//!
//! - Nobody but the receiver learns anything from it: neither how much was received, nor how much of
//!   that was between two cursors. It has [`CHARS`] characters wherever it points, and two of them say
//!   of each other only whether they are the same.
//! - One point has one text, so a reader to whom nothing new was told is shown the cursor it has.
//! - It opens again only as what it was made of: for the same source and in the same
//!   [epoch](crate::state::epoch). Anything else, a cursor with one bit changed, that of another
//!   source, of a state that was begun anew, one that somebody made up, does not open. Whether what it
//!   names is still there is asked of the state ([`feed::stands`](crate::state::feed::stands)).
//!
//! Why this way: it is SIV, deterministic authenticated encryption as Rogaway and Shrimpton have it, of
//! one block. The tag is a pseudo-random function of what is sealed, HMAC-SHA256 cut to 128 bits, and
//! serves as the nonce of the key stream, which is another: so what a key stream is used for is always
//! the same 16 bytes, and no nonce must be kept or drawn. To forge one is to guess 128 bits; that two
//! points of a source have one tag is to be expected after 2^64 of them. Both keys are derived from that
//! of the epoch, from a name of their use and from the source, so that no reader can show the cursor of
//! another source, and none can be taken for a key or a digest of anything else.
//!
//! Never: a key in a log, an error or an answer. Tags are compared without telling by the time taken how
//! far they agree.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::state::epoch::Key;
use crate::state::feed::Point;

/// Bytes of the tag, and of the point sealed beside it.
const TAG_BYTES: usize = 16;
const POINT_BYTES: usize = 16;

/// Characters of every cursor.
pub const CHARS: usize = 43;

/// Seals the points of one source, in one epoch.
pub struct Seal {
    tag: Hmac<Sha256>,
    stream: Hmac<Sha256>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

impl Seal {
    /// For this source, in the epoch of this key.
    pub fn new(epoch: &Key, source: &str) -> Self {
        let derived = |purpose: &str| {
            let mut key = keyed(epoch);
            key.update(purpose.as_bytes());
            // No purpose holds it, so no two pairs of a purpose and a source are one text.
            key.update(&[0]);
            key.update(source.as_bytes());
            keyed(&key.finalize().into_bytes())
        };
        Self { tag: derived("receiptd cursor tag"), stream: derived("receiptd cursor stream") }
    }

    /// The text of that point.
    pub fn close(&self, point: Point) -> String {
        let mut bytes = [0; TAG_BYTES + POINT_BYTES];
        let point = point.to_bytes();
        let tag = self.tag(&point);
        bytes[..TAG_BYTES].copy_from_slice(&tag);
        bytes[TAG_BYTES..].copy_from_slice(&self.crossed(&tag, point));
        BASE64URL_NOPAD.encode(&bytes)
    }

    /// The point of that text; `None` if it is not one that was sealed here.
    pub fn open(&self, text: &str) -> Option<Point> {
        // In one spelling only: the decoder refuses padding, and bits behind the last byte.
        let bytes = (text.len() == CHARS).then(|| BASE64URL_NOPAD.decode(text.as_bytes()));
        let bytes: [u8; TAG_BYTES + POINT_BYTES] = bytes?.ok()?.try_into().ok()?;
        let (mut tag, mut point) = ([0; TAG_BYTES], [0; POINT_BYTES]);
        tag.copy_from_slice(&bytes[..TAG_BYTES]);
        point.copy_from_slice(&bytes[TAG_BYTES..]);
        let point = self.crossed(&tag, point);
        let is_ours: bool = self.tag(&point).ct_eq(&tag).into();
        is_ours.then(|| Point::from_bytes(point))
    }

    fn tag(&self, point: &[u8; POINT_BYTES]) -> [u8; TAG_BYTES] {
        first(self.tag.clone().chain_update(point))
    }

    /// Those bytes with the key stream of that tag laid over them, or taken off.
    fn crossed(&self, tag: &[u8; TAG_BYTES], mut bytes: [u8; POINT_BYTES]) -> [u8; POINT_BYTES] {
        let stream: [u8; POINT_BYTES] = first(self.stream.clone().chain_update(tag));
        bytes.iter_mut().zip(stream).for_each(|(byte, stream)| *byte ^= stream);
        bytes
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn first<const BYTES: usize>(mac: Hmac<Sha256>) -> [u8; BYTES] {
    let mut first = [0; BYTES];
    first.copy_from_slice(&mac.finalize().into_bytes()[..BYTES]);
    first
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const KEY: Key = [7; 32];

    fn point(number: u64, mark: u64) -> Point {
        let bytes = (u128::from(number) << 64) | u128::from(mark);
        Point::from_bytes(bytes.to_be_bytes())
    }

    #[test]
    fn a_cursor_opens_as_what_it_was_made_of_and_has_one_text() {
        let seal = Seal::new(&KEY, "passport");
        for point in [point(0, 0), point(1, 0), point(1, 1), point(u64::MAX >> 1, u64::MAX)] {
            let cursor = seal.close(point);
            assert_eq!(cursor.len(), CHARS);
            assert_eq!(seal.open(&cursor), Some(point));
            assert_eq!(Seal::new(&KEY, "passport").close(point), cursor);
        }
    }

    #[test]
    fn another_source_another_epoch_and_another_bit_do_not_open_it() {
        let cursor = Seal::new(&KEY, "passport").close(point(17, 4));
        for (key, source) in [([8; 32], "passport"), (KEY, "visa"), (KEY, "passpor"), (KEY, "")] {
            assert_eq!(Seal::new(&key, source).open(&cursor), None, "{source}");
        }
        let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = BASE64URL_NOPAD.encode(&changed);
            assert_eq!(Seal::new(&KEY, "passport").open(&changed), None, "bit {bit}");
        }
    }

    #[test]
    fn a_cursor_has_one_spelling() {
        let seal = Seal::new(&KEY, "passport");
        let cursor = seal.close(point(17, 4));
        // The last character carries two bits that belong to no byte.
        let others = "AEIMQUYcgkosw048".chars().map(|last| format!("{}{last}", &cursor[..42]));
        let loose = "BCDFGH1235".chars().map(|last| format!("{}{last}", &cursor[..42]));
        let spellings = others.chain(loose).filter(|other| *other != cursor);
        let padded = [format!("{cursor}="), format!(" {cursor}"), format!("{cursor}\n")];
        for other in spellings.chain(padded).chain(["".into(), "17".into(), "ä".repeat(43)]) {
            assert_eq!(seal.open(&other), None, "{other}");
        }
    }

    /// Neighbours differ about as any two texts do: nothing of the number, or of how far apart two of
    /// them are, shows.
    #[test]
    fn nothing_of_a_position_shows_in_its_cursor() {
        let seal = Seal::new(&KEY, "passport");
        let sealed = |number| BASE64URL_NOPAD.decode(seal.close(point(number, 0)).as_bytes());
        let all: Vec<Vec<u8>> = (0..1_000).map(|number| sealed(number).unwrap()).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        for place in 0..TAG_BYTES + POINT_BYTES {
            let ones: u32 = all.iter().map(|bytes| bytes[place].count_ones()).sum();
            assert!((3_600..4_400).contains(&ones), "byte {place}: {ones} ones of 8000");
        }
    }
}
