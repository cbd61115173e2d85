//! Readers: apps that may ask what is known of a source's messages, by an API key as the platforms
//! give one.
//!
//! The official clients take an API key apart by position: its last 36 characters are the secret, the
//! 36 before the dash in front of it name the service. So both are UUIDs here too: anything else would
//! be cut by the client and never agree.

use std::path::Path;

use super::document::Value;
use super::report::{At, Checked, Found, Report, Reported};
use super::section::{Section, quoted};
use super::settings::{Reader, Secret};
use super::sink_secret;
use super::source::item_section;

/// Characters of a UUID with its dashes.
const UUID_CHARS: usize = 36;

const SERVICE_ID: &str =
    "the id of the service, a UUID such as 26785a09-ab16-4eb0-8407-a37497a57506";

const SECRET: &str =
    "a file with the secret of the reader's API key: its last 36 characters, a UUID";

/// Every reader read so far, of every source, with where it stands.
#[derive(Default)]
pub(super) struct Earlier(Vec<Found<Reader>>);

/// Reads the readers of one source. `no_store`: where it says that nothing is kept, if it does.
pub(super) fn readers(
    source: &mut Section<'_>,
    at: &At,
    earlier: &mut Earlier,
    no_store: Option<&At>,
    report: &mut Report,
) -> Checked<Vec<Reader>> {
    let items = source.list("reader", report)?;
    let list = format!("{}.reader", at.key);
    let read: Vec<Checked<Found<Reader>>> = items
        .iter()
        .enumerate()
        .map(|(index, item)| reader(&list, index, item, no_store, report))
        .collect();
    for reader in read.iter().flatten() {
        earlier.check(reader, report);
    }
    read.into_iter().map(|reader| reader.map(|found| found.value)).collect()
}

impl Earlier {
    /// Refuses a reader whose API key is another's: it could not be told whose messages it may see. The
    /// same service with another secret is a second key, of a rotation, say.
    fn check(&mut self, reader: &Found<Reader>, report: &mut Report) {
        if let Some(first) = self.0.iter().find(|first| first.value == reader.value) {
            let hint = Some(format!("first used at {}", first.at.origin));
            let found = format!("the service and the secret of {}", first.at.key);
            let expected = "a service_id or a secret that no other reader has";
            report.problem_hinted(&reader.at, found, expected, hint);
        }
        self.0.push(reader.clone());
    }
}

fn reader(
    list: &str,
    index: usize,
    item: &Value,
    no_store: Option<&At>,
    report: &mut Report,
) -> Checked<Found<Reader>> {
    // By its number: several readers may name one service.
    let (at, table) = item_section(list, "service_id", |_| false, index, item, report)?;
    let mut section = Section::at(&at, table);
    let service_id = service_id(&mut section, report);
    let secret = secret(&mut section, service_id.as_deref().ok(), report);
    section.finish(report);
    if let Some(no_store) = no_store {
        let found = format!("{} is \"none\"", no_store.key);
        let expected = "no reader where nothing is kept: there is nothing to read";
        return Err(report.problem(&at, found, expected));
    }
    Ok(Found { value: Reader { service_id: service_id?, secret: secret? }, at })
}

fn service_id(section: &mut Section<'_>, report: &mut Report) -> Checked<String> {
    let at = section.at_key("service_id");
    // A whole API key, pasted by mistake, is a secret.
    let Some(found) = section.quiet_text("service_id", report)? else {
        return Err(report.problem(&at, "nothing", SERVICE_ID));
    };
    if !is_uuid(&found.value) {
        let is_key = ends_in_uuid(&found.value);
        let shown = if is_key { "what may be an API key".into() } else { quoted(&found.value) };
        let hint = is_key.then(|| "it stands before the secret in the API key".into());
        return Err(report.problem_hinted(&at, shown, SERVICE_ID, hint));
    }
    report.effective(&at, found.value.as_str());
    Ok(found.value.to_ascii_lowercase())
}

fn secret(
    section: &mut Section<'_>,
    service_id: Option<&str>,
    report: &mut Report,
) -> Checked<Secret> {
    let at = section.at_key("secret_file");
    let Some(file) = section.quiet_text("secret_file", report)? else {
        return Err(report.problem(&at, "nothing", SECRET));
    };
    if ends_in_uuid(&file.value) && !Path::new(&file.value).exists() {
        let hint = "write it into a file that only this user may read, and name that file";
        let found = "a secret where the name of its file belongs";
        return Err(report.problem_hinted(&at, found, "a file", Some(hint.into())));
    }
    let Secret(bytes) = sink_secret::from_file(&file, report)?;
    let secret = match last_characters(&bytes, service_id) {
        Ok(secret) => secret,
        Err(fault) => return Err(unusable(&file, fault, report)),
    };
    report.effective(&file.at, file.value.as_str());
    Ok(Secret(secret.as_bytes().to_vec()))
}

/// The secret itself, or the end of a whole API key of that service.
fn last_characters<'b>(bytes: &'b [u8], service_id: Option<&str>) -> Result<&'b str, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it holds more than text")?;
    let at = text.len().checked_sub(UUID_CHARS).ok_or("it is shorter than 36 characters")?;
    let secret = text.get(at..).filter(|end| is_uuid(end)).ok_or("it does not end in a UUID")?;
    let is_service = |id: &str| service_id.is_none_or(|known| id.eq_ignore_ascii_case(known));
    let before = &text[..at];
    let named = before.strip_suffix('-').and_then(|key| key.get(key.len().checked_sub(36)?..));
    match named {
        _ if service_id.is_some() && is_service(secret) => Err("it is the service_id itself"),
        None if before.is_empty() => Ok(secret),
        Some(named) if is_service(named) => Ok(secret),
        _ => Err("it is an API key of another service"),
    }
}

fn unusable(file: &Found<String>, fault: &str, report: &mut Report) -> Reported {
    let hint = "`uuidgen` makes one; the app's key is then NAME-SERVICE_ID-SECRET";
    let found = format!("{}: {fault}", quoted(&file.value));
    report.problem_hinted(&file.at, found, SECRET, Some(hint.into()))
}

fn is_uuid(text: &str) -> bool {
    let is_part = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == UUID_CHARS && text.bytes().enumerate().all(is_part)
}

fn ends_in_uuid(text: &str) -> bool {
    text.len().checked_sub(UUID_CHARS).and_then(|at| text.get(at..)).is_some_and(is_uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "26785a09-ab16-4eb0-8407-a37497a57506";
    const KEY: &str = "3d844edf-8d35-48ac-975b-e847b4f122b0";

    #[test]
    fn the_secret_is_taken_alone_or_from_the_end_of_a_key_of_the_service() {
        for text in [
            KEY.to_owned(),
            format!("my-app-{SERVICE}-{KEY}"),
            format!("a-{}-{KEY}", SERVICE.to_uppercase()),
        ] {
            assert_eq!(last_characters(text.as_bytes(), Some(SERVICE)), Ok(KEY), "{text}");
        }
    }

    #[test]
    fn what_no_client_would_make_a_secret_of_is_refused() {
        for text in [
            "short".to_owned(),
            "x".repeat(36),
            SERVICE.to_owned(),
            format!("my-app-{SERVICE}-{SERVICE}"),
            format!("my-app-{KEY}-{KEY}"),
            format!("x{KEY}"),
            format!("é{KEY}"),
        ] {
            assert!(last_characters(text.as_bytes(), Some(SERVICE)).is_err(), "{text}");
        }
        assert!(last_characters(&[0xff; 40], Some(SERVICE)).is_err());
    }
}
