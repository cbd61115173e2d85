//! The request: a GC Notify delivery receipt as its sender writes it, with a new id each time.
//!
//! The bytes are what `json.dumps` and python-requests emit. Everything is rendered once; of a
//! request only the id and the reference change, in place and at equal length. One difference from
//! the true sender is deliberate: head and body leave in one write, since the generator shares the
//! machine with what it measures.

use std::net::SocketAddr;

use sha2::{Digest, Sha256};

/// The source's name, and so the end of its path.
pub const SOURCE: &str = "bench";

/// The source's bearer: as long as those `receiptd token new` makes. It guards throw-away files.
pub const BEARER: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

const ID_PLACE: &str = "00000000-0000-4000-8000-000000000000";
const REFERENCE_PLACE: &str = "r-0000000000000000";
const SECOND_PLACE: &str = "\"completed_at\": \"2026-10-14T12:15:33";
const FIRST_SECOND: u64 = 3;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// What `--token-sha256` must be for these requests to be authentic.
pub fn bearer_sha256() -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(BEARER))
}

/// Whether receipts carry a reference. A distinct one is one more random key for the state's index
/// and the usual case; none is what an app that does not use references gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Reference {
    /// A different one in every receipt.
    Distinct,
    /// `null` in every receipt.
    None,
}

/// The id of one notification, in its text form.
#[derive(Clone, Copy, Debug)]
pub struct Id([u8; 36]);

impl Id {
    /// As the state file has it.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits and hyphens")
    }
}

/// Makes ids that look like UUIDs of version 4, never the same twice in one run, and the same again
/// for the same seed. SplitMix64: chance enough to scatter the keys, a few nanoseconds each.
pub struct Ids {
    seed: u64,
    /// How many receipts were made.
    made: u64,
    receipts_each: u64,
}

/// So many notifications are told of in turn where each has several receipts: those of one are then
/// hardly ever under way at the same time.
const AT_ONCE: u64 = 256;

/// Receipts of one notification, at most: the seconds of `completed_at` have one digit for them.
const RECEIPTS_EACH_MAX: u64 = 6;

impl Ids {
    /// The sequence of that seed; a receipt each.
    pub fn new(seed: u64) -> Self {
        Self { seed, made: 0, receipts_each: 1 }
    }

    /// The same with so many receipts about each notification, each of a later moment.
    pub fn repeated(seed: u64, receipts_each: u64) -> Self {
        Self { receipts_each: receipts_each.clamp(1, RECEIPTS_EACH_MAX), ..Self::new(seed) }
    }

    /// The id in two halves, and which receipt about it comes now.
    fn next(&mut self) -> (u64, u64, u64) {
        let which = self.made / AT_ONCE % self.receipts_each;
        let before = self.made / (AT_ONCE * self.receipts_each) * AT_ONCE;
        let notification = before + self.made % AT_ONCE;
        self.made += 1;
        (self.chance(2 * notification + 1), self.chance(2 * notification + 2), which)
    }

    fn chance(&self, n: u64) -> u64 {
        let state = self.seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A rendered request and where its changing parts are.
#[derive(Clone)]
pub struct Request {
    bytes: Vec<u8>,
    body_at: usize,
    id_at: usize,
    /// The last digit of the seconds of `completed_at`.
    second_at: usize,
    reference_at: Option<usize>,
}

impl Request {
    /// Renders the request for a server at that address.
    pub fn new(server: SocketAddr, reference: Reference) -> Self {
        let body = body(reference);
        let head = head(server, body.len());
        let bytes = [head.as_bytes(), body.as_bytes()].concat();
        let id_at = head.len() + body.find(ID_PLACE).expect("the body has an id");
        let second_at = head.len() + body.find(SECOND_PLACE).expect("the body has the moment");
        let second_at = second_at + SECOND_PLACE.len() - 1;
        let reference_at = body.find(REFERENCE_PLACE).map(|at| head.len() + at + "r-".len());
        Self { bytes, body_at: head.len(), id_at, second_at, reference_at }
    }

    /// All of it, for the socket.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its body alone.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body_at..]
    }

    /// Puts the next id, and the next reference if there is one, in place.
    pub fn renew(&mut self, ids: &mut Ids) {
        let (high, low, which) = ids.next();
        let id = &mut self.bytes[self.id_at..self.id_at + ID_PLACE.len()];
        write_hex(&mut id[0..8], high >> 32);
        write_hex(&mut id[9..13], high >> 16);
        // The first digit of the third group is the version, that of the fourth the variant.
        write_hex(&mut id[15..18], high);
        write_hex(&mut id[20..23], low >> 48);
        write_hex(&mut id[24..36], low);
        write_hex(&mut self.bytes[self.second_at..=self.second_at], FIRST_SECOND + which);
        if let Some(at) = self.reference_at {
            write_hex(&mut self.bytes[at..at + 16], low.rotate_left(32) ^ high);
        }
    }

    /// The id it has now.
    pub fn id(&self) -> Id {
        let id = &self.bytes[self.id_at..self.id_at + ID_PLACE.len()];
        Id(id.try_into().expect("the length was just taken"))
    }
}

fn head(server: SocketAddr, body_bytes: usize) -> String {
    format!(
        "POST /callbacks/{SOURCE} HTTP/1.1\r\n\
         Host: {server}\r\n\
         User-Agent: python-requests/2.32.4\r\n\
         Accept-Encoding: gzip, deflate\r\n\
         Accept: */*\r\n\
         Connection: keep-alive\r\n\
         Content-Type: application/json\r\n\
         Authorization: Bearer {BEARER}\r\n\
         Content-Length: {body_bytes}\r\n\
         \r\n"
    )
}

fn body(reference: Reference) -> String {
    let reference = match reference {
        Reference::Distinct => format!("\"{REFERENCE_PLACE}\""),
        Reference::None => "null".to_owned(),
    };
    format!(
        "{{\"id\": \"{ID_PLACE}\", \"reference\": {reference}, \"to\": \"+16135550123\", \
         \"status\": \"delivered\", \"status_description\": \"Delivered\", \
         \"provider_response\": \"Message has been accepted by phone carrier\", \
         \"created_at\": \"2026-10-14T12:15:30.123456Z\", \
         \"completed_at\": \"2026-10-14T12:15:33.456789Z\", \
         \"sent_at\": \"2026-10-14T12:15:31.234567Z\", \"notification_type\": \"sms\"}}"
    )
}

/// Writes the lowest digits of `value` over `digits`.
fn write_hex(digits: &mut [u8], value: u64) {
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        *digit = HEX[usize::from(rest.to_le_bytes()[0] & 0xf)];
        rest >>= 4;
    }
}
