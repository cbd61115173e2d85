//! How a source may prove who it is: tokens, a header, signed tokens, a signed body.
//!
//! A source without any of them, or with nothing but tokens past their last day, is refused:
//! the first would let nobody in, and so does the second, only later and without a word.

use std::collections::HashMap;
use std::path::Path;

use jiff::civil::Date;

use super::document::Kind;
use super::problem::Origin;
use super::report::{At, Checked, Found, Report, Reported};
use super::section::{Section, quoted};
use super::settings::{Credentials, HeaderSecret, Secret, Token};
use super::source::{item_section, only_for};
use super::{check, digest, files, jwt};
use crate::provider::Provider;

/// Characters of a token's label: it stands in log lines and metrics.
const LABEL_CHARS_MAX: usize = 64;

/// Bytes of a file that holds one secret or a set of keys.
pub(super) const SECRET_BYTES_MAX: u64 = 1 << 18;

/// Headers a secret cannot be in: `authorization` is for bearers and JWTs, the others belong to
/// HTTP itself and say the same for every caller.
const HEADERS_TAKEN: [&str; 7] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "transfer-encoding",
];

/// Reads every credential of one source.
pub(super) fn read(
    source: &mut Section<'_>,
    at: &At,
    provider: Option<Provider>,
    today: Date,
    report: &mut Report,
) -> Checked<Credentials> {
    let others = ["header", "jwt", "signature"].map(|name| source.has(name)).contains(&true);
    let tokens = tokens(source, at, others, today, report);
    let header = header(source, report);
    let jwt = jwt(source, provider, report);
    let signature = signature(source, provider, report);
    let credentials =
        Credentials { tokens: tokens?, header: header?, jwt: jwt?, signature: signature? };
    if credentials.tokens.is_empty() && !others {
        let expected = "at least one of [[source.token]], header, jwt and signature";
        let hint = "`receiptd token new` makes a bearer and the [[source.token]] for it";
        return Err(report.problem_hinted(at, "no credential", expected, Some(hint.into())));
    }
    Ok(credentials)
}

fn tokens(
    source: &mut Section<'_>,
    at: &At,
    others: bool,
    today: Date,
    report: &mut Report,
) -> Checked<Vec<Token>> {
    let items = source.list("token", report)?;
    let list = format!("{}.token", at.key);
    let mut labels = HashMap::new();
    let read: Vec<Checked<Found<Token>>> = items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            let (at, table) = item_section(&list, "label", is_label, index, item, report)?;
            token(Section::at(&at, table), at, &mut labels, report)
        })
        .collect();
    let tokens = read.into_iter().collect::<Checked<Vec<_>>>()?;
    last_days(&tokens, &list, others, today, report)?;
    same_secret(&tokens, report);
    Ok(tokens.into_iter().map(|token| token.value).collect())
}

fn token(
    mut section: Section<'_>,
    at: At,
    labels: &mut HashMap<String, Origin>,
    report: &mut Report,
) -> Checked<Found<Token>> {
    let label = label(&mut section, labels, report);
    let sha256 = sha256(&mut section, report);
    let not_after = not_after(&mut section, report);
    section.finish(report);
    let (label, sha256, not_after) = (label?, sha256?, not_after?);
    Ok(Found { value: Token { label, sha256, not_after }, at })
}

fn label(
    section: &mut Section<'_>,
    labels: &mut HashMap<String, Origin>,
    report: &mut Report,
) -> Checked<String> {
    let expected = format!("1 to {LABEL_CHARS_MAX} printable characters, such as \"2026-11\"");
    let Found { value, at } = section.required_text("label", &expected, report)?;
    if !is_label(&value) {
        return Err(report.problem(&at, quoted(&value), expected));
    }
    if let Some(first) = labels.insert(value.clone(), at.origin.clone()) {
        let hint = Some(format!("first used at {first}"));
        let expected = "a label no other token of this source has";
        return Err(report.problem_hinted(&at, quoted(&value), expected, hint));
    }
    Ok(value)
}

fn is_label(text: &str) -> bool {
    let count = text.chars().count();
    (1..=LABEL_CHARS_MAX).contains(&count) && !text.chars().any(char::is_control)
}

fn sha256(section: &mut Section<'_>, report: &mut Report) -> Checked<[u8; 32]> {
    let at = section.at_key("sha256");
    let Some(found) = section.quiet_text("sha256", report)? else {
        let hint = "`receiptd token hash` makes it from the bearer that the sender has".into();
        return Err(report.problem_hinted(&at, "nothing", digest::EXPECTED, Some(hint)));
    };
    match digest::parse(&found.value) {
        Ok(digest) => {
            report.effective(&at, digest::shown(&digest));
            Ok(digest)
        }
        Err(fault) => Err(report.problem_hinted(&at, fault.found, digest::EXPECTED, fault.hint)),
    }
}

/// A day, as TOML's own date or as text.
fn not_after(section: &mut Section<'_>, report: &mut Report) -> Checked<Option<Date>> {
    let at = section.at_key("not_after");
    let text = match section.take("not_after").map(|value| &value.kind) {
        None => return Ok(None),
        Some(Kind::Text(text) | Kind::Raw(text) | Kind::Datetime(text)) => text,
        Some(other) => return Err(not_a_day(&at, other.type_name().into(), report)),
    };
    // jiff reads the day out of longer forms too; what follows it would then be ignored.
    let day = Some(text).filter(|text| text.len() == "2027-01-31".len());
    match day.and_then(|text| text.parse::<Date>().ok()) {
        Some(day) => {
            report.effective(&at, day.to_string());
            Ok(Some(day))
        }
        None => Err(not_a_day(&at, quoted(text), report)),
    }
}

fn not_a_day(at: &At, found: String, report: &mut Report) -> Reported {
    report.problem(at, found, "a day that exists, as \"2027-01-31\"; it ends at midnight UTC")
}

/// A token past its last day beside others is only worth a word, as is one whose last day is near,
/// used or not; nothing but the first is a source nobody can use.
fn last_days(
    tokens: &[Found<Token>],
    list: &str,
    others: bool,
    today: Date,
    report: &mut Report,
) -> Checked<()> {
    let expired: Vec<(&Found<Token>, Date)> = tokens
        .iter()
        .filter_map(|token| Some((token, token.value.not_after.filter(|day| *day < today)?)))
        .collect();
    if expired.len() == tokens.len() && !others {
        let Some((first, _)) = expired.first() else { return Ok(()) };
        let at = At { key: list.into(), origin: first.at.origin.clone() };
        let days = expired
            .iter()
            .map(|(token, day)| format!("{} was accepted until {day}", quoted(&token.value.label)));
        let found = days.collect::<Vec<_>>().join(", ");
        let expected = format!("a credential that is accepted today, {today}");
        let hint = "add a new [[source.token]], made by `receiptd token new`, or move not_after";
        return Err(report.problem_hinted(&at, found, expected, Some(hint.into())));
    }
    for (token, day) in expired {
        report.warning(&token.at, format!("its last day was {day}, so it is refused: remove it"));
    }
    for Found { value: token, at } in tokens.iter().filter(|token| token.value.ends_soon(today)) {
        let Some(day) = token.not_after else { continue };
        let message = format!("its last day is {day}: after it, callbacks with it are lost");
        report.warning(at, message);
    }
    Ok(())
}

/// Two labels for one secret: a rotation that did not happen.
fn same_secret(tokens: &[Found<Token>], report: &mut Report) {
    for (index, token) in tokens.iter().enumerate() {
        let earlier = &tokens[..index];
        if let Some(same) = earlier.iter().find(|same| same.value.sha256 == token.value.sha256) {
            let label = quoted(&same.value.label);
            report.warning(&token.at, format!("it is the same secret as the token {label}"));
        }
    }
}

fn header(source: &mut Section<'_>, report: &mut Report) -> Checked<Option<HeaderSecret>> {
    let Some(mut section) = source.section("header", report)? else { return Ok(None) };
    let name = header_name(&mut section, report);
    let sha256 = sha256(&mut section, report);
    section.finish(report);
    Ok(Some(HeaderSecret { name: name?, sha256: sha256? }))
}

fn header_name(section: &mut Section<'_>, report: &mut Report) -> Checked<String> {
    let expected = "the name of an HTTP header, such as x-callback-secret";
    let Found { value, at } = section.required_text("name", expected, report)?;
    let name = value.to_ascii_lowercase();
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if HEADERS_TAKEN.contains(&name.as_str()) {
        let hint = match name.as_str() {
            "authorization" => "for a bearer in Authorization use [[source.token]]",
            _ => "HTTP itself uses that one",
        };
        return Err(report.problem_hinted(&at, quoted(&value), expected, Some(hint.into())));
    }
    if name.len() > 64 || !name.bytes().all(is_token) {
        return Err(report.problem(&at, quoted(&value), expected));
    }
    Ok(name)
}

fn jwt(
    source: &mut Section<'_>,
    provider: Option<Provider>,
    report: &mut Report,
) -> Checked<Option<super::settings::Jwt>> {
    let at = source.at_key("jwt");
    let Some(section) = source.section("jwt", report)? else { return Ok(None) };
    let allowed = only_for(&at, provider, &[Provider::Ajo], report);
    let jwt = jwt::read(section, &at, report);
    allowed?;
    jwt.map(Some)
}

fn signature(
    source: &mut Section<'_>,
    provider: Option<Provider>,
    report: &mut Report,
) -> Checked<Option<Secret>> {
    let at = source.at_key("signature");
    let Some(mut section) = source.section("signature", report)? else { return Ok(None) };
    let allowed = only_for(&at, provider, &[Provider::VaNotify, Provider::Notify], report);
    let file = section.required_text("secret_file", "a file with the API key's secret", report);
    section.finish(report);
    let secret = secret_file(&file?, report)?;
    allowed?;
    Ok(Some(secret))
}

/// A secret from a file, without the one line end that editors and `echo` put after it.
pub(super) fn secret_file(file: &Found<String>, report: &mut Report) -> Checked<Secret> {
    secret_of(files::read(Path::new(&file.value), SECRET_BYTES_MAX), file, report)
}

/// The secret in what was read from a file, if anything was.
pub(super) fn secret_of(
    read: Result<Vec<u8>, files::Fault>,
    file: &Found<String>,
    report: &mut Report,
) -> Checked<Secret> {
    let fail = |fault: &str, report: &mut Report| {
        check::unusable_file(file, fault, "a readable file that holds the secret", report)
    };
    let mut bytes = read.map_err(|fault| fail(&fault.to_string(), report))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.is_empty() { Err(fail("it is empty", report)) } else { Ok(Secret(bytes)) }
}
