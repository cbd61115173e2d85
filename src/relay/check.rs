//! Whether sinks alone can keep what sources bring: asked before anything is received.
//!
//! In forwarding, a filter that leaves something out costs nothing: the journal has it. Here it would
//! be answered 2xx and be gone. So for every source, and every kind of change it can bring, there
//! must be a sink that takes all of them, whatever their status. Who really wants to lose a kind can
//! do so where it is read, knowingly.

use std::sync::Arc;

use crate::change::{Filter, What};
use crate::config::settings::{Sink, Source, To};

/// Why a configuration does not do for a receiver that keeps nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There is nothing to keep a source in that is made at the start, and its token.
    #[error("nothing is kept, so a source must be configured")]
    NoSource,
    /// There is nobody to pass anything on to.
    #[error("nothing is kept, so a sink must be configured")]
    NoSink,
    /// What it takes is gone.
    #[error("nothing is kept, and sink {sink}, standard output, keeps nothing either")]
    NotDurable {
        /// Its name.
        sink: Arc<str>,
    },
    /// No sink takes all changes of these kinds from that source.
    #[error("nothing is kept, and no sink takes every {} of source {from}", words(.kinds))]
    Uncovered {
        /// The source.
        from: Arc<str>,
        /// The kinds; never empty.
        kinds: Vec<What>,
    },
    /// A file that a sink needs, say.
    #[error("failed to open the sink {sink}: {why}")]
    Unusable {
        /// Its name.
        sink: Arc<str>,
        /// A sentence for the operator.
        why: String,
    },
}

/// All that keeps these sinks from standing in for a store of these sources.
pub fn check(sinks: &[Sink], sources: &[Source]) -> Vec<Problem> {
    let mut problems = Vec::new();
    if sources.is_empty() {
        problems.push(Problem::NoSource);
    }
    if sinks.is_empty() {
        problems.push(Problem::NoSink);
        return problems;
    }
    let forgetful = sinks.iter().filter(|sink| matches!(sink.to, To::Stdout));
    problems.extend(forgetful.map(|sink| Problem::NotDurable { sink: Arc::clone(&sink.name) }));
    let filters: Vec<&Filter> = sinks.iter().map(|sink| &sink.filter).collect();
    problems.extend(uncovered(&filters, sources));
    problems
}

/// What of these sources no sink with these filters takes.
pub(super) fn uncovered(filters: &[&Filter], sources: &[Source]) -> Vec<Problem> {
    let is_open = |source: &str, what| !filters.iter().any(|f| f.takes_all(source, what));
    let of = |source: &Source| {
        let kinds = What::CALLED_BACK.into_iter().filter(|what| is_open(&source.name, *what));
        Problem::Uncovered { from: Arc::clone(&source.name), kinds: kinds.collect() }
    };
    let has_any = |problem: &Problem| !matches!(problem, Problem::Uncovered { kinds, .. } if kinds.is_empty());
    sources.iter().map(of).filter(has_any).collect()
}

fn words(kinds: &[What]) -> String {
    let words: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Credentials;
    use crate::provider::Provider;

    fn source(name: &str, provider: Provider) -> Source {
        Source {
            name: Arc::from(name),
            dialect: provider.into(),
            path: format!("/callbacks/{name}"),
            credentials: Credentials::default(),
            upstream: None,
            readers: Vec::new(),
        }
    }

    fn open(filters: &[Filter]) -> Vec<(String, Vec<What>)> {
        let sources = [source("a", Provider::GcNotify), source("j", Provider::Ajo)];
        let all =
            uncovered(&filters.iter().collect::<Vec<_>>(), &sources).into_iter().map(|problem| {
                match problem {
                    Problem::Uncovered { from, kinds } => (from.to_string(), kinds),
                    other => panic!("{other}"),
                }
            });
        all.collect()
    }

    #[test]
    fn one_sink_without_filters_takes_everything() {
        assert_eq!(open(&[Filter::default()]), []);
    }

    #[test]
    fn a_filter_on_statuses_leaves_the_other_statuses_open() {
        let statuses = Some(vec!["permanent-failure".to_owned()]);
        let failures = Filter { statuses, ..Filter::default() };
        let expected = [("a".to_owned(), vec![What::Status]), ("j".to_owned(), vec![What::Status])];
        assert_eq!(open(std::slice::from_ref(&failures)), expected);
        assert_eq!(open(&[failures, Filter::default()]), []);
    }

    #[test]
    fn several_sinks_may_take_everything_together() {
        let only = |sources: &[&str], kinds: &[What]| Filter {
            sources: Some(sources.iter().map(|&source| source.to_owned()).collect()),
            kinds: Some(kinds.to_vec()),
            statuses: None,
        };
        let known = only(&["a", "j"], &What::ALL[..4]);
        let rest = only(&["a"], &[What::Unrecognised]);
        let expected = [("j".to_owned(), vec![What::Unrecognised])];
        assert_eq!(open(&[known.clone(), rest.clone()]), expected);
        assert_eq!(open(&[known, rest, only(&["j"], &[What::Unrecognised])]), []);
    }

    #[test]
    fn nobody_to_hear_from_and_nobody_to_tell_are_problems() {
        assert_eq!(check(&[], &[]), [Problem::NoSource, Problem::NoSink]);
    }
}
