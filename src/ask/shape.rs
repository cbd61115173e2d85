//! The JSON of the platforms: the same keys, the same types, null where we do not know.
//!
//! Nothing that is called back holds the text of a message, its subject, its cost or who sent it, and
//! not every callback its template. `created_at` is when we first heard of a notification if nobody told
//! when it was created, because clients expect a time there. `completed_at` is null until a
//! message was sent, and a letter has the words that the platforms show for it.

use serde::{Serialize, Serializer};

use super::fault::Voice;
use super::readers::Reader;
use super::words;
use crate::clock::Timestamp;
use crate::provider::Provider;
use crate::provider::ends::has_completed_at;
use crate::state::asked::Asked;
use crate::state::read::MessageRow;

/// A notification as the platform of its reader has it.
#[derive(Serialize)]
pub(super) struct Notification<'a> {
    id: &'a str,
    reference: Option<&'a str>,
    email_address: Option<&'a str>,
    phone_number: Option<&'a str>,
    line_1: Option<&'a str>,
    line_2: (),
    line_3: (),
    line_4: (),
    line_5: (),
    line_6: (),
    postcode: (),
    postage: (),
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    status: &'a str,
    template: Template<'a>,
    body: (),
    subject: (),
    created_at: Timestamp,
    created_by_name: (),
    sent_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    scheduled_for: (),
    #[serde(flatten)]
    own: Own<'a>,
}

#[derive(Serialize)]
struct Template<'a> {
    id: Option<&'a str>,
    version: Option<i64>,
    uri: Option<String>,
}

/// What only one platform has.
#[derive(Serialize)]
#[serde(untagged)]
enum Own<'a> {
    Govuk {
        is_cost_data_ready: bool,
        cost_in_pounds: (),
        cost_details: Nothing,
        one_click_unsubscribe_url: (),
    },
    Gc {
        status_description: Option<&'a str>,
        provider_response: Option<&'a str>,
    },
}

/// `{}`
struct Nothing;

impl Serialize for Nothing {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(std::iter::empty::<((), ())>())
    }
}

impl<'a> Notification<'a> {
    /// What is known of it, for that reader.
    pub(super) fn of(asked: &'a Asked, reader: &Reader) -> Self {
        let Asked { row, status, notification_type, created_at, is_polled: _ } = asked;
        let recipient = row.recipient.as_deref();
        let kind = notification_type.as_deref();
        let if_type = |word: &str| recipient.filter(|_| kind == Some(word));
        let status = words::shown(status.as_deref().unwrap_or(words::UNTOLD), kind);
        Self {
            id: &row.id,
            reference: row.reference.as_deref(),
            email_address: if_type("email"),
            phone_number: if_type("sms"),
            line_1: if_type("letter"),
            line_2: (),
            line_3: (),
            line_4: (),
            line_5: (),
            line_6: (),
            postcode: (),
            postage: (),
            kind,
            status,
            template: Template::of(asked, reader.provider),
            body: (),
            subject: (),
            created_at: *created_at,
            created_by_name: (),
            sent_at: row.sent_at,
            completed_at: completed_at(asked, reader.provider),
            scheduled_for: (),
            own: Own::of(asked, reader.voice()),
        }
    }
}

/// As the platform has it. Called back it tells when the row last changed, whatever the status; asked, the
/// platform has made up its mind, but for US Notify.gov, whose answer has the same as a callback. It goes by
/// the status that it was told with: when a letter came back nobody tells.
fn completed_at(asked: &Asked, provider: Provider) -> Option<Timestamp> {
    let is_theirs = asked.is_polled && provider != Provider::UsNotify;
    let told = asked.row.status.as_deref();
    asked.row.completed_at.filter(|_| is_theirs || told.is_some_and(has_completed_at))
}

impl<'a> Template<'a> {
    fn of(asked: &'a Asked, provider: Provider) -> Self {
        let (id, version) = (asked.row.template_id.as_deref(), asked.row.template_version);
        let uri = match (base(provider), id, version) {
            (Some(base), Some(id), Some(version)) => {
                Some(format!("{base}/v2/template/{id}/version/{version}"))
            }
            _ => None,
        };
        Self { id, version, uri }
    }
}

/// Where the platform's own API is; `None` where there is none like it, or several.
fn base(provider: Provider) -> Option<&'static str> {
    match provider {
        Provider::GovukNotify => Some("https://api.notifications.service.gov.uk"),
        Provider::GcNotify => Some("https://api.notification.canada.ca"),
        Provider::NotifyNl => Some("https://api.notifynl.nl"),
        Provider::Notify | Provider::UsNotify | Provider::VaNotify | Provider::Ajo => None,
    }
}

impl<'a> Own<'a> {
    fn of(asked: &'a Asked, voice: Voice) -> Self {
        match voice {
            Voice::Govuk => Self::Govuk {
                is_cost_data_ready: false,
                cost_in_pounds: (),
                cost_details: Nothing,
                one_click_unsubscribe_url: (),
            },
            Voice::Gc => Self::Gc {
                status_description: asked.row.status_description.as_deref(),
                provider_response: asked.row.provider_response.as_deref(),
            },
        }
    }
}

/// A text message from the public.
#[derive(Serialize)]
pub(super) struct Message<'a> {
    id: &'a str,
    created_at: Timestamp,
    service_id: String,
    notify_number: Option<&'a str>,
    user_number: Option<&'a str>,
    content: Option<&'a str>,
}

impl<'a> Message<'a> {
    /// What is known of it, for that reader.
    pub(super) fn of(row: &'a MessageRow, reader: &Reader) -> Self {
        Self {
            id: &row.id,
            created_at: row.date_received.unwrap_or(row.received_at),
            service_id: reader.service.hyphenated().to_string(),
            notify_number: row.destination_number.as_deref(),
            user_number: row.source_number.as_deref(),
            content: row.message.as_deref(),
        }
    }
}

/// Where this page is and, if it is not empty, the next.
#[derive(Serialize)]
pub(super) struct Links {
    pub(super) current: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// A page of notifications.
#[derive(Serialize)]
pub(super) struct Notifications<'a> {
    pub(super) notifications: Vec<Notification<'a>>,
    pub(super) links: Links,
}

/// A page of text messages from the public.
#[derive(Serialize)]
pub(super) struct Messages<'a> {
    pub(super) received_text_messages: Vec<Message<'a>>,
    pub(super) links: Links,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::read::NotificationRow;

    fn asked(is_polled: bool, status: &str) -> Asked {
        let at = Timestamp::from_unix_micros(1);
        let row = NotificationRow {
            source: "passport".to_owned(),
            id: "n".to_owned(),
            status: Some(status.to_owned()),
            status_description: None,
            provider_response: None,
            reference: None,
            recipient: None,
            notification_type: None,
            template_id: None,
            template_version: None,
            created_at: None,
            sent_at: None,
            completed_at: Some(at),
            complained_at: None,
            returned_at: None,
            receipts: 1,
            duplicates: 0,
            first_received_at: at,
            last_received_at: at,
        };
        let (status, notification_type) = (row.status.clone(), Some("email".to_owned()));
        Asked { row, status, notification_type, created_at: at, is_polled }
    }

    #[test]
    fn what_the_platform_told_when_asked_is_told_whatever_its_status() {
        let is_told = |is_polled, status, provider| {
            completed_at(&asked(is_polled, status), provider).is_some()
        };
        for provider in [Provider::GovukNotify, Provider::GcNotify, Provider::NotifyNl] {
            for (status, if_called_back) in
                [("sent", true), ("delivered", true), ("sending", false), ("a-new-word", false)]
            {
                assert!(is_told(true, status, provider), "{status}");
                assert_eq!(is_told(false, status, provider), if_called_back, "{status}");
            }
        }
        assert!(is_told(true, "sent", Provider::UsNotify));
        assert!(!is_told(true, "sending", Provider::UsNotify), "it is when the row changed");
    }
}
