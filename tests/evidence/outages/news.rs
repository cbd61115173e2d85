//! Messages that meet an outage: what is called back about them, and what they come to.

use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;
use rand::rngs::ChaCha8Rng;
use receiptd::callback::Kind;
use receiptd::clock::Timestamp;

/// Where the platform's time begins.
pub const EPOCH: &str = "2026-11-22T10:00:00.000000Z";

/// A callback as it is queued.
pub struct Queued {
    /// When, in the platform's time.
    pub at: Duration,
    /// What kind of news it is.
    pub kind: Kind,
    /// Its bytes.
    pub body: Bytes,
}

/// What a message came to.
pub struct Truth {
    /// Its id.
    pub id: String,
    /// Its last status and when that was reached; `None` for a received text.
    pub last: Option<(&'static str, Timestamp)>,
}

/// Terminal statuses move both ways between each other: the last one is the truth.
const STATUSES: [&str; 4] =
    ["delivered", "permanent-failure", "temporary-failure", "technical-failure"];

/// That instant of the platform's time.
pub fn instant(at: Duration) -> Timestamp {
    let epoch: Timestamp = EPOCH.parse().expect("a timestamp");
    let micros = i64::try_from(at.as_micros()).expect("less than a century");
    Timestamp::from_unix_micros(epoch.unix_micros() + micros)
}

/// A message whose first news is queued at `first`, and its other news within `span` after that.
pub fn message(
    id: String,
    first: Duration,
    span: Duration,
    chance: &mut ChaCha8Rng,
) -> (Vec<Queued>, Truth) {
    if chance.random_ratio(1, 8) {
        let body = format!(
            r#"{{"id": "{id}", "source_number": "+15550100", "destination_number": "+15550199", "message": "STOP", "date_received": "{}"}}"#,
            instant(first)
        );
        let text = Queued { at: first, kind: Kind::ReceivedMessage, body: body.into() };
        return (vec![text], Truth { id, last: None });
    }
    let mut times = vec![first];
    for _ in 0..chance.random_range(0..3) {
        let later = u64::try_from(span.as_millis()).expect("less than a century");
        times.push(first + Duration::from_millis(chance.random_range(1..=later)));
    }
    times.sort();
    times.dedup();
    let mut queued = Vec::new();
    let mut last = None;
    for at in times {
        let status = STATUSES[chance.random_range(0..STATUSES.len())];
        let reached = instant(at);
        let body = format!(
            r#"{{"id": "{id}", "reference": null, "to": "someone@example.ca", "status": "{status}", "created_at": "{EPOCH}", "completed_at": "{reached}", "sent_at": null, "notification_type": "email"}}"#
        );
        let body = Bytes::from(body);
        // The platform's own queue delivers at least once.
        for _ in 0..if chance.random_ratio(1, 10) { 2 } else { 1 } {
            queued.push(Queued { at, kind: Kind::Receipt, body: body.clone() });
        }
        last = Some((status, reached));
    }
    (queued, Truth { id, last })
}
