//! What a sink wants to hear of: sources, kinds, statuses. What is not there is everything.

use super::report::{At, Checked, Found, Report, did_you_mean};
use super::section::{Section, quoted};
use crate::change::{Filter, What};
use crate::provider::notify::is_known_status;

/// Words for "did you mean". The set of statuses is open, so none is ever refused.
const STATUSES: [&str; 17] = [
    "created",
    "sending",
    "pending",
    "sent",
    "delivered",
    "failed",
    "temporary-failure",
    "permanent-failure",
    "technical-failure",
    "provider-failure",
    "pii-check-failed",
    "pending-virus-check",
    "virus-scan-failed",
    "validation-failed",
    "validation-failure",
    "cancelled",
    "returned-letter",
];

/// Reads the filter of one sink. `known`: the names of all sources.
pub(super) fn read(
    section: &mut Section<'_>,
    known: &[String],
    report: &mut Report,
) -> Checked<Filter> {
    let sources = words(section, "sources", report);
    let sources =
        sources.and_then(|names| names.map(|names| source_names(names, known, report)).transpose());
    let kinds = words(section, "kinds", report);
    let kinds = kinds.and_then(|words| words.map(|words| whats(words, report)).transpose());
    let statuses = words(section, "statuses", report);
    let filter = Filter {
        sources: sources?,
        kinds: kinds?,
        statuses: statuses?.map(|words| statuses_of(words, report)),
    };
    let is_status_wanted = filter.kinds.as_ref().is_none_or(|kinds| kinds.contains(&What::Status));
    if filter.statuses.is_some() && !is_status_wanted {
        let at = section.at_key("statuses");
        report.warning(&at, "it says nothing, because `kinds` does not hold \"status\"");
    }
    Ok(filter)
}

/// A list of words, each with its place, and all of them among the values in force.
fn words(
    section: &mut Section<'_>,
    name: &'static str,
    report: &mut Report,
) -> Checked<Option<Vec<Found<String>>>> {
    let at = section.at_key(name);
    let found = section.quiet_texts(name, report)?;
    if let Some(found) = &found {
        let words: Vec<&str> = found.iter().map(|found| found.value.as_str()).collect();
        report.effective(&at, words);
    }
    Ok(found)
}

fn source_names(
    names: Vec<Found<String>>,
    known: &[String],
    report: &mut Report,
) -> Checked<Vec<String>> {
    each(names, report, |Found { value, at }, report| {
        if known.contains(&value) {
            return Ok(value);
        }
        let hint = did_you_mean(&value, known.iter().map(String::as_str));
        let expected = format!("the name of a [[source]]: {}", known.join(", "));
        Err(report.problem_hinted(&at, quoted(&value), expected, hint))
    })
}

fn whats(words: Vec<Found<String>>, report: &mut Report) -> Checked<Vec<What>> {
    each(words, report, |Found { value, at }, report| {
        What::from_word(&value).ok_or_else(|| {
            let known = What::ALL.map(What::as_str);
            let hint = did_you_mean(&value.to_lowercase(), known);
            let expected = format!("one of {}", known.join(", "));
            report.problem_hinted(&at, quoted(&value), expected, hint)
        })
    })
}

fn statuses_of(words: Vec<Found<String>>, report: &mut Report) -> Vec<String> {
    let read = words.into_iter().map(|Found { value, at }| {
        if !is_known_status(&value) {
            unknown_status(&value, &at, report);
        }
        value
    });
    read.collect()
}

fn unknown_status(word: &str, at: &At, report: &mut Report) {
    let hint = did_you_mean(&word.to_lowercase(), STATUSES);
    let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    let message = format!("{} is no status that any platform is known to use{hint}", quoted(word));
    report.warning(at, message);
}

/// Reads each, and all of them before any problem counts.
fn each<T>(
    items: Vec<Found<String>>,
    report: &mut Report,
    read: impl Fn(Found<String>, &mut Report) -> Checked<T>,
) -> Checked<Vec<T>> {
    let read: Vec<Checked<T>> = items.into_iter().map(|item| read(item, report)).collect();
    read.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_that_is_suggested_is_known() {
        for word in STATUSES {
            assert!(is_known_status(word), "{word}");
        }
    }
}
