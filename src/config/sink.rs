//! Sinks: where changes are forwarded, what each wants to hear of, and how patient we are with it.
//!
//! The bounds of forwarding stand once, in `[forward]`, for every sink; a sink may set each of them
//! for itself. What a sink is, and where, is read by `sink_to`, what it wants to hear of by
//! `sink_filter`.
//!
//! Nothing is connected to here, but every file a sink names is read, so that a mistake in one shows
//! when someone is looking.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::check::one_of;
use super::document::{Kind, Table, Value};
use super::problem::Origin;
use super::report::{At, Checked, Found, Report};
use super::section::{Section, quoted};
use super::settings::{Deliver, Sink};
use super::sink_file::Taken;
use super::source::{is_name, item_section, name, only_once};
use super::{sink_file, sink_filter, sink_to};
use crate::change::What;
use crate::halves::DEFAULT_SOURCE;

/// The `kind` of `[store]` that keeps nothing.
pub(super) const NO_STORE: &str = "none";

/// The bounds that `[forward]` sets for all sinks and that a sink may set for itself, with the least
/// and the most each may be. 0 attempts is no bound.
const BOUNDS: [(&str, (u64, u64)); 6] = [
    ("attempt_ms_max", (1, 600_000)),
    ("attempts_max", (0, 1_000_000)),
    ("age_s_max", (1, 31_536_000)),
    ("backoff_ms_min", (1, 3_600_000)),
    ("backoff_ms_max", (1, 86_400_000)),
    ("in_flight_max", (1, 4_096)),
];

/// A value for each of [`BOUNDS`], in their order.
pub(super) type Numbers = [Found<u64>; BOUNDS.len()];

/// What the rest of the document says, as far as sinks must agree with it.
pub(super) struct Known {
    /// Every name that a source has, right or wrong; `default` if there is none.
    pub(super) sources: Vec<String>,
    /// Whether any source is configured.
    has_sources: bool,
    /// Where it says that nothing is kept, if it does.
    pub(super) no_store: Option<At>,
    /// The files it names.
    taken: Taken,
}

impl Known {
    /// Looks it up without judging it: the sections themselves are read elsewhere.
    pub(super) fn of(document: &Table) -> Self {
        let text = |table: &Table, key: &str| match table.find(key).map(|value| &value.kind) {
            Some(Kind::Text(text) | Kind::Raw(text)) => Some(text.clone()),
            _ => None,
        };
        let items: &[Value] = match document.find("source").map(|value| &value.kind) {
            Some(Kind::List(items)) => items,
            _ => &[],
        };
        let names = items.iter().filter_map(|item| match &item.kind {
            Kind::Table(table) => text(table, "name"),
            _ => None,
        });
        let mut sources: Vec<String> = names.collect();
        let has_sources = !items.is_empty();
        if !has_sources {
            sources.push(DEFAULT_SOURCE.to_owned());
        }
        let no_store = match document.find("store").map(|value| &value.kind) {
            Some(Kind::Table(store)) if text(store, "kind").as_deref() == Some(NO_STORE) => {
                let origin = store.find("kind").map(|value| value.origin.clone());
                Some(At { key: "store.kind".into(), origin: origin.unwrap_or(Origin::Default) })
            }
            _ => None,
        };
        Self { sources, has_sources, no_store, taken: Taken::of(document) }
    }
}

/// Reads `[forward]`.
pub(super) fn bounds(section: &mut Section<'_>, report: &mut Report) -> Checked<Numbers> {
    numbers(section, report, |_, _| unreachable!("every bound has a default"))
}

/// Reads every bound; one that is not there is what `otherwise` says.
fn numbers(
    section: &mut Section<'_>,
    report: &mut Report,
    otherwise: impl Fn(usize, &mut Report) -> Checked<Found<u64>>,
) -> Checked<Numbers> {
    let mut index = 0;
    let read = BOUNDS.map(|(name, range)| {
        let found = section.number(name, range, report).and_then(|found| match found {
            Some(found) => Ok(found),
            None => otherwise(index, report),
        });
        index += 1;
        found
    });
    let [attempt_ms_max, attempts_max, age_s_max, backoff_ms_min, backoff_ms_max, in_flight_max] =
        read;
    let (least, most) = (backoff_ms_min?, backoff_ms_max?);
    if least.value > most.value {
        let expected = format!("at most backoff_ms_max, which is {}", most.value);
        return Err(report.problem(&least.at, least.value.to_string(), expected));
    }
    Ok([attempt_ms_max?, attempts_max?, age_s_max?, least, most, in_flight_max?])
}

/// Reads every sink, and refuses two that could not be told apart.
pub(super) fn sinks(
    root: &mut Section<'_>,
    bounds: &Checked<Numbers>,
    known: &Known,
    report: &mut Report,
) -> Checked<Vec<Sink>> {
    let items = root.list("sink", report)?;
    let mut names = HashMap::new();
    let read: Vec<Checked<Found<Sink>>> = items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            let (at, table) = item_section("sink", "name", is_name, index, item, report)?;
            let sink = sink(Section::at(&at, table), &mut names, bounds, known, report)?;
            Ok(Found { value: sink, at })
        })
        .collect();
    let is_complete = read.iter().all(Result::is_ok);
    let found: Vec<Found<Sink>> = read.iter().flatten().cloned().collect();
    sink_file::alone(&found, &known.taken, report);
    if let Some(at) = &known.no_store
        && is_complete
    {
        everything_is_taken(at, &found, known, report);
    }
    read.into_iter().map(|sink| sink.map(|sink| sink.value)).collect()
}

fn sink(
    mut section: Section<'_>,
    names: &mut HashMap<String, Origin>,
    bounds: &Checked<Numbers>,
    known: &Known,
    report: &mut Report,
) -> Checked<Sink> {
    let name = name(&mut section, report);
    if let Ok(name) = &name {
        only_once(names, name, "a name no other sink has", report);
    }
    let filter = sink_filter::read(&mut section, &known.sources, report);
    let deliver = deliver(&mut section, known, report);
    let include_raw = or_false(&mut section, "include_raw", report);
    let own = own_numbers(&mut section, bounds, report);
    let to = sink_to::read(&mut section, known, report);
    section.finish(report);
    let (name, filter, deliver) = (name?, filter?, deliver?);
    let (include_raw, own, to) = (include_raw?, own?, to?);
    let [attempt_ms_max, attempts_max, age_s_max, backoff_ms_min, backoff_ms_max, in_flight_max] =
        own.map(|found| found.value);
    Ok(Sink {
        name: Arc::from(name.value),
        filter,
        deliver,
        include_raw,
        attempt_ms_max: Duration::from_millis(attempt_ms_max),
        attempts_max: u32::try_from(attempts_max).ok().filter(|attempts| *attempts > 0),
        age_s_max: Duration::from_secs(age_s_max),
        backoff_ms_min: Duration::from_millis(backoff_ms_min),
        backoff_ms_max: Duration::from_millis(backoff_ms_max),
        in_flight_max: usize::try_from(in_flight_max).expect("the upper bound fits into memory"),
        to,
    })
}

/// The bounds of one sink: its own, else those of `[forward]`.
fn own_numbers(
    section: &mut Section<'_>,
    bounds: &Checked<Numbers>,
    report: &mut Report,
) -> Checked<Numbers> {
    let keys = BOUNDS.map(|(name, _)| section.at_key(name).key);
    numbers(section, report, |index, report| {
        let of_all = &bounds.as_ref().map_err(|reported| *reported)?[index];
        let at = At { key: keys[index].clone(), origin: of_all.at.origin.clone() };
        report.effective(&at, of_all.value);
        Ok(Found { value: of_all.value, at })
    })
}

fn deliver(section: &mut Section<'_>, known: &Known, report: &mut Report) -> Checked<Deliver> {
    let words = [("every-change", Deliver::EveryChange), ("latest", Deliver::Latest)];
    let deliver = one_of_or_first(section, "deliver", &words, report)?;
    if deliver == Deliver::Latest && known.no_store.is_some() {
        let expected = "\"every-change\", because store.kind is \"none\"";
        let hint = "without a store nobody knows what a newer change has overtaken";
        let at = section.at_key("deliver");
        return Err(report.problem_hinted(&at, "\"latest\"", expected, Some(hint.into())));
    }
    Ok(deliver)
}

/// One of a few words, the first of which is meant where there is none.
pub(super) fn one_of_or_first<T: Copy>(
    section: &mut Section<'_>,
    name: &'static str,
    words: &[(&str, T)],
    report: &mut Report,
) -> Checked<T> {
    if section.has(name) {
        return one_of(section, name, words, report);
    }
    let (word, meaning) = words[0];
    by_default(section, name, word, report);
    Ok(meaning)
}

/// true or false, false where it is not said.
fn or_false(section: &mut Section<'_>, name: &'static str, report: &mut Report) -> Checked<bool> {
    Ok(match section.optional_truth(name, report)? {
        Some(truth) => truth,
        None => {
            by_default(section, name, false, report);
            false
        }
    })
}

/// Records what is in force where a key is not there, and that the key is known.
pub(super) fn by_default(
    section: &mut Section<'_>,
    name: &'static str,
    value: impl Into<serde_json::Value>,
    report: &mut Report,
) {
    section.take(name);
    let at = At { origin: Origin::Default, ..section.at_key(name) };
    report.effective(&at, value);
}

/// Where nothing is kept, what no sink takes would be answered 2xx and be gone, what is not understood
/// and the statuses nobody thought of among it: somebody must take everything.
fn everything_is_taken(at: &At, sinks: &[Found<Sink>], known: &Known, report: &mut Report) {
    let found = |what: &str| format!("{}, and {what}", quoted(NO_STORE));
    if !known.has_sources {
        let hint = "the token of the source that is made without any would not be kept either";
        report.problem_hinted(at, found("no [[source]]"), "a [[source]]", Some(hint.into()));
    }
    if sinks.is_empty() {
        let expected = "a [[sink]], or the kind \"sqlite\"";
        let hint = "nothing would be kept and nothing forwarded";
        report.problem_hinted(at, found("no [[sink]]"), expected, Some(hint.into()));
        return;
    }
    for source in known.sources.iter().filter(|_| known.has_sources) {
        let is_lost =
            |what: &What| !sinks.iter().any(|sink| sink.value.filter.takes_all(source, *what));
        let lost = What::CALLED_BACK.into_iter().filter(is_lost);
        let lost: Vec<&str> = lost.map(What::as_str).collect();
        if !lost.is_empty() {
            let found =
                found(&format!("no sink takes every {} of {}", lost.join(", "), quoted(source)));
            let hint = "what no sink takes would be answered 2xx and be lost";
            let expected = "a [[sink]] for every source and kind, without `statuses`";
            report.problem_hinted(at, found, expected, Some(hint.into()));
        }
    }
}
