//! Our nouns: what a callback is and what it can say.
//!
//! Nothing here does I/O, reads a clock or knows a provider's words. `provider` turns bytes into
//! these; `merge` and `settle` work on nothing else.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;

/// One entry of the journal: an authentic POST as it came, what its platform said when asked, what the
/// app says it sent, or that it is overdue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    /// Position in the journal: grows by commit order, never used twice.
    pub seq: i64,
    /// The source whose credentials it carried, or whose platform was asked.
    pub source: Arc<str>,
    /// When its body had arrived.
    pub received_at: Timestamp,
    /// The bytes of the body, untouched.
    pub body: Vec<u8>,
    /// How it came to us: what its bytes mean depends on that.
    pub origin: Origin,
}

/// How an entry of the journal came to us; the numbers are those of its column `origin`, the words those
/// of the `history` table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Its sender posted it.
    #[default]
    CalledBack,
    /// We asked its platform.
    Polled,
    /// The app said that it was sent.
    Expected,
    /// We say that it has had no end by its deadline.
    Overdue,
}

impl Origin {
    /// The number in the journal.
    pub fn number(self) -> i64 {
        match self {
            Self::CalledBack => 0,
            Self::Polled => 1,
            Self::Expected => 2,
            Self::Overdue => 3,
        }
    }

    /// The one of that number. No version of the journal that this program opens holds another; read
    /// as a callback, such an entry would be unrecognised and stop nothing.
    pub fn from_number(number: i64) -> Self {
        match number {
            1 => Self::Polled,
            2 => Self::Expected,
            3 => Self::Overdue,
            _ => Self::CalledBack,
        }
    }

    /// The word in tables and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CalledBack => "called-back",
            Self::Polled => "polled",
            Self::Expected => "expected",
            Self::Overdue => "overdue",
        }
    }
}

/// A notification that the app says it sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Expected {
    /// The id that the platform gave it; never empty.
    pub id: String,
    /// The app's own reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Until when the app wants to hear of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
}

/// What kind of news an event is; the words are those of the `history` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Tells a status of one notification.
    Receipt,
    /// A text message from the public.
    ReceivedMessage,
    /// The recipient complained about the notification.
    Complaint,
    /// The letter came back.
    ReturnedLetter,
}

impl Kind {
    /// Every kind, in the order of the metrics.
    pub const ALL: [Self; 4] =
        [Self::Receipt, Self::ReceivedMessage, Self::Complaint, Self::ReturnedLetter];

    /// The word in tables, metrics and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Receipt => "receipt",
            Self::ReceivedMessage => "received-message",
            Self::Complaint => "complaint",
            Self::ReturnedLetter => "returned-letter",
        }
    }

    /// The kind of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first 16 bytes of the SHA-256 of an event's bytes: equal bytes, equal fingerprint, on any
/// machine. Not a secret and not an authenticator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The fingerprint of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Self(first)
    }

    /// Of what a platform said when asked: lower than that of any callback, because the first half is
    /// nought. Between two that are equal otherwise, the callback then stays.
    pub fn of_polled(bytes: &[u8]) -> Self {
        let Self(mut last) = Self::of(bytes);
        last.copy_within(..8, 8);
        last[..8].fill(0);
        Self(last)
    }

    /// How an event with this fingerprint came to us. What an app says it sent, and what is overdue, is
    /// no event.
    pub fn origin(&self) -> Origin {
        if self.0[..8] == [0; 8] { Origin::Polled } else { Origin::CalledBack }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One thing a callback says. A callback of the Notify family holds one event; one of Adobe
/// Journey Optimizer may hold several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Of the bytes this event was read from; with source, kind and id it tells a duplicate.
    pub fingerprint: Fingerprint,
    /// What it says.
    pub news: News,
}

/// The news of an event, by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// About a notification the app sent.
    Notification(Box<Report>),
    /// A text message from the public.
    Message(Box<ReceivedMessage>),
}

impl Event {
    /// The notification's or message's id.
    pub fn id(&self) -> &str {
        match &self.news {
            News::Notification(report) => &report.id,
            News::Message(message) => &message.id,
        }
    }

    /// The kind of its news.
    pub fn kind(&self) -> Kind {
        match &self.news {
            News::Notification(report) => report.kind,
            News::Message(_) => Kind::ReceivedMessage,
        }
    }
}

/// What a receipt, a complaint or a returned letter tells about one notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Receipt, complaint or returned letter.
    pub kind: Kind,
    /// The notification's id as the provider writes it; never empty.
    pub id: String,
    /// What does not change over a notification's life.
    pub identity: Identity,
    /// The status it tells; `None` for facts that move no status.
    pub standing: Option<Standing>,
    /// When the recipient complained, if that is what it tells and the sender dates it.
    pub complained_at: Option<Timestamp>,
}

/// Fields that belong to the notification, not to one status of it. Each may be missing from any
/// one receipt; they join field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The app's own reference.
    pub reference: Option<String>,
    /// The address or number as the app typed it.
    pub recipient: Option<String>,
    /// `email`, `sms`, `letter`, `push`, …: an open set.
    pub notification_type: Option<String>,
    /// The provider's template.
    pub template_id: Option<String>,
    /// Its version.
    pub template_version: Option<i64>,
    /// When the notification was created at the provider.
    pub created_at: Option<Timestamp>,
}

/// The status group: it moves as one unit, from the receipt with the highest precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// What decides between two standings of one notification. Compared first.
    pub precedence: Precedence,
    /// The normalised Notify word, or an unknown word as sent.
    pub status: String,
    /// The provider's sentence for people.
    pub status_description: Option<String>,
    /// The provider's own words on the cause.
    pub provider_response: Option<String>,
    /// When this status was reached, as the sender tells.
    pub completed_at: Option<Timestamp>,
    /// When the message went out, as the sender tells.
    pub sent_at: Option<Timestamp>,
}

/// A total order over the standings of one notification: version, then rank, then fingerprint.
/// `provider` fills it from what its sender's clock and words are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    /// The sender's own version of the snapshot; no version is lower than any.
    pub version: Option<Timestamp>,
    /// Between equal versions.
    pub rank: u8,
    /// Between equal ranks, so that any two machines agree.
    pub fingerprint: Fingerprint,
}

/// A text message from the public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// The provider's id; never empty.
    pub id: String,
    /// Who sent it; may be alphanumeric.
    pub source_number: Option<String>,
    /// The service's number.
    pub destination_number: Option<String>,
    /// The text.
    pub message: Option<String>,
    /// When the provider got it.
    pub date_received: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_how_its_event_came() {
        for number in 0..1_000_u32 {
            let bytes = number.to_be_bytes();
            assert_eq!(Fingerprint::of(&bytes).origin(), Origin::CalledBack);
            assert_eq!(Fingerprint::of_polled(&bytes).origin(), Origin::Polled);
        }
    }

    #[test]
    fn the_word_of_an_origin_is_the_one_that_json_has() {
        for number in 0..4 {
            let origin = Origin::from_number(number);
            assert_eq!(origin.number(), number);
            assert_eq!(serde_json::json!(origin), origin.as_str());
        }
    }
}
