//! What the sender has to tell: notifications, the receipts about each, and what is true in the end.
//!
//! A life is a function of the seed and its number, so the same seed sends the same bytes. The truth
//! is known here without asking the receiver how it merges: it is the receipt that was written last.

use std::sync::Arc;

use super::support::{Chance, receipt_of};

/// One notification.
pub struct Life {
    /// As the platform names it.
    pub id: String,
    /// The callbacks about it; two may be identical.
    pub bodies: Vec<Arc<[u8]>>,
    /// Its status once all of them are settled.
    pub status: &'static str,
    /// How many of them are distinct.
    pub distinct: u32,
}

/// The receipts of a life, in the order of their `completed_at`; `true` repeats the last one.
const COURSES: &[(&[&str], bool)] = &[
    (&["delivered"], false),
    (&["delivered"], false),
    (&["permanent-failure"], false),
    (&["delivered", "permanent-failure"], false),
    (&["temporary-failure", "delivered"], false),
    (&["delivered"], true),
    (&["delivered", "permanent-failure", "delivered"], true),
];

/// The life of that number, its bodies some `padding_bytes` longer than they need be.
pub fn life(seed: u64, number: u64, padding_bytes: usize) -> Life {
    let mut chance = Chance::of_seed(seed.wrapping_mul(0x1_0000_0001) ^ number);
    let (high, low) = (chance.next(), chance.next());
    let id = format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low >> 52,
        number & 0xffff_ffff_ffff
    );
    let (course, is_repeated) = COURSES[chance.below(COURSES.len())];
    let receipts = (1_u32..).zip(course).map(|(second, status)| {
        let body = receipt_of(&id, status, &format!("2026-11-22T10:00:{second:02}.000000Z"));
        Arc::from(padded(body, padding_bytes).into_bytes())
    });
    let mut bodies: Vec<Arc<[u8]>> = receipts.collect();
    let distinct = u32::try_from(bodies.len()).expect("a handful");
    if is_repeated {
        bodies.extend(bodies.last().cloned());
    }
    Life { id, bodies, status: course.last().expect("never empty"), distinct }
}

fn padded(body: String, bytes: usize) -> String {
    if bytes == 0 {
        return body;
    }
    body.replacen('{', &format!(r#"{{"padding": "{}", "#, "x".repeat(bytes)), 1)
}
