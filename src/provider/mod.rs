//! What each sender's bytes mean.
//!
//! [`read`] turns the body of one authentic callback into events, or says why it cannot. It is
//! total: any bytes give a [`Reading`]; it never panics, never does I/O, knows no SQL and no HTTP
//! types. Only what is interpreted is decoded; the rest stays borrowed raw text, so what we do not
//! read can do no harm. A reason names keys and shapes, never values: it may be logged.
//!
//! One parser serves the Notify family ([`notify`]): its platforms differ in their keys, and a
//! receipt is read by its keys alone. What these platforms say when they are asked has other keys
//! and is read by [`polled`]. Adobe Journey Optimizer has its own ([`ajo`]). A further sender is one
//! file here, one arm in [`read`], one fixture folder. Which statuses are ends stands in [`ends`].

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::callback::{Event, Origin};

mod json;

pub mod notify;

mod signature;

pub mod polled;

pub mod ajo;

mod feedback;

pub mod ends;

/// More events than this in one callback are unrecognised. Part of the state file's format: the
/// key of a notification holds the position of its first event in 14 bits.
pub const CALLBACK_EVENTS_MAX: usize = 1 << 14;

/// Whose wire format it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Any platform of the Notify family.
    Notify,
    /// GC Notify, Canada.
    GcNotify,
    /// GOV.UK Notify.
    GovukNotify,
    /// US Notify.gov.
    UsNotify,
    /// VA Notify.
    VaNotify,
    /// NotifyNL.
    NotifyNl,
    /// Adobe Journey Optimizer.
    Ajo,
}

impl Provider {
    /// Every provider, in the order of the documentation.
    pub const ALL: [Self; 7] = [
        Self::Notify,
        Self::GcNotify,
        Self::GovukNotify,
        Self::UsNotify,
        Self::VaNotify,
        Self::NotifyNl,
        Self::Ajo,
    ];

    /// The word in configuration, tables and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Notify => "notify",
            Self::GcNotify => "gc-notify",
            Self::GovukNotify => "govuk-notify",
            Self::UsNotify => "us-notify",
            Self::VaNotify => "va-notify",
            Self::NotifyNl => "notify-nl",
            Self::Ajo => "ajo",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// No provider has that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of notify, gc-notify, govuk-notify, us-notify, va-notify, notify-nl and ajo")]
pub struct UnknownProvider;

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(word: &str) -> Result<Self, UnknownProvider> {
        Self::ALL.into_iter().find(|provider| provider.as_str() == word).ok_or(UnknownProvider)
    }
}

/// What must be known of a source to understand its callbacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// Whose wire format it is.
    pub provider: Provider,
    /// Adobe only: any other `imsOrg` is unrecognised.
    pub ims_org: Option<String>,
    /// Adobe only: any other `sandbox.name` is unrecognised.
    pub sandbox: Option<String>,
}

impl From<Provider> for Dialect {
    fn from(provider: Provider) -> Self {
        Self { provider, ims_org: None, sandbox: None }
    }
}

/// Why a callback, or a part of one, could not be understood: a short sentence fragment that names
/// keys and shapes, never values.
pub type Reason = Cow<'static, str>;

/// What a body says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The events understood, in the order they stand in the body.
    pub events: Vec<Event>,
    /// Set if anything in the body was not understood, even where other events were.
    pub unrecognised: Option<Reason>,
}

impl Reading {
    /// Nothing understood.
    pub fn unrecognised(reason: impl Into<Reason>) -> Self {
        Self { events: Vec::new(), unrecognised: Some(reason.into()) }
    }
}

/// Reads the body of one authentic callback.
pub fn read(dialect: &Dialect, body: &[u8]) -> Reading {
    match dialect.provider {
        Provider::Ajo => ajo::read(dialect, body),
        _ => notify::read(body),
    }
}

/// Reads the body of one entry of the journal, by how it came to us.
pub fn read_entry(dialect: &Dialect, origin: Origin, body: &[u8]) -> Reading {
    match origin {
        Origin::CalledBack => read(dialect, body),
        Origin::Polled => polled::read(body),
        Origin::Expected => Reading::unrecognised("what an app says it sent is no callback"),
        Origin::Overdue => Reading::unrecognised("what is overdue is no callback"),
    }
}

/// Whether this body is the reachability probe of the provider's set-up form: answered, not kept.
pub fn is_probe(provider: Provider, body: &[u8]) -> bool {
    matches!(provider, Provider::Notify | Provider::GcNotify) && notify::is_probe(body)
}
