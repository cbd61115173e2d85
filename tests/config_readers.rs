//! Readers in the configuration: what is accepted, what is refused and in which words, and that no
//! secret shows.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use clap::Parser;
use receiptd::cli;
use receiptd::clock::Timestamp;
use receiptd::config::settings::{Reader, Secret};
use receiptd::config::{self, Layers, Loaded, Problems};
use tempfile::TempDir;

/// SHA-256 of `test`.
const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

const SERVICE: &str = "26785a09-ab16-4eb0-8407-a37497a57506";

/// A secret, which must never come out again.
const KEY: &str = "3d844edf-8d35-48ac-975b-e847b4f122b0";

/// Another.
const OTHER_KEY: &str = "a2b1c0de-8d35-48ac-975b-e847b4f122b0";

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

/// A folder with a configuration and the files it names.
struct Case {
    folder: TempDir,
    layers: Layers,
}

impl Case {
    /// `DIR` in the text stands for the folder, `SERVICE` for the service.
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("receiptd.toml");
        let text = text.replace("DIR", folder.path().to_str().unwrap());
        fs::write(&file, text.replace("SERVICE", SERVICE)).unwrap();
        let case = Self { folder, layers: Layers { file: Some(file), ..Layers::default() } };
        case.with("key", KEY, 0o600)
    }

    fn with(self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> Self {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        self
    }

    fn load(&self) -> Result<Loaded, Problems> {
        config::load(&self.layers, now())
    }

    #[track_caller]
    fn readers(&self) -> Vec<Reader> {
        let loaded = self.load().unwrap_or_else(|problems| panic!("{problems}"));
        loaded.settings.sources.into_iter().flat_map(|source| source.readers).collect()
    }

    /// Every problem as its key and its text; none of them holds a secret.
    #[track_caller]
    fn problems(&self) -> Vec<(String, String)> {
        let problems = self.load().expect_err("it should have been refused");
        for secret in [KEY, OTHER_KEY] {
            assert!(!problems.to_string().contains(secret), "{problems}");
        }
        let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        problems.iter().map(|problem| (problem.key.clone(), words(problem.to_string()))).collect()
    }

    #[track_caller]
    fn assert_only(&self, key: &str, words: &str) {
        let problems = self.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].0, key, "{problems:?}");
        assert!(problems[0].1.contains(words), "no {words:?} in {:?}", problems[0].1);
    }
}

fn source(name: &str, more: &str) -> String {
    let token = format!("[[source.token]]\nlabel = \"t\"\nsha256 = \"{HASH}\"\n");
    format!("[[source]]\nname = \"{name}\"\nprovider = \"gc-notify\"\n{token}{more}\n")
}

const READER: &str = "[[source.reader]]\nservice_id = \"SERVICE\"\nsecret_file = \"DIR/key\"\n";

/// A source `passport` with these lines after `[[source.reader]]`.
fn reader(lines: &str) -> Case {
    Case::new(&source("passport", &format!("[[source.reader]]\n{lines}")))
}

fn expected(secret: &str) -> Reader {
    Reader { service_id: SERVICE.to_owned(), secret: Secret(secret.as_bytes().to_vec()) }
}

#[test]
fn several_readers_of_a_source_load_and_their_service_is_written_in_lower_case() {
    let second = READER.replace("SERVICE", &SERVICE.to_uppercase()).replace("key", "second");
    let text = source("passport", &format!("{READER}{second}"));
    let case = Case::new(&text).with("second", format!("app-{SERVICE}-{OTHER_KEY}\n"), 0o640);
    assert_eq!(case.readers(), [expected(KEY), expected(OTHER_KEY)]);
}

#[test]
fn the_commented_section_loads_when_uncommented() {
    let lines = config::DEFAULTS.lines().filter_map(|line| line.strip_prefix("# "));
    let section = lines.skip_while(|line| *line != "[[source.reader]]").take(3);
    let section: Vec<&str> = section.collect();
    let text = section.join("\n").replace("/run/secrets/reader", "DIR/key");
    assert_eq!(Case::new(&source("passport", &text)).readers(), [expected(KEY)]);
}

#[test]
fn a_reader_without_its_service_or_its_secret_is_refused() {
    let both = reader("").problems();
    let keys: Vec<&str> = both.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        ["source.passport.reader[1].service_id", "source.passport.reader[1].secret_file"]
    );
    let key = "source.passport.reader[1].service_id";
    for wrong in ["passport", "26785a09ab164eb08407a37497a57506", &format!("{SERVICE}0")] {
        let lines = format!("service_id = \"{wrong}\"\nsecret_file = \"DIR/key\"");
        reader(&lines).assert_only(key, wrong);
    }
    let lines = format!("service_id = \"app-{SERVICE}-{KEY}\"\nsecret_file = \"DIR/key\"");
    reader(&lines).assert_only(key, "what may be an API key");
}

#[test]
fn a_secret_file_is_refused_as_that_of_a_sink_is() {
    let key = "source.passport.reader[1].secret_file";
    let with = |file: &str| reader(&format!("service_id = \"SERVICE\"\nsecret_file = \"{file}\""));
    with("DIR/nowhere").assert_only(key, "no such file");
    with("DIR/folder/").assert_only(key, "no such file");
    with("DIR/open").with("open", KEY, 0o604).assert_only(key, "open to every user");
    with("DIR/empty").with("empty", "\n", 0o600).assert_only(key, "it is empty");
    for pasted in [KEY.to_owned(), format!("app-{SERVICE}-{KEY}")] {
        with(&pasted).assert_only(key, "a secret where the name of its file belongs");
    }
}

#[test]
fn a_secret_that_no_official_client_would_use_is_refused() {
    let key = "source.passport.reader[1].secret_file";
    for (content, words) in [
        ("a-long-secret-that-is-not-a-uuid-at-all-but-random".to_owned(), "does not end in a UUID"),
        ("short".to_owned(), "shorter than 36"),
        (SERVICE.to_owned(), "the service_id itself"),
        (format!("app-{OTHER_KEY}-{KEY}"), "of another service"),
    ] {
        let lines = "service_id = \"SERVICE\"\nsecret_file = \"DIR/other\"";
        reader(lines).with("other", content, 0o600).assert_only(key, words);
    }
}

#[test]
fn one_api_key_for_two_readers_is_refused_because_it_would_not_say_what_may_be_seen() {
    let twice = source("passport", READER) + &source("visa", READER);
    Case::new(&twice).assert_only("source.visa.reader[1]", "source.passport.reader[1]");
    let two_keys = source("passport", READER) + &source("visa", &READER.replace("key", "second"));
    let case = Case::new(&two_keys).with("second", OTHER_KEY, 0o600);
    assert_eq!(case.readers(), [expected(KEY), expected(OTHER_KEY)]);
}

#[test]
fn a_reader_where_nothing_is_kept_is_refused() {
    let sink = "[[sink]]\nname = \"app\"\ntype = \"http\"\nurl = \"http://127.0.0.1:3000/\"\n";
    let text = format!("store.kind = \"none\"\n{sink}{}", source("passport", READER));
    Case::new(&text).assert_only("source.passport.reader[1]", "store.kind is \"none\"");
}

#[test]
fn unknown_keys_and_slips_in_the_brackets_are_told() {
    let lines = "service_id = \"SERVICE\"\nsecret_file = \"DIR/key\"\nservice = \"x\"";
    reader(lines).assert_only("source.passport.reader[1].service", "did you mean");
    let single = READER.replace("[[source.reader]]", "[source.reader]");
    let case = Case::new(&source("passport", &single));
    case.assert_only("source.passport.reader", "sections [[source.reader]]");
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: cli::config::Args,
}

#[test]
fn no_secret_shows_in_debug_or_among_the_values_in_force() {
    let case = Case::new(&source("passport", READER));
    let debug = format!("{:?}", case.load());
    let file = case.layers.file.as_ref().unwrap().to_str().unwrap();
    let run = |command: &str| {
        let cli = Cli::try_parse_from(["config", command, "--config", file]).unwrap();
        let mut out = Vec::new();
        assert!(cli::config::run(&cli.args, vec![], now(), &mut out).is_ok());
        String::from_utf8(out).unwrap()
    };
    let (shown, checked) = (run("show"), run("check"));
    let bytes = format!("{:?}", KEY.as_bytes());
    for text in [&debug, &shown, &checked] {
        assert!(!text.contains(KEY) && !text.contains(&bytes), "{text}");
    }
    assert!(shown.contains(&format!("source.passport.reader[1].service_id = \"{SERVICE}\"")));
    assert!(shown.contains("source.passport.reader[1].secret_file = "), "{shown}");
    assert!(checked.contains("passport may be asked about by one reader"), "{checked}");
}
