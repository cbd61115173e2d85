//! What settling altered, as a sink is told.
//!
//! A change has one cause: one event of one callback, which was no repeat. So its id is made from
//! that event alone, and is the same on every machine, in every version and however often the
//! callback is settled or passed on. What a rebuild finds to be different from before has no such
//! cause; its id is made from what it became.
//!
//! Pure: no I/O, no clock, no provider, no words of a wire format.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::callback::{Fingerprint, Identity, Kind, Precedence, ReceivedMessage};
use crate::clock::Timestamp;
use crate::merge::Facts;

/// What a change is about; the words are those of `kinds` in the configuration and of an event's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The state of a notification is another.
    Status,
    /// A text message from the public arrived.
    Message,
    /// The recipient complained about a notification.
    Complaint,
    /// A letter came back.
    ReturnedLetter,
    /// The app expects the end of a notification, and there was none by its deadline.
    Overdue,
    /// A callback was not, or not wholly, understood.
    Unrecognised,
}

impl What {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 6] = [
        Self::Status,
        Self::Message,
        Self::Complaint,
        Self::ReturnedLetter,
        Self::Overdue,
        Self::Unrecognised,
    ];

    /// Those that a callback can bring about by itself.
    pub const CALLED_BACK: [Self; 5] =
        [Self::Status, Self::Message, Self::Complaint, Self::ReturnedLetter, Self::Unrecognised];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Message => "message",
            Self::Complaint => "complaint",
            Self::ReturnedLetter => "returned-letter",
            Self::Overdue => "overdue",
            Self::Unrecognised => "unrecognised",
        }
    }

    /// The one of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|what| what.as_str() == word)
    }
}

impl From<Kind> for What {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Receipt => Self::Status,
            Kind::ReceivedMessage => Self::Message,
            Kind::Complaint => Self::Complaint,
            Kind::ReturnedLetter => Self::ReturnedLetter,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names a change: 32 hexadecimal digits as text. The same change always has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId(pub [u8; 16]);

impl ChangeId {
    /// Of what one event brought about. `id` is the notification's or the message's, empty for a
    /// callback that was not understood; `cause` is the fingerprint of the event, or of the body.
    pub fn of(what: What, source: &str, id: &str, cause: Fingerprint) -> Self {
        Self::from_parts(
            &[b"receiptd change 1", what.as_str().as_bytes(), source.as_bytes()],
            id,
            &cause.0,
        )
    }

    /// Of what a rebuild found to be different: made from what it is now.
    pub fn of_rebuilt(what: What, source: &str, id: &str, data: &str) -> Self {
        let parts: [&[u8]; 3] =
            [b"receiptd rebuilt 1", what.as_str().as_bytes(), source.as_bytes()];
        Self::from_parts(&parts, id, &Sha256::digest(data.as_bytes()))
    }

    /// Each part with its length before it, so that no two lists of parts are the same bytes.
    fn from_parts(parts: &[&[u8]], id: &str, rest: &[u8]) -> Self {
        let mut hash = Sha256::new();
        for part in parts.iter().copied().chain([id.as_bytes(), rest]) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut first = [0; 16];
        first.copy_from_slice(&hash.finalize()[..16]);
        Self(first)
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Something settling altered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its place in the order of all changes: that of its cause in the journal.
    pub key: i64,
    /// Its name.
    pub id: ChangeId,
    /// What it is about.
    pub what: What,
    /// The source whose callback brought it about.
    pub source: Arc<str>,
    /// The key of the notification or message; that of the change itself if there is none. Changes
    /// that share it reach a sink in order.
    pub subject: i64,
    /// The platform's id of the notification or message.
    pub subject_id: Option<String>,
    /// The notification's status after it.
    pub status: Option<String>,
    /// What decides between this status and another of the same notification, or between this text
    /// and another of the same message.
    pub precedence: Option<Precedence>,
    /// When its cause arrived.
    pub received_at: Timestamp,
    /// A JSON object, what a sink is told: a [`NotificationData`], [`MessageData`], [`OverdueData`] or
    /// [`UnrecognisedData`].
    pub data: String,
}

/// The event that brought a change about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Its place in the journal, which is that of the change.
    pub key: i64,
    /// The key of the notification or message it is about.
    pub subject: i64,
    /// When its callback arrived.
    pub received_at: Timestamp,
    /// Of its bytes.
    pub fingerprint: Fingerprint,
}

impl Change {
    /// What an event told of a notification: what is known now, and was before. `received` is when
    /// the first callback about it arrived, and the last that was no repeat.
    pub fn of_notification(
        cause: Cause,
        kind: Kind,
        (source, id): (&Arc<str>, &str),
        (before, facts): (Option<&Facts>, &Facts),
        received: (Timestamp, Timestamp),
    ) -> Self {
        let data = NotificationData::new(source, id, facts, before, received);
        Self {
            key: cause.key,
            id: ChangeId::of(kind.into(), source, id, cause.fingerprint),
            what: kind.into(),
            source: Arc::clone(source),
            subject: cause.subject,
            subject_id: Some(id.to_owned()),
            status: facts.standing.as_ref().map(|standing| standing.status.clone()),
            precedence: facts.standing.as_ref().map(|standing| standing.precedence),
            received_at: cause.received_at,
            data: to_json(&data),
        }
    }

    /// What an event told of a text message, the first about which arrived at `first_received_at`.
    pub fn of_message(
        cause: Cause,
        source: &Arc<str>,
        message: &ReceivedMessage,
        first_received_at: Timestamp,
    ) -> Self {
        let data = MessageData::new(source, message, first_received_at);
        Self {
            key: cause.key,
            id: ChangeId::of(What::Message, source, &message.id, cause.fingerprint),
            what: What::Message,
            source: Arc::clone(source),
            subject: cause.subject,
            subject_id: Some(message.id.clone()),
            status: None,
            precedence: Some(Precedence { version: None, rank: 0, fingerprint: cause.fingerprint }),
            received_at: cause.received_at,
            data: to_json(&data),
        }
    }

    /// A callback with that body was not, or not wholly, understood. It is its own subject.
    pub fn of_unrecognised(
        key: i64,
        source: &Arc<str>,
        received_at: Timestamp,
        body: &[u8],
        reason: &str,
    ) -> Self {
        Self {
            key,
            id: ChangeId::of(What::Unrecognised, source, "", Fingerprint::of(body)),
            what: What::Unrecognised,
            source: Arc::clone(source),
            subject: key,
            subject_id: None,
            status: None,
            precedence: None,
            received_at,
            data: to_json(&UnrecognisedData { source, reason, received_at }),
        }
    }
}

/// The state of a notification, with the names and meanings of the public table, and what it was.
#[derive(Debug, Serialize)]
pub struct NotificationData<'a> {
    source: &'a str,
    id: &'a str,
    status: Option<&'a str>,
    status_description: Option<&'a str>,
    provider_response: Option<&'a str>,
    reference: Option<&'a str>,
    recipient: Option<&'a str>,
    notification_type: Option<&'a str>,
    template_id: Option<&'a str>,
    template_version: Option<i64>,
    created_at: Option<Timestamp>,
    sent_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    complained_at: Option<Timestamp>,
    returned_at: Option<Timestamp>,
    first_received_at: Timestamp,
    last_received_at: Timestamp,
    /// Null where there was no status before.
    previous: Option<Previous<'a>>,
}

/// The status group as it was before a change.
#[derive(Debug, Serialize)]
struct Previous<'a> {
    status: &'a str,
    status_description: Option<&'a str>,
    provider_response: Option<&'a str>,
    sent_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
}

impl<'a> NotificationData<'a> {
    /// What is known of the notification now, and its status before. `received` is when the first
    /// callback about it arrived, and the last that was no repeat.
    pub fn new(
        source: &'a str,
        id: &'a str,
        facts: &'a Facts,
        before: Option<&'a Facts>,
        received: (Timestamp, Timestamp),
    ) -> Self {
        let Identity {
            reference,
            recipient,
            notification_type,
            template_id,
            template_version,
            created_at,
        } = &facts.identity;
        let standing = facts.standing.as_ref();
        let previous = before.and_then(|before| before.standing.as_ref()).map(|before| Previous {
            status: &before.status,
            status_description: before.status_description.as_deref(),
            provider_response: before.provider_response.as_deref(),
            sent_at: before.sent_at,
            completed_at: before.completed_at,
        });
        Self {
            source,
            id,
            status: standing.map(|standing| standing.status.as_str()),
            status_description: standing.and_then(|s| s.status_description.as_deref()),
            provider_response: standing.and_then(|s| s.provider_response.as_deref()),
            reference: reference.as_deref(),
            recipient: recipient.as_deref(),
            notification_type: notification_type.as_deref(),
            template_id: template_id.as_deref(),
            template_version: *template_version,
            created_at: *created_at,
            sent_at: standing.and_then(|standing| standing.sent_at),
            completed_at: standing.and_then(|standing| standing.completed_at),
            complained_at: facts.complained_at,
            returned_at: facts.returned_at,
            first_received_at: received.0,
            last_received_at: received.1,
            previous,
        }
    }
}

/// A text message from the public, with the names and meanings of the public table.
#[derive(Debug, Serialize)]
pub struct MessageData<'a> {
    source: &'a str,
    id: &'a str,
    source_number: Option<&'a str>,
    destination_number: Option<&'a str>,
    message: Option<&'a str>,
    date_received: Option<Timestamp>,
    received_at: Timestamp,
}

impl<'a> MessageData<'a> {
    /// The message, and when the first callback about it arrived.
    pub fn new(source: &'a str, message: &'a ReceivedMessage, received_at: Timestamp) -> Self {
        Self {
            source,
            id: &message.id,
            source_number: message.source_number.as_deref(),
            destination_number: message.destination_number.as_deref(),
            message: message.message.as_deref(),
            date_received: message.date_received,
            received_at,
        }
    }
}

/// A notification that has had no end by its deadline, with the names and meanings of the public table
/// `expected`.
#[derive(Debug, Serialize)]
pub struct OverdueData<'a> {
    /// The source it was sent through.
    pub source: &'a str,
    /// The platform's id.
    pub id: &'a str,
    /// Its status then; null if nothing was heard of it.
    pub status: Option<&'a str>,
    /// The app's own reference.
    pub reference: Option<&'a str>,
    /// Until when the app wanted to hear of its end.
    pub deadline: Option<Timestamp>,
    /// When the app said that it was sent.
    pub since: Timestamp,
}

/// A callback that was not understood; why, without any of its values.
#[derive(Debug, Serialize)]
pub struct UnrecognisedData<'a> {
    /// Which source it came from.
    pub source: &'a str,
    /// Why.
    pub reason: &'a str,
    /// When it arrived.
    pub received_at: Timestamp,
}

/// The JSON text of what a sink is told.
pub fn to_json(data: &impl Serialize) -> String {
    serde_json::to_string(data).expect("text, numbers and times are JSON")
}

/// What a sink wants to hear of; `None` is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// From these sources.
    pub sources: Option<Vec<String>>,
    /// Of these kinds.
    pub kinds: Option<Vec<What>>,
    /// Of changes of a status, those to one of these. Says nothing of other kinds.
    pub statuses: Option<Vec<String>>,
}

impl Filter {
    /// Of which sources a sink with one of these filters is told of changes of that kind; `None` is all.
    pub fn sources_heard<'f>(
        filters: impl IntoIterator<Item = &'f Self>,
        what: What,
    ) -> Option<Vec<String>> {
        let mut names = Vec::new();
        for Self { sources, kinds, .. } in filters {
            if kinds.as_ref().is_none_or(|kinds| kinds.contains(&what)) {
                names.extend_from_slice(sources.as_ref()?);
            }
        }
        names.sort_unstable();
        names.dedup();
        Some(names)
    }

    /// Whether a sink with this filter is told of every change of that kind from that source,
    /// whatever its status.
    pub fn takes_all(&self, source: &str, what: What) -> bool {
        self.sources.as_ref().is_none_or(|list| list.iter().any(|listed| listed == source))
            && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&what))
            && (what != What::Status || self.statuses.is_none())
    }

    /// Whether a sink with this filter is told.
    pub fn matches(&self, change: &Change) -> bool {
        let names = |list: &Option<Vec<String>>, word: &str| {
            list.as_ref().is_none_or(|list| list.iter().any(|listed| listed == word))
        };
        names(&self.sources, &change.source)
            && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&change.what))
            && (change.what != What::Status
                || names(&self.statuses, change.status.as_deref().unwrap_or_default()))
    }
}

/// A sink, as settling sees it: what to owe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedTo {
    /// Its name.
    pub sink: Arc<str>,
    /// Callbacks up to this position of the journal are not owed to it: they came before it was
    /// configured, or it has had them.
    pub since: i64,
    /// What it wants to hear of.
    pub filter: Filter,
    /// Whether a newer change of the same notification makes an older one needless.
    pub is_latest_only: bool,
    /// Whether it wants the callback as it came.
    pub wants_body: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_heard_that_some_sink_of_that_kind_wants() {
        let filter = |sources: Option<&[&str]>, kinds: Option<Vec<What>>| Filter {
            sources: sources.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            kinds,
            statuses: None,
        };
        let of = |filters: &[Filter]| Filter::sources_heard(filters, What::Overdue);
        let status_of_all = filter(None, Some(vec![What::Status]));
        let a_and_b = filter(Some(&["b", "a"]), None);
        let overdue_of_b = filter(Some(&["b"]), Some(vec![What::Overdue, What::Message]));
        assert_eq!(of(&[]), Some(vec![]));
        assert_eq!(of(std::slice::from_ref(&status_of_all)), Some(vec![]));
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(of(&[status_of_all.clone(), overdue_of_b.clone()]), names(&["b"]));
        assert_eq!(of(&[overdue_of_b, a_and_b, status_of_all]), names(&["a", "b"]));
        assert_eq!(of(&[filter(Some(&["a"]), None), filter(None, None)]), None);
    }
}
