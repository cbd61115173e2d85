//! What the log is told of rounds: once what is wrong, until that is over or something else is; and what
//! a round has healed.
//!
//! No word of the platform's and no value of ours gets there: a notification is named by its id, and only
//! if that is a UUID.

use std::sync::Arc;

use super::round::{Ended, Report};

/// What it was told of one source.
#[derive(Debug)]
pub struct Told {
    source: Arc<str>,
    failure: Option<String>,
    unreadable: Vec<String>,
}

impl Told {
    /// Nothing yet.
    pub fn new(source: Arc<str>) -> Self {
        Self { source, failure: None, unreadable: Vec::new() }
    }

    /// Tells what a round came to.
    pub fn tell(&mut self, report: &Report, ended: Result<(), Ended>) {
        let source = &*self.source;
        let [status, notification, text, version] = report.healed;
        if report.healed.iter().any(|healed| *healed > 0) {
            let requests = report.requests;
            tracing::info!(
                source,
                status,
                notification,
                text,
                version,
                requests,
                "the platform told what had not come"
            );
        }
        if report.cut_instants > 0 {
            let instants = report.cut_instants;
            tracing::warn!(
                source,
                instants,
                "more were created in an instant than a page shows; some may not have been seen"
            );
        }
        self.tell_of_unreadable(report);
        self.tell_of_failure(ended);
    }

    fn tell_of_unreadable(&mut self, report: &Report) {
        let unreadable = &report.unreadable;
        if unreadable.count > 0 && unreadable.named != self.unreadable {
            tracing::warn!(
                source = &*self.source,
                unreadable = unreadable.count,
                which = unreadable.named.join(", "),
                "the platform told what could not be understood; it is asked for again"
            );
        }
        self.unreadable.clone_from(&unreadable.named);
    }

    fn tell_of_failure(&mut self, ended: Result<(), Ended>) {
        let source = &*self.source;
        let failure = match ended {
            Ok(()) | Err(Ended::Stopped | Ended::Partial(_)) => None,
            Err(ended) => Some(ended.to_string()),
        };
        match &failure {
            Some(error) if failure != self.failure => {
                tracing::warn!(
                    source,
                    error,
                    "a round of reconciling could not ask for everything; more will follow"
                );
            }
            None if self.failure.is_some() => {
                tracing::info!(source, "the platform can be asked again");
            }
            _ => {}
        }
        self.failure = failure;
    }
}
