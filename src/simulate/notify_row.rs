//! The row that a platform of the Notify family keeps of a notification, and how it may change.
//!
//! Read from the platforms' public source: GC Notify lets an email go from any end to any other but
//! from permanent failure to delivered; VA Notify lets a text go between delivered and permanent
//! failure, and from temporary failure to either. On the others an end is the end.

use super::chance::Chance;
use crate::sender::Platform;

/// The words of the statuses.
pub const DELIVERED: &str = "delivered";
pub const TEMPORARY: &str = "temporary-failure";
pub const PERMANENT: &str = "permanent-failure";
pub const TECHNICAL: &str = "technical-failure";
pub const PROVIDER_FAILURE: &str = "provider-failure";
pub const VIRUS_SCAN_FAILED: &str = "virus-scan-failed";
pub const CREATED: &str = "created";
pub const SENDING: &str = "sending";
pub const SENT: &str = "sent";

/// Why VA Notify has nobody to send to.
pub const NO_CONTACT: &str = "Undeliverable - No VA Profile contact information";

/// The row as one callback shows it. Instants are microseconds of Unix time.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub status: &'static str,
    /// `None` while it has never changed.
    pub updated_at: Option<i64>,
    pub sent_at: Option<i64>,
    pub cause: Cause,
    /// When the callback is queued.
    pub told_at: i64,
}

/// Why the status is as it is; each platform has other keys for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cause {
    /// GC's `status_description`, VA's `status_reason`.
    pub description: Option<&'static str>,
    /// GC's `provider_response`; VA's `provider_payload`, which is JSON.
    pub response: Option<&'static str>,
    /// VA's `provider`.
    pub provider: Option<&'static str>,
}

/// To which ends a row at this end may go.
fn moves(platform: Platform, from: &str) -> &'static [&'static str] {
    let is_gc = matches!(platform, Platform::GcNotify | Platform::GcNotifyBefore202608);
    match from {
        DELIVERED if is_gc => &[PERMANENT, TEMPORARY],
        PERMANENT if is_gc => &[TEMPORARY],
        DELIVERED => &[PERMANENT],
        PERMANENT => &[DELIVERED],
        _ => &[DELIVERED, PERMANENT],
    }
}

/// A first end and one to three moves from there.
pub fn restless(platform: Platform, chance: &mut Chance) -> Vec<&'static str> {
    let mut ends = vec![chance.one_of(&[DELIVERED, TEMPORARY, PERMANENT])];
    for _ in 0..=chance.below(3) {
        let from = ends.last().copied().unwrap_or(DELIVERED);
        ends.push(chance.one_of(moves(platform, from)));
    }
    ends
}

impl Cause {
    /// That of a status, in the platform's words.
    pub fn of(platform: Platform, kind: &str, status: &str, chance: &mut Chance) -> Self {
        match platform {
            Platform::GcNotify | Platform::GcNotifyBefore202608 => gc(kind, status, chance),
            Platform::VaNotify | Platform::VaNotifySigned => va(kind, status, chance),
            _ => Self::default(),
        }
    }
}

fn gc(kind: &str, status: &str, chance: &mut Chance) -> Cause {
    let is_email = kind == "email";
    let (description, response) = match status {
        DELIVERED => ("Delivered", None),
        TEMPORARY if is_email => ("Content or inbox issue", None),
        TEMPORARY => ("Carrier issue", None),
        PERMANENT if is_email && chance.below(2) == 0 => {
            ("Blocked", Some("The email address is on the GC Notify suppression list"))
        }
        PERMANENT if is_email => ("No such address", None),
        PERMANENT => ("No such number", None),
        PROVIDER_FAILURE => ("Can't send to this international number", None),
        VIRUS_SCAN_FAILED => ("Attachment has virus", None),
        _ => {
            ("Tech issue", chance.one_of(&[None, Some("Unknown error attempting to reach phone")]))
        }
    };
    Cause { description: Some(description), response, provider: None }
}

fn va(kind: &str, status: &str, chance: &mut Chance) -> Cause {
    let provider = match kind {
        "email" => "ses",
        "sms" => chance.one_of(&["pinpoint", "twilio"]),
        _ => "vetext",
    };
    let description = match status {
        TEMPORARY => Some("Retryable - Temporary delivery failure"),
        PERMANENT => Some("Undeliverable - Unreachable destination"),
        TECHNICAL => Some("Undeliverable - Provider reported an error"),
        _ => None,
    };
    let response = chance
        .one_of(&[None, Some(r#"{"event_type": "_SMS.RECORD", "segments": 2, "raw": null}"#)]);
    Cause { description, response, provider: Some(provider) }
}
