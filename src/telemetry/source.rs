//! What the front door counts of one source.

use std::sync::{Arc, OnceLock, PoisonError};

use prometheus_client::metrics::counter::Counter;

use super::recent::Recent;
use super::{ByAnswer, ByReason, BySource, ByToken, Metrics, Seconds, seconds};
use crate::clock::Timestamp;
use crate::receive::answer::Answer;
use crate::receive::refusal::Reason;

/// The handles of one source, resolved once.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    pub(super) name: String,
    pub(super) kept: Counter,
    pub(super) probed: Counter,
    /// Not on the page before there is one: 0 would say that there has been none for decades.
    pub(super) last_callback: OnceLock<Seconds>,
    pub(super) unwell: Arc<Recent>,
    pub(super) all: Arc<Metrics>,
}

impl Metrics {
    /// The handles of one source. Every count of it is there from now on: an increase of one that appears
    /// with its first value is never seen, and the first receipt that is refused would raise no alert.
    pub fn source(self: &Arc<Self>, name: &str) -> SourceMetrics {
        self.configured.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        let by = BySource { source: name.to_owned() };
        let gone = self.gone.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(last) = gone {
            self.last_callback_of(name).set(last);
        }
        self.settling.begin(name);
        for code in Answer::CODES_AT_A_SOURCE {
            drop(self.answers.get_or_create(&ByAnswer { source: name.to_owned(), code }));
        }
        for reason in Reason::ALL {
            let by = ByReason { source: name.to_owned(), reason: reason.as_str() };
            drop(self.refusals.get_or_create(&by));
        }
        SourceMetrics {
            kept: self
                .answers
                .get_or_create_owned(&ByAnswer { source: name.to_owned(), code: 204 }),
            probed: self.probes.get_or_create_owned(&by),
            last_callback: OnceLock::new(),
            unwell: self.expectation.recent(name),
            name: name.to_owned(),
            all: Arc::clone(self),
        }
    }

    /// The counts of requests that belong to no source, which are as few whatever their paths are.
    pub(super) fn begin_strangers(&self) {
        for code in Answer::CODES_ELSEWHERE {
            drop(self.answers.get_or_create(&ByAnswer { source: String::new(), code }));
        }
    }

    /// That source last called back then, before this start.
    pub fn called_back_before(&self, source: &str, at: Timestamp) {
        self.last_callback_of(source).set(seconds(at));
    }

    /// That source is not configured any more. When it last called back would be longer ago for ever; it is
    /// remembered for when the source comes back.
    pub fn source_gone(&self, source: &str) {
        self.configured.write().unwrap_or_else(PoisonError::into_inner).remove(source);
        let by = BySource { source: source.to_owned() };
        let last = self.last_callback.get(&by).map(|last| last.get());
        self.last_callback.remove(&by);
        if let Some(last) = last {
            let mut gone = self.gone.write().unwrap_or_else(PoisonError::into_inner);
            gone.insert(source.to_owned(), last);
        }
    }

    /// Whether that source is configured now.
    pub fn is_configured(&self, source: &str) -> bool {
        self.configured.read().unwrap_or_else(PoisonError::into_inner).contains(source)
    }

    fn last_callback_of(&self, source: &str) -> Seconds {
        self.last_callback.get_or_create_owned(&BySource { source: source.to_owned() })
    }
}

impl SourceMetrics {
    /// A callback was kept.
    pub fn kept(&self, at: Timestamp) {
        self.kept.inc();
        self.last_callback.get_or_init(|| self.last_callback_if_there()).set(seconds(at));
    }

    /// Of a source that a reload removed while it called back, one that is on no page.
    fn last_callback_if_there(&self) -> Seconds {
        let is_there = self.all.is_configured(&self.name);
        if is_there { self.all.last_callback_of(&self.name) } else { Seconds::default() }
    }

    /// A probe was answered: no callback, and no sign that the source would still send one.
    pub fn probed(&self) {
        self.probed.inc();
    }

    /// A request was answered otherwise.
    pub fn answered(&self, code: u16) {
        self.all.answers.get_or_create(&ByAnswer { source: self.name.clone(), code }).inc();
    }

    /// An answer was such as gets callbacks suspended.
    pub fn unwell(&self, at: Timestamp) {
        self.unwell.note(at);
    }

    /// A request was refused for its credentials.
    pub fn refused(&self, reason: &'static str) {
        self.all.refusals.get_or_create(&ByReason { source: self.name.clone(), reason }).inc();
    }

    /// A token that has a last day was presented.
    pub fn retiring_token_used(&self, token: &str, at: Timestamp) {
        let by = ByToken { source: self.name.clone(), token: token.to_owned() };
        self.all.token_used.get_or_create(&by).set(seconds(at));
    }
}
