//! Configurations: a file, the environment, and the files they name.
//!
//! The input is the text of `receiptd.toml`; after a line `=== env`, variables, one `NAME=VALUE` a
//! line; after a line `=== file NAME`, the content of that file (a key, a key set, a certificate),
//! of the four there are. `DIR` stands for the folder all of them are in. Whatever it is:
//! - the same layers give the same result, or the same problems;
//! - every problem names a key, what was found and what was expected, and a line that exists;
//! - what stands in a secret's file, in `RECEIPTD_TOKEN`, or where a hash should is in no problem,
//!   no warning, no value in force and no `Debug` text;
//! - what checks out has a credential for every source, and names and paths that differ;
//! - what checks out does not with a key, or a variable, that nobody knows.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use receiptd::config::{self, Flags, Layers, Loaded, Origin, Problems, Settings};
use tempfile::TempDir;
use toml::{Table, Value};

use super::oracle::now;

/// What the secret's file holds, unless the input gives it another content.
const KEPT: &str = "canary-kept-in-a-file";

/// What the corpus has where a hash, or a client's bearer, should be.
const PASTED: &str = "canary-pasted";

/// The files an input may fill: a secret, a key set, a public key or certificate, a private key.
const FILES: [&str; 4] = ["secret", "keys.json", "public.pem", "private.pem"];

thread_local! {
    static FOLDER: TempDir = tempfile::tempdir().unwrap();
}

/// Checks one configuration.
pub fn check(data: &[u8]) {
    // A file of the machine's might wait for somebody to write to it.
    let text = String::from_utf8_lossy(data);
    if !["/dev", "/proc", "/sys"].iter().any(|path| text.contains(path)) {
        FOLDER.with(|folder| check_in(folder.path(), data));
    }
}

/// The input, taken apart.
#[derive(Default)]
struct Parts {
    file: Vec<u8>,
    env: Vec<(String, String)>,
}

fn check_in(folder: &Path, data: &[u8]) {
    let parts = unpack(folder, data);
    let outcome = load(folder, &parts);
    let told = told(&outcome);
    assert_eq!(told, self::told(&load(folder, &parts)), "the same layers, another result");
    let said: String = String::from_utf8_lossy(&parts.file).into_owned()
        + &parts.env.iter().map(|(name, text)| format!("\n{name}={text}")).collect::<String>();
    assert!(said.contains(KEPT) || !told.contains(KEPT), "a secret's file is told of: {told}");
    if pasted(&parts) == said.matches(PASTED).count() {
        assert!(!told.contains(PASTED), "what stands where a hash should is told: {told}");
    }
    match outcome {
        Err(problems) => check_problems(&problems, &parts),
        Ok(loaded) => {
            check_settings(&loaded.settings);
            check_effective(&loaded);
            check_unknown(folder, parts);
        }
    }
}

/// Writes the files and returns the rest.
fn unpack(folder: &Path, data: &[u8]) -> Parts {
    let mut parts = Parts::default();
    let mut files = FILES.map(|name| (name, Vec::new()));
    files[0].1.extend(KEPT.as_bytes());
    let mut section = "";
    let text = String::from_utf8_lossy(data);
    for line in text.split_inclusive('\n') {
        let heading = line.trim_end().strip_prefix("=== ");
        let file = heading.and_then(|heading| heading.strip_prefix("file "));
        if let Some(place) = FILES.iter().position(|name| file == Some(name)) {
            files[place].1.clear();
            section = FILES[place];
        } else if heading == Some("env") {
            section = "env";
        } else if section.is_empty() {
            parts.file.extend(line.as_bytes());
        } else if section != "env" {
            let file = files.iter_mut().find(|(name, _)| *name == section).unwrap();
            file.1.extend(line.as_bytes());
        } else if let Some((name, value)) = line.trim_end_matches('\n').split_once('=') {
            let value = value.replace("DIR", folder.to_str().unwrap());
            parts.env.push((name.to_owned(), value));
        }
    }
    // Bytes that are no UTF-8 stay what they are where there is nothing but the file.
    if data.starts_with(&parts.file) && parts.file.len() == text.len() && text.contains('\u{fffd}')
    {
        parts.file = data.to_vec();
    }
    for (name, content) in files {
        fs::write(folder.join(name), content).unwrap();
    }
    parts
}

fn load(folder: &Path, parts: &Parts) -> Result<Loaded, Problems> {
    let path = folder.join("receiptd.toml");
    let text = replace(&parts.file, b"DIR", folder.to_str().unwrap().as_bytes());
    fs::write(&path, text).unwrap();
    let layers = Layers { file: Some(path), env: parts.env.clone(), flags: Flags::default() };
    assert!(!format!("{layers:?}").contains(PASTED));
    config::load(&layers, now())
}

fn replace(bytes: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(what) {
            replaced.extend(by);
            rest = after;
        } else {
            replaced.push(*first);
            rest = after;
        }
    }
    replaced
}

/// Everything that can be seen of a result.
fn told(outcome: &Result<Loaded, Problems>) -> String {
    match outcome {
        Err(problems) => format!("{problems}\n{problems:?}"),
        Ok(loaded) => {
            let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
            format!("{loaded:?}\n{warnings:?}")
        }
    }
}

/// How often the canary stands where a hash or a bearer should. A file that is no TOML is never
/// quoted, so there every place is such a place.
fn pasted(parts: &Parts) -> usize {
    let env = parts.env.iter().map(|(name, text)| match name.as_str() {
        "RECEIPTD_TOKEN" | "RECEIPTD_TOKEN_SHA256" => text.matches(PASTED).count(),
        _ => 0,
    });
    let text = String::from_utf8_lossy(&parts.file);
    let in_file = match text.parse::<Table>() {
        Ok(table) => hashes(&Value::Table(table)),
        Err(_) => text.matches(PASTED).count(),
    };
    env.sum::<usize>() + in_file
}

fn hashes(value: &Value) -> usize {
    match value {
        Value::Table(table) => table
            .iter()
            .map(|(key, value)| match value {
                Value::String(text) if key == "sha256" => text.matches(PASTED).count(),
                other => hashes(other),
            })
            .sum(),
        Value::Array(items) => items.iter().map(hashes).sum(),
        _ => 0,
    }
}

fn check_problems(problems: &Problems, parts: &Parts) {
    assert!(problems.iter().count() > 0);
    let lines = parts.file.split(|byte| *byte == b'\n').count();
    let all = problems.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    for problem in problems.iter() {
        assert!(!problem.key.is_empty() && !problem.found.is_empty(), "{problem:?}");
        assert!(!problem.expected.is_empty(), "{problem:?}");
        let key = problem.key.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(all.contains(&key), "{key} is not named in: {all}");
        match &problem.origin {
            Origin::File { line, .. } => assert!(line.is_none_or(|n| (1..=lines).contains(&n))),
            Origin::Environment(name) => {
                assert!(parts.env.iter().any(|(known, _)| known == name), "{name}");
            }
            Origin::Default => {}
            Origin::Flag(name) => panic!("there are no flags, but a problem of {name}"),
        }
    }
}

fn check_settings(settings: &Settings) {
    assert_ne!(settings.store.path, settings.store.journal_path());
    assert!(settings.limits.ack_wait_ms_max < settings.limits.drain_ms_max);
    assert!(settings.limits.queue_bytes_max >= settings.limits.body_bytes_max);
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for source in &settings.sources {
        let credentials = &source.credentials;
        let others = credentials.header.is_some()
            || credentials.jwt.is_some()
            || credentials.signature.is_some();
        let lives = |day: Option<jiff::civil::Date>| day.is_none_or(|day| day >= now().date());
        assert!(others || credentials.tokens.iter().any(|token| lives(token.not_after)));
        assert!(credentials.jwt.as_ref().is_none_or(|jwt| !jwt.keys.is_empty()));
        assert!(names.insert(&source.name) && paths.insert(&source.path), "{}", source.name);
        assert!(source.path.starts_with('/') && !source.path.contains("//"), "{}", source.path);
    }
}

/// Each value in force is there once.
fn check_effective(loaded: &Loaded) {
    let mut keys = HashSet::new();
    for effective in &loaded.effective {
        assert!(keys.insert(&effective.key), "{} is in force twice", effective.key);
    }
}

/// A word that nobody knows is refused by its name, wherever it comes from.
fn check_unknown(folder: &Path, mut parts: Parts) {
    parts.env.push(("RECEIPTD_QQQ".into(), "1".into()));
    refuses(folder, &parts, "RECEIPTD_QQQ");
    parts.env.pop();
    let start = if parts.file.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    parts.file.splice(start..start, *b"qqq = 1\n");
    refuses(folder, &parts, "qqq");
}

fn refuses(folder: &Path, parts: &Parts, key: &str) {
    match load(folder, parts) {
        Ok(_) => panic!("{key} was passed over"),
        Err(problems) => {
            let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
            assert_eq!(keys, [key]);
        }
    }
}
