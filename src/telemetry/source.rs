//! What the front door counts of one source.

use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;

use super::recent::Recent;
use super::{ByAnswer, ByReason, BySource, ByToken, Metrics, Seconds, seconds};
use crate::clock::Timestamp;

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
    /// That source last called back then, before this start.
    pub fn called_back_before(&self, source: &str, at: Timestamp) {
        self.last_callback_of(source).set(seconds(at));
    }

    fn last_callback_of(&self, source: &str) -> Seconds {
        self.last_callback.get_or_create_owned(&BySource { source: source.to_owned() })
    }
}

impl SourceMetrics {
    /// A callback was kept.
    pub fn kept(&self, at: Timestamp) {
        self.kept.inc();
        self.last_callback.get_or_init(|| self.all.last_callback_of(&self.name)).set(seconds(at));
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
