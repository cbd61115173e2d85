//! Whether what came of a life is what should have.

use serde::Serialize;

use super::demo_scenario::{Fate, Life, Outcome};
use super::output::counted;

/// A life that has been played.
#[derive(Debug)]
pub struct Verdict {
    /// Its place in the scenario, from 1.
    pub number: usize,
    /// The life.
    pub life: &'static Life,
    /// What is settled about its message.
    pub outcome: Outcome,
    /// What is not as expected, a sentence each; empty if all is well.
    pub differences: Vec<String>,
}

impl Verdict {
    /// Compares what was seen with what the scenario expects.
    pub fn of(number: usize, life: &'static Life, fates: &[Fate], outcome: Outcome) -> Self {
        let expected: Vec<Fate> = life.callbacks.iter().map(|post| post.fate).collect();
        let mut differences = fate_differences(&expected, fates);
        if outcome != life.outcome {
            let (expected, found) = (describe(&life.outcome), describe(&outcome));
            differences.push(format!("settled: expected {expected}, found {found}"));
        }
        Self { number, life, outcome, differences }
    }

    /// Whether every answer and the state are as expected.
    pub fn is_as_expected(&self) -> bool {
        self.differences.is_empty()
    }
}

fn fate_differences(expected: &[Fate], found: &[Fate]) -> Vec<String> {
    let mut differences: Vec<String> = expected
        .iter()
        .zip(found)
        .zip(1..)
        .filter(|((expected, found), _)| expected != found)
        .map(|((expected, found), number)| {
            format!("callback {number}: expected {}, found {}", fate(*expected), fate(*found))
        })
        .collect();
    if expected.len() != found.len() {
        let (expected, found) = (expected.len(), found.len());
        differences.push(format!("expected {expected} answers, found {found}"));
    }
    differences
}

/// `204, kept`.
pub fn fate(fate: Fate) -> String {
    let Fate { answer, kept } = fate;
    let word = match (answer, kept) {
        (_, true) => "kept",
        (200..300, false) => "not kept",
        (_, false) => "refused",
    };
    format!("{answer}, {word}")
}

/// An outcome in one line, complete.
fn describe(outcome: &Outcome) -> String {
    let also = match outcome {
        Outcome::Notification { receipts, duplicates, .. } => {
            format!(" ({}, {duplicates} repeated)", counted(receipts, "receipt"))
        }
        Outcome::Message { text } => format!(" ({text})"),
        Outcome::Unrecognised | Outcome::Nothing => String::new(),
    };
    format!("{}{also}", state(outcome))
}

/// An outcome in a few words.
pub fn state(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Notification { status, complained, returned, .. } => {
            let status = status.as_deref().unwrap_or("no status");
            let facts = [(*complained, "complaint"), (*returned, "returned")];
            let facts = facts.into_iter().filter(|(is_so, _)| *is_so).map(|(_, word)| word);
            [status].into_iter().chain(facts).collect::<Vec<_>>().join(", ")
        }
        Outcome::Message { .. } => "received message".to_owned(),
        Outcome::Unrecognised => "unrecognised".to_owned(),
        Outcome::Nothing => "nothing kept".to_owned(),
    }
}

/// What programs are told of a life.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    life: &'a str,
    source: &'a str,
    id: String,
    answers: &'a [Fate],
    settled: &'a Outcome,
    as_expected: bool,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    differences: &'a [String],
}

impl<'a> Line<'a> {
    /// The line of this verdict.
    pub fn of(verdict: &'a Verdict, fates: &'a [Fate]) -> Self {
        let Verdict { number, life, outcome, differences } = verdict;
        Self {
            life: life.title,
            source: life.sender.source,
            id: super::demo_body::message_id(*number),
            answers: fates,
            settled: outcome,
            as_expected: verdict.is_as_expected(),
            differences,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::demo_scenario::LIVES;
    use super::*;

    fn expected(life: &Life) -> Vec<Fate> {
        life.callbacks.iter().map(|post| post.fate).collect()
    }

    #[test]
    fn a_life_that_went_as_expected_has_no_differences() {
        for life in LIVES {
            let verdict = Verdict::of(1, life, &expected(life), life.outcome.clone());
            assert_eq!(verdict.differences, Vec::<String>::new());
            assert!(verdict.is_as_expected());
        }
    }

    #[test]
    fn any_other_answer_is_a_difference() {
        let life = &LIVES[0];
        let mut fates = expected(life);
        fates[1] = Fate { answer: 503, kept: false };
        let verdict = Verdict::of(1, life, &fates, life.outcome.clone());
        assert!(!verdict.is_as_expected());
        assert_eq!(verdict.differences, ["callback 2: expected 204, kept, found 503, refused"]);
        fates.pop();
        let verdict = Verdict::of(1, life, &fates, life.outcome.clone());
        assert_eq!(verdict.differences, ["expected 2 answers, found 1"]);
    }

    #[test]
    fn a_callback_acknowledged_but_not_kept_is_a_difference() {
        let life = &LIVES[0];
        let mut fates = expected(life);
        fates[0].kept = false;
        assert!(!Verdict::of(1, life, &fates, life.outcome.clone()).is_as_expected());
    }

    #[test]
    fn the_outcome_of_any_other_life_is_a_difference() {
        for life in LIVES {
            for other in LIVES.iter().filter(|other| other.outcome != life.outcome) {
                let verdict = Verdict::of(1, life, &expected(life), other.outcome.clone());
                assert_eq!(verdict.differences.len(), 1, "{} {}", life.title, other.title);
                let difference = &verdict.differences[0];
                let (left, right) = difference
                    .strip_prefix("settled: expected ")
                    .and_then(|rest| rest.split_once(", found "))
                    .expect("both are told");
                assert_ne!(left, right, "the difference must be visible");
            }
        }
    }
}
