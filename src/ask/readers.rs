//! Who may ask: the configured readers, told apart by what they show. Replaced whole on reload.
//!
//! Whoever shows no right key is told the same whoever may ask, and even if nobody may: what is wrong is
//! found out from what was shown, or it is that no reader has such a key.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::header::HeaderMap;
use jsonwebtoken::DecodingKey;
use uuid::Uuid;

use super::fault::{Fault, Voice};
use super::token::{Jwt, Shown, is_secret};
use crate::clock::Timestamp;
use crate::config::settings::{Secret, Source};
use crate::provider::Provider;

/// One API key, and what it may see.
pub(super) struct Reader {
    /// The source whose messages it sees.
    pub(super) source: Arc<str>,
    /// Whose answers it expects.
    pub(super) provider: Provider,
    /// The service of its key.
    pub(super) service: Uuid,
    secret: Secret,
    key: DecodingKey,
}

impl Reader {
    /// Whose sentences it expects.
    pub(super) fn voice(&self) -> Voice {
        match self.provider {
            Provider::GcNotify => Voice::Gc,
            _ => Voice::Govuk,
        }
    }

    /// Whether it may show its key as it is. Only one platform takes that; `notify` may be it.
    fn shows_key(&self) -> bool {
        matches!(self.provider, Provider::GcNotify | Provider::Notify)
    }
}

/// All readers.
#[derive(Default)]
pub(super) struct Readers {
    all: Vec<Arc<Reader>>,
    /// Whether the log says that there are none and somebody asks.
    is_told: AtomicBool,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|reader| &reader.source)).finish()
    }
}

impl Readers {
    /// Those of these sources.
    pub(super) fn new(sources: &[Source]) -> Self {
        let all = sources.iter().flat_map(|source| {
            source.readers.iter().filter_map(|reader| {
                Some(Arc::new(Reader {
                    source: Arc::clone(&source.name),
                    provider: source.dialect.provider,
                    // It was checked when it was configured.
                    service: Uuid::try_parse(&reader.service_id).ok()?,
                    secret: reader.secret.clone(),
                    key: DecodingKey::from_secret(&reader.secret.0),
                }))
            })
        });
        Self { all: all.collect(), is_told: AtomicBool::new(false) }
    }

    /// Whether nobody may ask.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many sources they see.
    pub(super) fn sources(&self) -> usize {
        self.all.iter().map(|reader| &reader.source).collect::<HashSet<_>>().len()
    }

    /// Whether that one is still among them.
    pub(super) fn has(&self, reader: &Reader) -> bool {
        let is_it = |known: &Arc<Reader>| {
            (&known.source, known.service) == (&reader.source, reader.service)
                && is_secret(&known.secret.0, &reader.secret)
        };
        self.all.iter().any(is_it)
    }

    /// The reader that shows itself in the head of a request which arrived at `now`.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Arc<Reader>, Fault> {
        if self.is_empty() && !self.is_told.swap(true, Ordering::Relaxed) {
            // For the operator alone: the answer says what it would say beside any readers.
            tracing::warn!("somebody asks, and nobody may: no [[source.reader]] is configured");
        }
        match Shown::of(headers)? {
            Shown::Jwt(jwt) => self.signed(&jwt, now),
            Shown::ApiKey { service, secret } => self.showing(service, secret),
        }
    }

    /// Every key is tried, whatever service the token names: the time taken tells nothing of which
    /// services there are.
    fn signed(&self, jwt: &Jwt<'_>, now: Timestamp) -> Result<Arc<Reader>, Fault> {
        let mut found = None;
        for reader in &self.all {
            let is_signed = jwt.is_signed_with(&reader.key);
            if is_signed & (jwt.service == Some(reader.service)) {
                found = Some(Arc::clone(reader));
            }
        }
        let reader = found.ok_or(Fault::UnknownKey)?;
        jwt.is_of(now).map(|()| reader)
    }

    fn showing(&self, service: Option<Uuid>, secret: &[u8]) -> Result<Arc<Reader>, Fault> {
        let mut found = None;
        for reader in self.all.iter().filter(|reader| reader.shows_key()) {
            let is_service = service.is_none_or(|service| service == reader.service);
            if is_secret(secret, &reader.secret) & is_service {
                found = Some(Arc::clone(reader));
            }
        }
        found.ok_or(Fault::UnknownKey)
    }
}
