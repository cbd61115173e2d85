//! What reading a configuration leaves behind: problems, warnings, and every value in force.
//!
//! Reading goes on after a problem, so that one run tells all of them. A reader that cannot give a
//! value gives [`Reported`] instead. Only [`Report::problem`] makes one, so "no settings and no
//! problem either" cannot happen.

use super::problem::{Origin, Problem, Warning};

/// Proof that a problem was recorded; stands in for the value that could not be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported(());

/// The value of a key, or proof that its problem is on record.
pub(super) type Checked<T> = Result<T, Reported>;

/// A setting and where its value came from.
#[derive(Clone, Debug)]
pub(super) struct At {
    /// As in [`Problem::key`].
    pub(super) key: String,
    /// Of the value.
    pub(super) origin: Origin,
}

/// A value that was read, with where it was read.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) at: At,
}

/// A value in force, for `config show`.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// As in [`Problem::key`].
    pub key: String,
    /// Text, number or truth value; a digest is cut to its first digits.
    pub value: serde_json::Value,
    /// The layer that won.
    pub origin: Origin,
}

/// What has been noticed so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) problems: Vec<Problem>,
    /// What does not keep a receiver from starting.
    pub(super) not_yet: Vec<Problem>,
    pub(super) warnings: Vec<Warning>,
    pub(super) effective: Vec<Effective>,
}

impl Report {
    /// Records a problem without a hint.
    pub(super) fn problem(
        &mut self,
        at: &At,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Reported {
        self.problem_hinted(at, found, expected, None)
    }

    /// Records a problem and what to do about it, if that is known.
    pub(super) fn problem_hinted(
        &mut self,
        at: &At,
        found: impl Into<String>,
        expected: impl Into<String>,
        hint: Option<String>,
    ) -> Reported {
        self.problems.push(Problem {
            key: at.key.clone(),
            origin: at.origin.clone(),
            found: found.into(),
            expected: expected.into(),
            hint,
        });
        Reported(())
    }

    /// Records what does not work today, but may be mended while a receiver runs.
    pub(super) fn not_yet(
        &mut self,
        at: &At,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) {
        self.not_yet.push(Problem {
            key: at.key.clone(),
            origin: at.origin.clone(),
            found: found.into(),
            expected: expected.into(),
            hint: None,
        });
    }

    /// Records something that works today but deserves a look.
    pub(super) fn warning(&mut self, at: &At, message: impl Into<String>) {
        let (key, origin) = (at.key.clone(), at.origin.clone());
        self.warnings.push(Warning { key, origin, message: message.into() });
    }

    /// Records a value in force.
    pub(super) fn effective(&mut self, at: &At, value: impl Into<serde_json::Value>) {
        let (key, origin) = (at.key.clone(), at.origin.clone());
        self.effective.push(Effective { key, value: value.into(), origin });
    }
}

/// The known word that was probably meant, as a hint.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    /// Below this two words are merely both words; 1 is equality.
    const SIMILARITY_MIN: f64 = 0.7;
    let close = known
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(word, candidate), candidate));
    close
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}
