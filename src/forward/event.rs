//! A change as sinks see it: a CloudEvents 1.0 event.
//!
//! | attribute | is |
//! |---|---|
//! | `id` | the change's id: the same however often it is sent, so that a sink can drop repeats |
//! | `source` | `/receiptd/<source>` |
//! | `type` | `receiptd.status`, `receiptd.message`, `receiptd.complaint`, `receiptd.returned-letter`, `receiptd.unrecognised` or `receiptd.overdue` |
//! | `subject` | the platform's id of the notification or message; absent for `unrecognised` |
//! | `time` | when the callback arrived; of `overdue`, when it was found to be |
//! | `data` | JSON: the columns of the public table, what the status was before, and with `include_raw` the callback as it came |

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::change::{Change, What};
use crate::clock::Timestamp;
use crate::state::outbox::Owed;

/// The version of the specification.
pub const SPEC_VERSION: &str = "1.0";

/// The media type of an event in structured mode.
pub const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";

/// The media type of the data.
pub const DATA: &str = "application/json";

/// A change on its way to one sink.
#[derive(Clone, Debug)]
pub struct Event {
    /// The change.
    pub change: Arc<Change>,
    /// The callback as it came, where the sink wants it.
    pub body: Option<Bytes>,
    /// The data with the callback in it, if the sink includes that.
    data_with_raw: Option<String>,
}

#[derive(Serialize)]
struct Structured<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: Timestamp,
    datacontenttype: &'static str,
    data: &'a RawValue,
}

impl Event {
    /// The event of an owed change. `include_raw`: the callback becomes part of the data.
    pub fn new(owed: &Owed, include_raw: bool) -> Self {
        Self::of(Arc::clone(&owed.change), owed.body.clone(), include_raw)
    }

    /// The event of a change and the callback that brought it about.
    pub fn of(change: impl Into<Arc<Change>>, body: Option<Bytes>, include_raw: bool) -> Self {
        let change = change.into();
        let raw = body.as_ref().filter(|_| include_raw);
        let data_with_raw = raw.map(|body| with_raw(&change.data, body));
        Self { change, body, data_with_raw }
    }

    /// 32 hexadecimal digits.
    pub fn id(&self) -> String {
        self.change.id.to_string()
    }

    /// The attribute `source`.
    pub fn source(&self) -> String {
        format!("/receiptd/{}", self.change.source)
    }

    /// The attribute `type`.
    pub fn event_type(&self) -> &'static str {
        match self.change.what {
            What::Status => "receiptd.status",
            What::Message => "receiptd.message",
            What::Complaint => "receiptd.complaint",
            What::ReturnedLetter => "receiptd.returned-letter",
            What::Overdue => "receiptd.overdue",
            What::Unrecognised => "receiptd.unrecognised",
        }
    }

    /// The attribute `subject`.
    pub fn subject(&self) -> Option<&str> {
        self.change.subject_id.as_deref()
    }

    /// Changes with the same text must reach a consumer in order; no two notifications share one.
    pub fn ordering_key(&self) -> String {
        let subject = self.subject().map_or_else(|| self.id(), str::to_owned);
        format!("{}/{subject}", self.change.source)
    }

    /// The attribute `time`.
    pub fn time(&self) -> Timestamp {
        self.change.received_at
    }

    /// The data: a JSON object.
    pub fn data(&self) -> &str {
        self.data_with_raw.as_deref().unwrap_or(&self.change.data)
    }

    /// The whole event as one JSON object, of media type [`STRUCTURED`].
    pub fn structured(&self) -> Vec<u8> {
        let (id, source) = (self.id(), self.source());
        let data: &RawValue = serde_json::from_str(self.data()).expect("we wrote it as JSON");
        let event = Structured {
            specversion: SPEC_VERSION,
            id: &id,
            source: &source,
            r#type: self.event_type(),
            subject: self.subject(),
            time: self.time(),
            datacontenttype: DATA,
            data,
        };
        serde_json::to_vec(&event).expect("text is JSON")
    }

    /// Every attribute but `datacontenttype` by name, for bindings that carry them beside the data.
    pub fn attributes(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("specversion", SPEC_VERSION.to_owned()),
            ("id", self.id()),
            ("source", self.source()),
            ("type", self.event_type().to_owned()),
            ("time", self.time().to_string()),
        ];
        all.extend(self.subject().map(|subject| ("subject", subject.to_owned())));
        all
    }
}

/// The data with one more member: `raw`, the callback as text, or `raw_base64` if it is none.
fn with_raw(data: &str, body: &[u8]) -> String {
    let (name, text) = match std::str::from_utf8(body) {
        Ok(text) => ("raw", text.to_owned()),
        Err(_) => ("raw_base64", data_encoding::BASE64.encode(body)),
    };
    let open = data.strip_suffix('}').expect("the data is a JSON object");
    let text = serde_json::to_string(&text).expect("text is JSON");
    format!("{open},\"{name}\":{text}}}")
}
