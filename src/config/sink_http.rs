//! The http sink: where to POST, in which form, and what proves to the app that it is us.

use std::collections::HashMap;

use hyper::header::{HeaderName, HeaderValue};

use super::document::{Entry, Kind, Table};
use super::report::{At, Checked, Found, Report};
use super::section::{Section, quoted};
use super::settings::{HttpFormat, HttpSink, Secret};
use super::sink::one_of_or_first;
use super::sink_secret::{from_file, secret, tls, webhook_secrets};
use super::sink_url::{Scheme, endpoint};
use crate::client::Target;

const SCHEMES: [Scheme; 2] = [
    Scheme { word: "http", is_tls: false, port: 80 },
    Scheme { word: "https", is_tls: true, port: 443 },
];

/// Headers that belong to HTTP itself.
const HEADERS_OF_HTTP: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
];

/// What the headers begin with that an event or its signature is written into.
const PREFIXES_OF_EVENTS: [&str; 2] = ["ce-", "webhook-"];

/// Reads an http sink.
pub(super) fn read(section: &mut Section<'_>, report: &mut Report) -> Checked<HttpSink> {
    let url = url(section, report);
    let formats = [
        ("cloudevents", HttpFormat::CloudEvents),
        ("cloudevents-binary", HttpFormat::CloudEventsBinary),
        ("raw", HttpFormat::Raw),
    ];
    let format = one_of_or_first(section, "format", &formats, report);
    let secrets = webhook_secrets(section, "secret_files", report);
    let bearer = bearer(section, report);
    let headers = headers(section, report);
    let is_tls = url.as_ref().ok().map(|url| url.is_https);
    let tls = tls(section, is_tls, "`url` begins with https://", report);
    Ok(HttpSink {
        url: url?,
        format: format?,
        secrets: secrets?,
        bearer: bearer?,
        headers: headers?,
        tls: tls?,
    })
}

fn url(section: &mut Section<'_>, report: &mut Report) -> Checked<Target> {
    let expected = "a URL, such as \"http://127.0.0.1:3000/receipts\"";
    let at = section.at_key("url");
    let Some(url) = section.quiet_text_like("url", expected, report)? else {
        return Err(report.problem(&at, "nothing", expected));
    };
    let login = "secrets belong in bearer_file or headers";
    endpoint(&url, &SCHEMES, expected, login, report)?;
    match Target::parse(&url.value) {
        Ok(target) => {
            report.effective(&at, url.value.as_str());
            Ok(target)
        }
        Err(_) => Err(report.problem(&at, quoted(&url.value), expected)),
    }
}

/// What is sent as `Authorization: Bearer`.
fn bearer(section: &mut Section<'_>, report: &mut Report) -> Checked<Option<Secret>> {
    let Some(Found { value, at }) = secret(section, "bearer_file", report)? else {
        return Ok(None);
    };
    if HeaderValue::from_bytes(&value.0).is_err() {
        let expected = "a bearer on one line, without control characters";
        return Err(report.problem(&at, "a file that holds more than a header can", expected));
    }
    Ok(Some(value))
}

/// Headers by name; a value is text, or `{ file = "…" }` for the secret in a file.
fn headers(section: &mut Section<'_>, report: &mut Report) -> Checked<Vec<(String, Secret)>> {
    let at = section.at_key("headers");
    let table: &Table = match section.take("headers").map(|value| &value.kind) {
        None => return Ok(Vec::new()),
        Some(Kind::Table(table)) => table,
        Some(other) => return Err(report.problem(&at, other.type_name(), "a section")),
    };
    let mut seen = HashMap::new();
    let read: Vec<Checked<(String, Secret)>> = table
        .entries
        .iter()
        .map(|entry| {
            let key = format!("{}.{}", at.key, entry.key);
            let at = At { key, origin: entry.key_origin.clone() };
            let name = header_name(entry, &at, report);
            let value = header_value(entry, &at, report);
            let (name, value) = (name?, value?);
            if let Some(first) = seen.insert(name.clone(), at.origin.clone()) {
                let hint = Some(format!("first used at {first}"));
                return Err(report.problem_hinted(&at, quoted(&name), "each header once", hint));
            }
            report.effective(&at, format!("{value:?}"));
            Ok((name, value))
        })
        .collect();
    read.into_iter().collect()
}

fn header_name(entry: &Entry, at: &At, report: &mut Report) -> Checked<String> {
    let expected = "the name of an HTTP header, such as x-api-key";
    let Ok(name) = HeaderName::from_bytes(entry.key.as_bytes()) else {
        return Err(report.problem(at, quoted(&entry.key), expected));
    };
    let name = name.as_str();
    let hint = if name == "authorization" {
        "for a bearer use bearer_file"
    } else if HEADERS_OF_HTTP.contains(&name) {
        "HTTP itself uses that one"
    } else if PREFIXES_OF_EVENTS.iter().any(|prefix| name.starts_with(prefix)) {
        "what tells and signs the event begins like that"
    } else {
        return Ok(name.to_owned());
    };
    Err(report.problem_hinted(at, quoted(&entry.key), expected, Some(hint.into())))
}

fn header_value(entry: &Entry, at: &At, report: &mut Report) -> Checked<Secret> {
    let expected = "text, or { file = \"…\" } for a secret";
    let value = match &entry.value.kind {
        Kind::Text(text) => Secret(text.clone().into_bytes()),
        Kind::Table(table) => {
            let mut section = Section::at(at, table);
            let file = section.at_key("file");
            let found = section.quiet_text("file", report);
            section.finish(report);
            let Some(found) = found? else {
                return Err(report.problem(&file, "nothing", "a file with the header's value"));
            };
            from_file(&found, report)?
        }
        other => return Err(report.problem(at, other.type_name(), expected)),
    };
    if HeaderValue::from_bytes(&value.0).is_err() {
        let found = "a value with control characters";
        return Err(report.problem(at, found, "a value that a header can hold"));
    }
    Ok(value)
}
