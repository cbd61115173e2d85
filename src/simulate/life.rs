//! What happens to one message, and what is called back about it.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::callback::Kind;

/// One message: every callback about it, and what it truly came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Life {
    /// In the order in which the platform queues them: by `after`.
    pub callbacks: Vec<Planned>,
    /// What the platform knows in the end.
    pub truth: Truth,
}

/// A callback that the platform will send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When it is queued, in the platform's time since the simulation began.
    pub after: Duration,
    /// What kind of news it is.
    pub kind: Kind,
    /// The bytes of the body, as the platform writes them.
    pub body: Bytes,
}

/// What a message came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Truth {
    /// A notification, with the keys that `replay --expect` knows; `id` is always there.
    Notification(Map<String, Value>),
    /// A received text message: `id`, `source_number`, `destination_number`, `message`,
    /// `date_received`.
    Message(Map<String, Value>),
    /// Nothing is called back about it.
    Silent,
}
