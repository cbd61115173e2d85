//! The postgres sink: tables in the app's own database.

use super::report::{Checked, Found, Report};
use super::section::{Section, quoted};
use super::settings::{Endpoint, PostgresSink};
use super::sink::by_default;
use super::sink_secret;
use super::sink_url::{Scheme, endpoint};

/// What is in force where a sink does not say; the embedded file documents it.
const SCHEMA_DEFAULT: &str = "public";
const CREATE_TABLES_DEFAULT: bool = true;
const TLS_DEFAULT: bool = false;

/// Characters of an identifier that PostgreSQL does not cut off.
const IDENTIFIER_CHARS_MAX: usize = 63;

/// Reads a postgres sink.
pub(super) fn read(section: &mut Section<'_>, report: &mut Report) -> Checked<PostgresSink> {
    let at = url(section, report);
    let is_tls = truth_or(section, "tls", TLS_DEFAULT, report);
    let schema = schema(section, report);
    let create_tables = truth_or(section, "create_tables", CREATE_TABLES_DEFAULT, report);
    let login = sink_secret::required_login(section, report);
    let tls = sink_secret::tls(section, is_tls.ok(), "`tls = true`", report);
    Ok(PostgresSink {
        at: Endpoint { is_tls: is_tls?, ..at? },
        schema: schema?,
        create_tables: create_tables?,
        login: login?,
        tls: tls?,
    })
}

fn url(section: &mut Section<'_>, report: &mut Report) -> Checked<Endpoint> {
    const SCHEMES: [Scheme; 2] = [
        Scheme { word: "postgresql", is_tls: false, port: 5432 },
        Scheme { word: "postgres", is_tls: false, port: 5432 },
    ];
    let expected = "a URL, such as \"postgresql://127.0.0.1:5432/app\"";
    let at = section.at_key("url");
    let Some(url) = section.quiet_text("url", report)? else {
        return Err(report.problem(&at, "nothing", expected));
    };
    let login = "they belong in `user` and `password_file`";
    let endpoint = endpoint(&url, &SCHEMES, expected, login, report)?;
    if endpoint.path.is_empty() || endpoint.path.contains('/') {
        let hint = Some("the name of the database follows the host and a /".into());
        return Err(report.problem_hinted(&at, quoted(&url.value), expected, hint));
    }
    report.effective(&at, url.value);
    Ok(endpoint)
}

fn truth_or(
    section: &mut Section<'_>,
    name: &'static str,
    default: bool,
    report: &mut Report,
) -> Checked<bool> {
    Ok(match section.optional_truth(name, report)? {
        Some(truth) => truth,
        None => {
            by_default(section, name, default, report);
            default
        }
    })
}

fn schema(section: &mut Section<'_>, report: &mut Report) -> Checked<String> {
    let Some(Found { value, at }) = section.text("schema", report)? else {
        by_default(section, "schema", SCHEMA_DEFAULT, report);
        return Ok(SCHEMA_DEFAULT.to_owned());
    };
    let is_char = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let is_begun = value.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if is_begun && value.len() <= IDENTIFIER_CHARS_MAX && value.bytes().all(is_char) {
        return Ok(value);
    }
    let expected = "the name of a schema: 1 to 63 of a-z, 0-9 and _, not a digit first";
    Err(report.problem(&at, quoted(&value), expected))
}
