//! What the front door counts of one source.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use super::recent::Recent;
use super::{ByAnswer, ByReason, ByToken, Metrics, Seconds, seconds};
use crate::clock::Timestamp;

/// The handles of one source, resolved once.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    pub(super) name: String,
    pub(super) kept: Counter,
    pub(super) last_callback: Seconds,
    pub(super) unwell: Arc<Recent>,
    pub(super) all: Arc<Metrics>,
}

impl SourceMetrics {
    /// A callback was kept, or a probe answered.
    pub fn kept(&self, at: Timestamp) {
        self.kept.inc();
        self.last_callback.set(seconds(at));
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
