//! What an event of Adobe Journey Optimizer makes of a message: its status, and the place of that
//! status among others.
//!
//! There is no clock to order events by, so the order is that in which they can happen ([`Stage`]):
//! an error of an earlier attempt never hides a later `sent`, an asynchronous bounce of an e-mail
//! beats `delivered`, a handset's receipt beats everything on a text message. Within a stage the
//! more final word wins. Values this table does not know move no status.

use super::json::{Object, Problem};
use crate::callback::{Fingerprint, Precedence, Standing};

const PENDING: &str = "pending";
const SENT: &str = "sent";
const DELIVERED: &str = "delivered";
const TECHNICAL: &str = "technical-failure";
const TEMPORARY: &str = "temporary-failure";
const PERMANENT: &str = "permanent-failure";

/// Exclusions on account of the recipient, which sending again will meet again. Every other is a
/// matter of the campaign or the platform.
const RECIPIENT_EXCLUSIONS: [u32; 9] =
    [50_020, 50_024, 50_025, 50_101, 50_102, 50_104, 50_105, 50_107, 50_153];

/// The standing an event gives its message, or `None` if it moves no status. `delivery` is the
/// object `messageDeliveryFeedback`.
pub fn standing(
    by_email: bool,
    delivery: &Object<'_>,
    fingerprint: Fingerprint,
) -> Result<Option<Standing>, Problem> {
    let word = event_word(delivery)?;
    let cause = Cause::of(&word, delivery);
    let Some(status) = status(&word, by_email, &cause) else { return Ok(None) };
    let rank = stage(&word, by_email, &cause) as u8 * SEVERITIES + severity(status);
    Ok(Some(Standing {
        precedence: Precedence { version: None, rank, fingerprint },
        status: status.to_owned(),
        provider_response: Some(cause.in_the_providers_words(&word)),
        status_description: cause.reason,
        completed_at: delivery.timestamp("deliveryTimestamp").unwrap_or(None),
        sent_at: None,
    }))
}

/// The event: an object that holds the word, or the word itself.
fn event_word(delivery: &Object<'_>) -> Result<String, Problem> {
    let word = match delivery.object("feedbackStatus") {
        Some(status) => {
            status.required_word("value").map_err(|_| Problem::Missing("feedbackStatus.value"))
        }
        None => delivery.required_word("feedbackStatus"),
    };
    Ok(word?.to_ascii_lowercase())
}

/// Why it happened, as far as the event tells.
#[derive(Debug, Default)]
struct Cause {
    category: Option<String>,
    kind: Option<String>,
    code: Option<String>,
    reason: Option<String>,
}

impl Cause {
    fn of(event: &str, delivery: &Object<'_>) -> Self {
        let keys = if event == "exclude" {
            ["messageExclusion", "messageFailure"]
        } else {
            ["messageFailure", "messageExclusion"]
        };
        let Some(cause) = keys.into_iter().find_map(|key| delivery.object(key)) else {
            return Self::default();
        };
        Self {
            category: cause.text("category"),
            kind: cause.text("type"),
            code: cause.text("code"),
            reason: cause.text("reason"),
        }
    }

    fn is_kind(&self, word: &str) -> bool {
        self.kind.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case(word))
    }

    fn is_async(&self) -> bool {
        self.category.as_deref().is_some_and(|word| word.eq_ignore_ascii_case("async"))
    }

    /// The code, which the sender writes as a string, with leading zeros or without.
    fn code(&self) -> Option<u32> {
        self.code.as_deref()?.trim().parse().ok()
    }

    /// For people who look for the cause: `bounce sync/Ignored/25`.
    fn in_the_providers_words(&self, event: &str) -> String {
        let parts = [&self.category, &self.kind, &self.code];
        let words: Vec<_> = parts.into_iter().flatten().map(|part| harmless(part)).collect();
        if words.is_empty() { event.to_owned() } else { format!("{event} {}", words.join("/")) }
    }
}

/// The word, or `?` if it might be an address or a number of a person: the sets of types and codes
/// are open, and on text messages the carriers fill them.
fn harmless(word: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    let digits = word.chars().filter(char::is_ascii_digit).count();
    if word.len() <= 32 && digits <= 6 && word.chars().all(plain) { word } else { "?" }
}

fn status(event: &str, by_email: bool, cause: &Cause) -> Option<&'static str> {
    match event {
        "delay" | "unknown" => Some(PENDING),
        "sent" => Some(SENT),
        "delivered" | "read" => Some(DELIVERED),
        "bounce" | "out_of_band" => bounce(by_email, cause),
        "denylist" => Some(PERMANENT),
        "exclude" => {
            let recipients = cause.code().is_some_and(|code| RECIPIENT_EXCLUSIONS.contains(&code));
            Some(if recipients { PERMANENT } else { TECHNICAL })
        }
        "error" => Some(TECHNICAL),
        _ => None,
    }
}

/// What kind of failure a bounce is. The code beats the type: Adobe's own sample has the code of an
/// administrative failure with the type "Ignored". The codes are those of e-mail; on other channels
/// they are the carrier's own and mean nothing here.
fn bounce(by_email: bool, cause: &Cause) -> Option<&'static str> {
    match cause.code().filter(|_| by_email) {
        Some(10 | 15) => Some(PERMANENT),
        Some(25) => Some(TECHNICAL),
        // An automatic reply: the message did arrive, and nothing more is known of it.
        Some(60) => None,
        _ if cause.is_kind("hard") => Some(PERMANENT),
        _ if cause.is_kind("admin") => Some(TECHNICAL),
        _ => Some(TEMPORARY),
    }
}

/// How far a message must have come for an event to happen: later stages win. A channel other than
/// e-mail has the order of text messages, since only mail servers send a message back later.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Stage {
    Waiting,
    NotSent,
    Sent,
    Bounced,
    Delivered,
    BouncedLater,
}

fn stage(event: &str, by_email: bool, cause: &Cause) -> Stage {
    match event {
        "error" | "exclude" | "denylist" => Stage::NotSent,
        "sent" => Stage::Sent,
        "bounce" if by_email && cause.is_async() => Stage::BouncedLater,
        "out_of_band" if by_email => Stage::BouncedLater,
        "bounce" | "out_of_band" => Stage::Bounced,
        "delivered" | "read" => Stage::Delivered,
        _ => Stage::Waiting,
    }
}

/// How many values [`severity`] has.
const SEVERITIES: u8 = 4;

/// Which failure wins within a stage.
fn severity(status: &str) -> u8 {
    match status {
        PERMANENT => 3,
        TEMPORARY => 2,
        TECHNICAL => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::json::document;

    fn read(by_email: bool, json: &str) -> Result<Option<Standing>, Problem> {
        let delivery = Object::of(document(json.as_bytes()).unwrap()).unwrap();
        standing(by_email, &delivery, Fingerprint::default())
    }

    fn status_of(by_email: bool, event: &str, failure: &str) -> Option<String> {
        let json =
            format!(r#"{{"feedbackStatus":{{"value":"{event}"}},"messageFailure":{failure}}}"#);
        read(by_email, &json).unwrap().map(|standing| standing.status)
    }

    #[test]
    fn every_event_has_its_status() {
        for (event, expected) in [
            ("delay", Some("pending")),
            ("unknown", Some("pending")),
            ("sent", Some("sent")),
            ("Delivered", Some("delivered")),
            ("read", Some("delivered")),
            ("denylist", Some("permanent-failure")),
            ("error", Some("technical-failure")),
            ("exclude", Some("technical-failure")),
            ("bounce", Some("temporary-failure")),
            ("out_of_band", Some("temporary-failure")),
            ("duplicate", None),
            ("something-new", None),
        ] {
            for by_email in [true, false] {
                assert_eq!(status_of(by_email, event, "null").as_deref(), expected, "{event}");
            }
        }
    }

    #[test]
    fn the_code_of_an_email_bounce_beats_its_type() {
        for (code, kind, expected) in [
            (r#""10""#, "Soft", Some("permanent-failure")),
            ("15", "admin", Some("permanent-failure")),
            (r#""25""#, "Ignored", Some("technical-failure")),
            (r#""25""#, "Hard", Some("technical-failure")),
            (r#""60""#, "Hard", None),
            (r#""22""#, "Soft", Some("temporary-failure")),
            (r#""22""#, "HARD", Some("permanent-failure")),
            ("null", "Admin", Some("technical-failure")),
            ("null", "Ignored", Some("temporary-failure")),
            (r#""Mailbox""#, "new", Some("temporary-failure")),
        ] {
            let failure = format!(r#"{{"category":"sync","type":"{kind}","code":{code}}}"#);
            assert_eq!(status_of(true, "bounce", &failure).as_deref(), expected, "{failure}");
        }
    }

    #[test]
    fn on_other_channels_the_code_is_the_carriers_own() {
        for code in ["10", "15", "25", "60"] {
            let failure = format!(r#"{{"type":null,"code":"{code}"}}"#);
            assert_eq!(status_of(false, "bounce", &failure).as_deref(), Some("temporary-failure"));
        }
    }

    #[test]
    fn an_exclusion_on_account_of_the_recipient_is_permanent() {
        for code in [r#""050102""#, "50102", r#""50102""#] {
            let json = format!(
                r#"{{"feedbackStatus":"exclude","messageFailure":{{"code":"1"}},
                "messageExclusion":{{"code":{code},"reason":"EmailSuppressed"}}}}"#
            );
            let standing = read(true, &json).unwrap().unwrap();
            assert_eq!(standing.status, "permanent-failure");
            assert_eq!(standing.status_description.as_deref(), Some("EmailSuppressed"));
        }
    }

    #[test]
    fn the_event_may_be_a_bare_string() {
        let bare = read(true, r#"{"feedbackStatus":"read"}"#).unwrap().unwrap();
        assert_eq!(bare.status, "delivered");
        for json in [r"{}", r#"{"feedbackStatus":null}"#, r#"{"feedbackStatus":""}"#] {
            assert_eq!(read(true, json), Err(Problem::Missing("feedbackStatus")), "{json}");
        }
        for json in [r#"{"feedbackStatus":{}}"#, r#"{"feedbackStatus":{"value":1}}"#] {
            assert_eq!(read(true, json), Err(Problem::Missing("feedbackStatus.value")), "{json}");
        }
    }

    #[test]
    fn the_providers_words_never_hold_an_address() {
        for (failure, expected) in [
            (r#"{"category":"sync","type":"Ignored","code":"25"}"#, "bounce sync/Ignored/25"),
            (r#"{"category":null,"type":"Hard","code":404}"#, "bounce Hard/404"),
            ("null", "bounce"),
            (r#"{"category":"a@b.ca","type":"+15555550123","code":"15555550123"}"#, "bounce ?/?/?"),
        ] {
            let json = format!(r#"{{"feedbackStatus":"bounce","messageFailure":{failure}}}"#);
            let standing = read(false, &json).unwrap().unwrap();
            assert_eq!(standing.provider_response.as_deref(), Some(expected));
        }
    }

    #[test]
    fn the_time_of_delivery_is_told_but_bears_no_order() {
        let json =
            r#"{"feedbackStatus":"delivered","deliveryTimestamp":"2026-10-06T18:22:41.512Z"}"#;
        let standing = read(false, json).unwrap().unwrap();
        assert_eq!(standing.completed_at.unwrap().to_string(), "2026-10-06T18:22:41.512000Z");
        assert_eq!(standing.precedence.version, None);
        let unreadable = r#"{"feedbackStatus":"delivered","deliveryTimestamp":"soon"}"#;
        assert_eq!(read(false, unreadable).unwrap().unwrap().completed_at, None);
    }
}
