//! Sources: who may call, where, and how each proves who it is.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::civil::Date;

use super::check::one_of;
use super::credentials;
use super::document::{Kind, Table, Value};
use super::problem::Origin;
use super::reader;
use super::report::{At, Checked, Found, Report};
use super::section::{Section, quoted};
use super::settings::Source;
use super::upstream;
use crate::provider::{Dialect, Provider};

/// Characters of a name: it is a label in every log line and metric.
const NAME_CHARS_MAX: usize = 64;

/// Characters of a path: the platforms keep the whole URL in 255.
const PATH_CHARS_MAX: usize = 200;

/// What asking is bounded by: the bounds of all upstreams, and where it is said that nothing is kept, and
/// so nobody can ask or be asked.
type Asked<'a> = (&'a Checked<upstream::Bounds>, Option<&'a At>);

/// Reads every source, and refuses two that could not be told apart.
pub(super) fn sources(
    root: &mut Section<'_>,
    today: Date,
    asked: Asked<'_>,
    report: &mut Report,
) -> Checked<Vec<Source>> {
    let items = root.list("source", report)?;
    let mut first = First::default();
    let read: Vec<Checked<Source>> = items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            let (at, table) = item_section("source", "name", is_name, index, item, report)?;
            source(Section::at(&at, table), (&at, today, asked), &mut first, report)
        })
        .collect();
    read.into_iter().collect()
}

/// One of an array of tables, and its place: by its name if that is usable, else by its number.
pub(super) fn item_section<'a>(
    list: &str,
    name_key: &str,
    is_usable: fn(&str) -> bool,
    index: usize,
    item: &'a Value,
    report: &mut Report,
) -> Checked<(At, &'a Table)> {
    let numbered = At { key: format!("{list}[{}]", index + 1), origin: item.origin.clone() };
    let Kind::Table(table) = &item.kind else {
        return Err(report.problem(&numbered, item.kind.type_name(), "a section"));
    };
    let key = match table.find(name_key).map(|value| &value.kind) {
        Some(Kind::Text(name) | Kind::Raw(name)) if is_usable(name) => format!("{list}.{name}"),
        _ => numbered.key,
    };
    Ok((At { key, origin: numbered.origin }, table))
}

/// Names, paths and readers seen so far, with where they were first used.
#[derive(Default)]
struct First {
    names: HashMap<String, Origin>,
    paths: HashMap<String, Origin>,
    readers: reader::Earlier,
}

impl First {
    /// Refuses a name or a path that an earlier source has. A path that was made from the name is
    /// not worth a second problem.
    fn check(
        &mut self,
        name: Option<&Found<String>>,
        path: Option<&Found<String>>,
        report: &mut Report,
    ) {
        let expected = "a name no other source has";
        let name_is_taken =
            name.is_some_and(|name| !only_once(&mut self.names, name, expected, report));
        let is_from_name = |path: &&Found<String>| path.at.origin == Origin::Default;
        if let Some(path) = path.filter(|path| !(name_is_taken && is_from_name(path))) {
            only_once(&mut self.paths, path, "a path no other source has", report);
        }
    }
}

fn source(
    mut section: Section<'_>,
    (at, today, (bounds, no_store)): (&At, Date, Asked<'_>),
    first: &mut First,
    report: &mut Report,
) -> Checked<Source> {
    let name = name(&mut section, report);
    let provider = provider(&mut section, report);
    let path = path(&mut section, name.as_ref().map_err(|reported| *reported), report);
    first.check(name.as_ref().ok(), path.as_ref().ok(), report);
    let known_provider = provider.as_ref().ok().copied();
    let credentials = credentials::read(&mut section, at, known_provider, today, report);
    let readers = reader::readers(&mut section, at, &mut first.readers, no_store, report);
    let ims_org = adobe_only(&mut section, "ims_org", known_provider, report);
    let sandbox = adobe_only(&mut section, "sandbox", known_provider, report);
    let upstream = upstream::read(&mut section, known_provider, bounds, no_store, report);
    section.finish(report);
    Ok(Source {
        name: Arc::from(name?.value),
        path: path?.value,
        credentials: credentials?,
        readers: readers?,
        dialect: Dialect { provider: provider?, ims_org: ims_org?, sandbox: sandbox? },
        upstream: upstream?,
    })
}

pub(super) fn name(section: &mut Section<'_>, report: &mut Report) -> Checked<Found<String>> {
    let expected = format!("1 to {NAME_CHARS_MAX} of the characters a-z, 0-9 and -");
    let found = section.required_text("name", &expected, report)?;
    if is_name(&found.value) {
        return Ok(found);
    }
    let usable: String = found
        .value
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(NAME_CHARS_MAX)
        .collect();
    let hint = Some(format!("for example {}", quoted(&usable)));
    Err(report.problem_hinted(&found.at, quoted(&found.value), expected, hint))
}

pub(super) fn is_name(text: &str) -> bool {
    let is_char = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(is_char)
}

fn provider(section: &mut Section<'_>, report: &mut Report) -> Checked<Provider> {
    one_of(
        section,
        "provider",
        &Provider::ALL.map(|provider| (provider.as_str(), provider)),
        report,
    )
}

/// The path, or `/callbacks/<name>`.
fn path(
    section: &mut Section<'_>,
    name: Checked<&Found<String>>,
    report: &mut Report,
) -> Checked<Found<String>> {
    let default_at = At { origin: Origin::Default, ..section.at_key("path") };
    let Some(found) = section.text("path", report)? else {
        let value = format!("/callbacks/{}", name?.value);
        report.effective(&default_at, value.as_str());
        return Ok(Found { value, at: default_at });
    };
    match path_fault(&found.value) {
        None => Ok(found),
        Some(hint) => {
            let expected = "a path as it stands in a URL, beginning with /";
            Err(report.problem_hinted(&found.at, quoted(&found.value), expected, Some(hint.into())))
        }
    }
}

/// Why no platform could call that path as it is written: a client sends neither spaces nor
/// fragments, and it resolves `.` and `..` before it sends.
fn path_fault(path: &str) -> Option<&'static str> {
    if path.contains("://") {
        return Some("leave out the scheme and the host");
    }
    if !path.starts_with('/') {
        return Some("put a / in front");
    }
    if path.contains(['?', '#']) {
        return Some("leave out the query and the fragment");
    }
    if path.len() > PATH_CHARS_MAX {
        return Some("at most 200 characters; the platforms keep the whole URL in 255");
    }
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&b)) {
        return Some("only letters, digits and -._~!$&'()*+,;=:@/ are sent as they are written");
    }
    if !is_percent_encoded(path) {
        return Some("% must be followed by two hex digits");
    }
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        if matches!(segment, "." | "..") || (segment.is_empty() && !is_last) {
            return Some("no empty, . or .. segments: clients and proxies resolve them");
        }
    }
    None
}

fn is_percent_encoded(path: &str) -> bool {
    let is_hex =
        |text: &str| text.len() >= 2 && text.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    path.split('%').skip(1).all(is_hex)
}

/// Refuses what an earlier source already has; true if none has it.
pub(super) fn only_once(
    seen: &mut HashMap<String, Origin>,
    found: &Found<String>,
    expected: &str,
    report: &mut Report,
) -> bool {
    if let Some(first) = seen.get(&found.value) {
        let hint = Some(format!("first used at {first}"));
        report.problem_hinted(&found.at, quoted(&found.value), expected, hint);
        return false;
    }
    seen.insert(found.value.clone(), found.at.origin.clone());
    true
}

/// Text that only means something for Adobe Journey Optimizer.
fn adobe_only(
    section: &mut Section<'_>,
    name: &'static str,
    provider: Option<Provider>,
    report: &mut Report,
) -> Checked<Option<String>> {
    let Some(found) = section.text(name, report)? else { return Ok(None) };
    only_for(&found.at, provider, &[Provider::Ajo], report)?;
    Ok(Some(found.value))
}

/// Refuses a key the source's provider has no use for. An unknown provider is a problem already.
pub(super) fn only_for(
    at: &At,
    provider: Option<Provider>,
    providers: &[Provider],
    report: &mut Report,
) -> Checked<()> {
    let Some(provider) = provider.filter(|provider| !providers.contains(provider)) else {
        return Ok(());
    };
    let names: Vec<&str> = providers.iter().map(|provider| provider.as_str()).collect();
    let expected = format!("only where provider is {}", names.join(" or "));
    Err(report.problem(at, format!("provider is {provider}"), expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_a_client_sends_as_it_is_written_is_accepted() {
        for path in ["/", "/callbacks/passport", "/a/", "/a%2Fb/(c)", "/~x:y@z"] {
            assert_eq!(path_fault(path), None, "{path}");
        }
    }

    #[test]
    fn a_path_no_client_sends_as_it_is_written_is_refused() {
        let long = format!("/{}", "a".repeat(PATH_CHARS_MAX));
        let shapes =
            ["", "callbacks", "/a b", "/a?b", "/a#b", "/é", "/a%2", "/%zz", "/a\"b", &long];
        for path in shapes.into_iter().chain(["//a", "/a//b", "/./a", "/a/..", "https://h/a"]) {
            assert!(path_fault(path).is_some(), "{path}");
        }
    }
}
