//! What the platforms of the Notify family say when they are asked: their read API.
//!
//! [`notifications`], [`notification`] and [`messages`] take an answer apart into [`Said`], one for
//! each notification or message, each with the bytes that are to be kept of it; [`read`] reads such
//! bytes back from the journal. Both shapes are understood, by their keys: that of `/v2`, and that
//! of `/notifications` at US Notify.gov, which has no `/v2`.
//!
//! Promises: the same as of a callback; and that the text of a message to somebody, its subject, and
//! the links and costs beside it are not kept. Nobody needs them to know what became of it.
//!
//! # Which of two snapshots is the later
//!
//! An answer is a snapshot of the same row that a callback is, and its version is the same: when the
//! row last changed. A callback says that as `completed_at` whatever the status. The read API's
//! `completed_at` is the row's `updated_at` too, but null while the status is none of its ends (`sent`
//! is one of them); US Notify.gov says `updated_at` itself. So:
//!
//! - An answer with a version is compared with callbacks by that, like any receipt. One that was
//!   asked for before a later callback cannot undo it, and one that shows a later change wins over
//!   all callbacks before it.
//! - An answer without one is lower than whatever has a version. It may well be newer: a platform
//!   can take a failure back and try again. But there is no telling by it, and the status that the
//!   platform settles on will have a version. When it was asked for says nothing that could be
//!   compared: that is our clock.
//! - Of an answer and a callback of one version and rank, which show the same row, the callback
//!   stays ([`Fingerprint::of_polled`]). So asking about what is known already brings no news.

use super::json::{self, Object, Problem};
use super::notify::{first_text, rank};
use super::{Reading, Reason};
use crate::callback::{
    Event, Fingerprint, Identity, Kind, News, Precedence, ReceivedMessage, Report, Standing,
};
use crate::clock::Timestamp;

/// Keys of an answer that are not kept: what was written to somebody, a link by which anybody may
/// unsubscribe them, and what it cost, which changes after the end.
const NOT_KEPT: [&str; 8] = [
    "body",
    "subject",
    "content_char_count",
    "one_click_unsubscribe_url",
    "cost_details",
    "cost_in_pounds",
    "is_cost_data_ready",
    "personalisation",
];

/// Characters of a UUID.
pub const UUID_CHARS: usize = 36;

/// What is said of one notification or message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// What the journal keeps of it; [`read`] makes `event` of that.
    pub body: Vec<u8>,
    /// When it was created at the platform, which orders the pages.
    pub created_at: Option<Timestamp>,
    /// What it means.
    pub event: Event,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of the page.
    pub said: Vec<Said>,
    /// What could not be understood, in the same order.
    pub broken: Vec<Broken>,
}

/// An element of a page that could not be understood. Nothing in it is a value that may not be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// From 1.
    pub place: usize,
    /// Its id, if that is a UUID.
    pub id: Option<String>,
    /// When it was created, if it says so itself.
    pub created_at: Option<Timestamp>,
    /// When what stands behind it was.
    pub behind: Option<Timestamp>,
    /// One of [`FLAWS`].
    pub flaw: &'static str,
    /// The same as a fragment for people.
    pub why: Reason,
}

impl Broken {
    /// Where it stands in the order of the pages: when it was created, or what stands behind it was; `None`
    /// if neither is known.
    pub fn stands_at(&self) -> Option<Timestamp> {
        self.created_at.or(self.behind)
    }
}

/// What can be wrong with an element, in the words of the metrics: its shape, that nothing says what kind
/// of thing it is, or one of its keys.
pub const FLAWS: [&str; 6] = ["shape", "kind", "id", "status", "completed_at", "updated_at"];

/// Why one cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Flaw {
    #[error("the keys are those of no known kind of answer")]
    Kind,
    #[error(transparent)]
    Of(#[from] Problem),
}

impl Flaw {
    /// One of [`FLAWS`].
    fn word(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Of(Problem::NotUtf8 | Problem::NotJson | Problem::NotAnObject) => "shape",
            Self::Of(
                Problem::Missing(key)
                | Problem::NotAString(key)
                | Problem::NotUnicode(key)
                | Problem::NotATimestamp(key),
            ) => key,
        }
    }
}

impl From<Flaw> for Reason {
    fn from(flaw: Flaw) -> Self {
        Self::Owned(flaw.to_string())
    }
}

/// Whether this is a UUID: the read API knows no other ids.
pub fn is_uuid(text: &str) -> bool {
    let is_right = |(place, byte): (usize, u8)| match place {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == UUID_CHARS && text.bytes().enumerate().all(is_right)
}

/// Reads what was kept of an answer.
pub fn read(body: &[u8]) -> Reading {
    let event = json::document(body)
        .and_then(Object::of)
        .map_err(Flaw::from)
        .and_then(|object| event(&object, Fingerprint::of_polled(body)));
    match event {
        Ok(event) => Reading { events: vec![event], ..Reading::default() },
        Err(flaw) => Reading::unrecognised(flaw),
    }
}

/// Takes a page of notifications apart.
///
/// # Errors
/// If it is no such page.
pub fn notifications(bytes: &[u8]) -> Result<Page, Reason> {
    page(bytes, "notifications")
}

/// Takes a page of text messages from the public apart.
///
/// # Errors
/// If it is no such page.
pub fn messages(bytes: &[u8]) -> Result<Page, Reason> {
    page(bytes, "received_text_messages")
}

/// What is said of the one notification that was asked for.
///
/// # Errors
/// If that is no notification, or another one.
pub fn notification(bytes: &[u8], id: &str) -> Result<Said, Reason> {
    let document = json::document(bytes)?;
    let object = Object::of(document)?;
    // US Notify.gov wraps it twice.
    let inner = object.object("data").and_then(|data| data.object("notification"));
    let said = said(&inner.unwrap_or(object))?;
    let is_it = said.event.id() == id && said.event.kind() == Kind::Receipt;
    if is_it { Ok(said) } else { Err("it is about another notification".into()) }
}

fn page(bytes: &[u8], list: &'static str) -> Result<Page, Reason> {
    let document = json::document(bytes)?;
    let object = Object::of(document)?;
    let elements = object.value(list).and_then(json::array).ok_or("the list is missing")?;
    let mut page = Page::default();
    // Of what stands behind the element that is looked at.
    let mut behind = None;
    for (place, element) in elements.into_iter().enumerate().rev() {
        let object = Object::of(element).map_err(Flaw::from);
        let created_at = object.as_ref().ok().and_then(created_at);
        match object.as_ref().map_err(|flaw| *flaw).and_then(said) {
            Ok(said) => page.said.push(said),
            Err(flaw) => {
                let id = object.ok().and_then(|object| object.text("id")).filter(|id| is_uuid(id));
                let (place, flaw, why) = (place + 1, flaw.word(), flaw.into());
                page.broken.push(Broken { place, id, created_at, behind, flaw, why });
            }
        }
        behind = created_at.or(behind);
    }
    page.said.reverse();
    page.broken.reverse();
    Ok(page)
}

fn said(object: &Object<'_>) -> Result<Said, Flaw> {
    let body = kept(object);
    let event = event(object, Fingerprint::of_polled(&body))?;
    Ok(Said { body, created_at: created_at(object), event })
}

fn created_at(object: &Object<'_>) -> Option<Timestamp> {
    object.timestamp("created_at").unwrap_or(None)
}

/// The object without what is not kept; each value as it came.
fn kept(object: &Object<'_>) -> Vec<u8> {
    let mut text = String::from("{");
    for (key, value) in object.entries().filter(|(key, _)| !NOT_KEPT.contains(key)) {
        if text.len() > 1 {
            text.push_str(", ");
        }
        text.push_str(&serde_json::Value::from(key).to_string());
        text.push_str(": ");
        text.push_str(value.get());
    }
    text.push('}');
    text.into_bytes()
}

fn event(object: &Object<'_>, fingerprint: Fingerprint) -> Result<Event, Flaw> {
    let news = if object.has("status") {
        News::Notification(Box::new(report(object, fingerprint)?))
    } else if object.has("notify_number") || object.has("user_number") {
        News::Message(Box::new(message(object)?))
    } else {
        return Err(Flaw::Kind);
    };
    Ok(Event { fingerprint, news })
}

fn report(object: &Object<'_>, fingerprint: Fingerprint) -> Result<Report, Problem> {
    let id = object.required_word("id")?;
    let status = object.required_word("status")?;
    // As of a callback: one that cannot be read must not count as none.
    let version = match object.has("completed_at") {
        true => object.timestamp("completed_at")?,
        false => object.timestamp("updated_at")?,
    };
    Ok(Report {
        kind: Kind::Receipt,
        id,
        identity: identity(object),
        standing: Some(Standing {
            precedence: Precedence { version, rank: rank(&status), fingerprint },
            status,
            status_description: first_text(object, ["status_description", "status_reason"]),
            provider_response: first_text(object, ["provider_response", "provider_payload"]),
            completed_at: version,
            sent_at: object.timestamp("sent_at").unwrap_or(None),
        }),
        complained_at: None,
    })
}

/// As of a callback: none is essential.
fn identity(object: &Object<'_>) -> Identity {
    let template = object.object("template").unwrap_or_default();
    let first = |keys: &[&str]| keys.iter().find_map(|key| object.text(key));
    Identity {
        reference: object.text("reference"),
        // Letters have no one field for it; the first line is the name.
        recipient: first(&["email_address", "phone_number", "to", "line_1"]),
        notification_type: first(&["type", "notification_type"]),
        template_id: template.text("id"),
        template_version: template
            .integer("version")
            .or_else(|| object.integer("template_version")),
        created_at: created_at(object),
    }
}

fn message(object: &Object<'_>) -> Result<ReceivedMessage, Problem> {
    Ok(ReceivedMessage {
        id: object.required_word("id")?,
        source_number: object.text("user_number"),
        destination_number: object.text("notify_number"),
        message: object.text("content"),
        date_received: created_at(object),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"body": "Hello Bob", "completed_at": "2024-05-17T15:59:10.321000Z",
        "cost_details": {}, "cost_in_pounds": 0.0, "created_at": "2024-05-17T15:58:38.342838Z",
        "email_address": "amala@example.com", "id": "n", "is_cost_data_ready": true,
        "line_1": null, "one_click_unsubscribe_url": "https://u", "phone_number": null,
        "reference": "yours", "sent_at": "2024-05-17T15:58:30.143000Z", "status": "delivered",
        "subject": "Bob", "template": {"id": "t", "uri": "https://t/1", "version": 1},
        "type": "email", "new_key": {"a": [1, 2]}}"#;

    const US: &str = r#"{"api_key": null, "body": "...", "created_at":
        "2024-05-17T15:58:38.342838Z", "id": "n", "notification_type": "sms", "reference": null,
        "sent_at": "2024-05-17T15:58:38Z", "status": "sending", "template": {"id": "t", "version":
        3}, "template_version": 3, "to": "1", "updated_at": "2024-05-17T15:58:40.000001Z"}"#;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn report_of(said: &Said) -> Report {
        match &said.event.news {
            News::Notification(report) => (**report).clone(),
            News::Message(message) => panic!("{message:?}"),
        }
    }

    fn one(json: &str) -> Said {
        notification(json.as_bytes(), "n").unwrap()
    }

    #[test]
    fn an_answer_says_what_a_callback_would() {
        let report = report_of(&one(ONE));
        let standing = report.standing.unwrap();
        assert_eq!(standing.status, "delivered");
        assert_eq!(standing.precedence.version, Some(at("2024-05-17T15:59:10.321Z")));
        assert_eq!(standing.completed_at, standing.precedence.version);
        let expected = Identity {
            reference: Some("yours".into()),
            recipient: Some("amala@example.com".into()),
            notification_type: Some("email".into()),
            template_id: Some("t".into()),
            template_version: Some(1),
            created_at: Some(at("2024-05-17T15:58:38.342838Z")),
        };
        assert_eq!(report.identity, expected);
    }

    #[test]
    fn what_is_kept_reads_back_as_the_same_and_holds_no_text_of_the_message() {
        for json in [ONE, US] {
            let said = one(json);
            let reading = read(&said.body);
            assert_eq!(reading, Reading { events: vec![said.event], unrecognised: None });
            let kept = String::from_utf8(said.body).unwrap();
            for gone in ["Hello Bob", "Bob", "https://u", "cost", "\"body\""] {
                assert!(!kept.contains(gone), "{kept}");
            }
        }
        let kept = String::from_utf8(one(ONE).body).unwrap();
        assert!(kept.contains(r#""new_key": {"a": [1, 2]}"#), "{kept}");
    }

    #[test]
    fn where_there_is_no_v2_the_version_is_there_whatever_the_status() {
        let wrapped = format!(r#"{{"data": {{"notification": {US}}}}}"#);
        assert_eq!(one(&wrapped), one(US));
        let report = report_of(&one(US));
        assert_eq!(report.identity.recipient.as_deref(), Some("1"));
        let version = report.standing.unwrap().precedence.version;
        assert_eq!(version, Some(at("2024-05-17T15:58:40.000001Z")));
    }

    #[test]
    fn while_the_status_is_no_end_there_is_no_version_and_an_unreadable_one_is_not_guessed() {
        let json = |version: &str| {
            format!(
                r#"{{"id": "n", "status": "sending", "type": "sms", "completed_at": {version},
                "updated_at": "2024-05-17T15:58:40.000001Z"}}"#
            )
        };
        assert_eq!(report_of(&one(&json("null"))).standing.unwrap().precedence.version, None);
        let wrong = notification(json(r#""soon""#).as_bytes(), "n");
        assert_eq!(wrong.unwrap_err(), "completed_at is not a timestamp");
    }

    #[test]
    fn of_one_version_and_rank_the_callback_stays() {
        for number in 0..100 {
            let body = format!(r#"{{"id": "n", "number": {number}}}"#);
            assert!(Fingerprint::of(body.as_bytes()) > Fingerprint::of_polled(body.as_bytes()));
        }
        let [a, b] = [&b"a"[..], b"b"].map(Fingerprint::of_polled);
        assert_ne!(a, b);
    }

    #[test]
    fn a_page_is_taken_apart_and_what_cannot_be_understood_is_told() {
        let page =
            notifications(format!(r#"{{"notifications": [{ONE}, {{}}, 7, {US}]}}"#).as_bytes());
        let page = page.unwrap();
        assert_eq!((page.said.len(), page.broken.len()), (2, 2));
        assert_eq!(page.said[0].created_at, Some(at("2024-05-17T15:58:38.342838Z")));
        for wrong in ["", "[]", "{}", r#"{"notifications": {}}"#, r#"{"notifications": null}"#] {
            assert!(notifications(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert_eq!(notifications(br#"{"notifications": []}"#), Ok(Page::default()));
    }

    #[test]
    fn of_what_cannot_be_understood_it_is_told_which_it_is_when_it_was_created_and_why() {
        let id = "740e5834-3a29-46b4-9a6f-1b2fc6a53ea7";
        let [own, behind] = ["2024-05-17T15:58:38.342838Z", "2024-05-17T00:00:00Z"];
        let broken = [
            ("7".to_owned(), None, "shape"),
            ("{}".to_owned(), None, "kind"),
            (format!(r#"{{"id": "{id}", "status": 7}}"#), Some(id), "status"),
            (format!(r#"{{"id": "{id}", "user_number": "1", "id": 7}}"#), None, "id"),
            (
                r#"{"id": "a canary", "status": "sent", "completed_at": 1}"#.to_owned(),
                None,
                "completed_at",
            ),
            (
                format!(r#"{{"id": "{id}", "status": "sent", "updated_at": ""}}"#),
                Some(id),
                "updated_at",
            ),
        ];
        for (json, id, flaw) in broken {
            let dated = json.replacen('{', &format!(r#"{{"created_at": "{own}", "#), 1);
            let dated = dated.replace(", }", "}");
            let after = format!(r#"{{"id": "n", "status": "sent", "created_at": "{behind}"}}"#);
            for (list, created_at) in [
                (format!("[{US}, {dated}, {after}]"), (json != "7").then(|| at(own))),
                (format!("[{US}, {json}, {after}]"), None),
            ] {
                let page = notifications(format!(r#"{{"notifications": {list}}}"#).as_bytes());
                let page = page.unwrap();
                assert_eq!(page.said.len(), 2, "{list}");
                let [broken] = &page.broken[..] else { panic!("{page:?}") };
                assert_eq!((broken.place, broken.id.as_deref()), (2, id), "{list}");
                assert_eq!((broken.flaw, broken.created_at), (flaw, created_at), "{list}");
                assert_eq!(broken.stands_at(), created_at.or(Some(at(behind))), "{list}");
                assert!(FLAWS.contains(&flaw) && !format!("{broken:?}").contains("canary"));
            }
            let last = format!(r#"{{"notifications": [{US}, {json}]}}"#);
            assert_eq!(notifications(last.as_bytes()).unwrap().broken[0].stands_at(), None);
        }
    }

    #[test]
    fn another_notification_than_the_one_asked_for_is_none() {
        assert!(notification(ONE.as_bytes(), "m").is_err());
        assert!(notification(br#"{"id": "n", "user_number": "1"}"#, "n").is_err());
        assert!(notification(br#"{"errors": []}"#, "n").is_err());
    }

    #[test]
    fn a_received_text_has_the_words_of_its_callback() {
        let body = br#"{"received_text_messages": [{"content": "Hi", "created_at":
            "2017-05-14T12:15:30.000000Z", "id": "m", "notify_number": "07900900002",
            "service_id": "s", "user_number": "447700900111"}], "links": {}}"#;
        let page = messages(body).unwrap();
        let expected = ReceivedMessage {
            id: "m".into(),
            source_number: Some("447700900111".into()),
            destination_number: Some("07900900002".into()),
            message: Some("Hi".into()),
            date_received: Some(at("2017-05-14T12:15:30Z")),
        };
        assert_eq!(page.said[0].event.news, News::Message(Box::new(expected)));
        assert_eq!(read(&page.said[0].body).events, [page.said[0].event.clone()]);
    }
}
