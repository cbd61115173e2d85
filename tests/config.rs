//! The configuration: what is accepted, what is refused and in which words, which layer wins, and
//! what never shows.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use receiptd::cli;
use receiptd::clock::Timestamp;
use receiptd::config::settings::{JwtAlgorithm, LogFormat, Store, StoreKind};
use receiptd::config::{self, Flags, Layers, Loaded, Origin, Problem, Problems};
use receiptd::provider::Provider;
use tempfile::TempDir;

/// SHA-256 of `test`.
const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// SHA-256 of `other`.
const OTHER_HASH: &str = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

/// A word that stands wherever a secret may stand, and that must never come out again.
const CANARY: &str = "canary-q7x-canary";

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

/// A folder with a configuration and whatever files it names.
struct Case {
    folder: TempDir,
    layers: Layers,
}

impl Case {
    /// `DIR` in the text stands for the folder.
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("receiptd.toml");
        fs::write(&file, text.replace("DIR", folder.path().to_str().unwrap())).unwrap();
        Self { folder, layers: Layers { file: Some(file), ..Layers::default() } }
    }

    fn without_file() -> Self {
        Self { layers: Layers::default(), folder: tempfile::tempdir().unwrap() }
    }

    fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.folder.path().join(name), content).unwrap();
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.layers.env.push((name.into(), value.into()));
        self
    }

    fn flags(mut self, flags: Flags) -> Self {
        self.layers.flags = flags;
        self
    }

    fn load(&self) -> Result<Loaded, Problems> {
        config::load(&self.layers, now())
    }

    #[track_caller]
    fn loaded(&self) -> Loaded {
        self.load().unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[track_caller]
    fn refused(&self) -> Problems {
        self.load().expect_err("it should have been refused")
    }

    /// The only problem there is.
    #[track_caller]
    fn only(&self) -> Problem {
        let problems = self.refused();
        assert_eq!(problems.iter().count(), 1, "{problems}");
        problems.iter().next().unwrap().clone()
    }

    fn file(&self) -> &str {
        self.layers.file.as_ref().unwrap().to_str().unwrap()
    }
}

/// A source `a` with one good token, and `more` keys.
fn source(provider: &str, more: &str) -> String {
    let token = format!("[[source.token]]\nlabel = \"t\"\nsha256 = \"{HASH}\"\n");
    format!("[[source]]\nname = \"a\"\nprovider = \"{provider}\"\n{more}\n{token}")
}

#[track_caller]
fn assert_problem(problem: &Problem, key: &str, words: &[&str]) {
    let text = problem.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(problem.key, key, "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

// --- the defaults ---------------------------------------------------------------------------

#[test]
fn the_defaults_load_by_themselves() {
    let settings = Case::without_file().loaded().settings;
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.admin_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(settings.store.path, Path::new("receiptd.db"));
    assert_eq!(settings.limits.body_bytes_max, 1 << 20);
    assert_eq!(settings.limits.ack_wait_ms_max.as_millis(), 4_000);
    assert_eq!(settings.log.format, LogFormat::Text);
    assert!(settings.sources.is_empty() && settings.tls.is_none());
}

#[test]
fn the_embedded_file_is_accepted_as_a_file() {
    Case::new(config::DEFAULTS).loaded();
}

#[test]
fn every_limit_has_a_key_in_the_defaults() {
    let limits = format!("{:?}", Case::without_file().loaded().settings.limits);
    let fields = limits.split(['{', ',']).filter_map(|part| Some(part.split_once(": ")?.0.trim()));
    let fields: Vec<_> = fields.collect();
    assert_eq!(fields.len(), 13, "{fields:?}");
    for field in fields {
        assert!(config::DEFAULTS.contains(&format!("\n{field} = ")), "{field}");
    }
}

/// The commented lines of the embedded file that would be settings: all between the heading and
/// the next commented `[`.
fn example(heading: &str) -> Vec<&'static str> {
    let mut lines = config::DEFAULTS
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .skip_while(|line| *line != heading);
    let first = lines.next().expect(heading);
    let inside = lines.take_while(|line| !line.starts_with('[')).filter(|line| {
        line.split_once(" = ").is_some_and(|(key, _)| !key.contains([' ', '<', ':']))
    });
    [first].into_iter().chain(inside).collect()
}

/// Puts something real in place of what an example can only hint at.
fn filled_in(lines: &[&str]) -> String {
    lines
        .join("\n")
        .replace("<64 hex digits of SHA-256 of the bearer>", HASH)
        .replace("<64 hex digits>", HASH)
        .replace("/etc/receiptd/", "DIR/")
        .replace("/run/secrets/", "DIR/")
}

#[test]
fn every_commented_example_loads_when_uncommented() {
    let (tls, source) = (example("[tls]"), example("[[source]]"));
    let token_and_more = example("[[source.token]]");
    let (token, more) = token_and_more.split_at(4);
    assert_eq!((tls.len(), source.len(), more.len()), (4, 4, 5), "{more:?}");

    let (cert, key) = certificate();
    let loaded = Case::new(&filled_in(&[source.as_slice(), token, &tls].concat()))
        .with("tls.crt", &cert)
        .with("tls.key", key)
        .with("ca.crt", &cert)
        .loaded();
    assert_eq!(loaded.settings.sources[0].credentials.tokens[0].label, "2026-11");
    assert!(loaded.settings.tls.is_some());

    let (va, adobe): (Vec<&str>, Vec<&str>) =
        more.iter().partition(|line| line.starts_with("signature"));
    let adobe = filled_in(&[source.as_slice(), &adobe].concat()).replace("gc-notify", "ajo");
    let adobe = Case::new(&adobe).with("ajo.pem", rsa_public_key()).loaded();
    let credentials = &adobe.settings.sources[0].credentials;
    assert!(credentials.jwt.is_some() && credentials.header.is_some());
    assert_eq!(adobe.settings.sources[0].dialect.sandbox.as_deref(), Some("prod"));

    let va = filled_in(&[source.as_slice(), &va].concat()).replace("gc-notify", "va-notify");
    let va = Case::new(&va).with("va-api-key", "a secret\n").loaded();
    assert!(va.settings.sources[0].credentials.signature.is_some());
}

#[test]
fn the_leeway_of_the_commented_example_is_the_default() {
    let settings = jwt(RS256_PEM, rsa_public_key()).loaded().settings;
    let leeway_s = settings.sources[0].credentials.jwt.as_ref().unwrap().leeway_s;
    assert!(config::DEFAULTS.contains(&format!("leeway_s = {leeway_s} }}")));
    assert!(config::DEFAULTS.contains(&format!("is {leeway_s} unless said otherwise")));
}

// --- the contract ---------------------------------------------------------------------------

#[test]
fn the_shape_of_the_contract_loads() {
    let text = format!(
        r#"
listen = "127.0.0.1:8080"          # callbacks
admin_listen = "127.0.0.1:9090"    # health, metrics; later the read API
[store]
path = "receiptd.db"
[[source]]
name = "passport"                   # label in the database, logs, metrics; [a-z0-9-]
provider = "gc-notify"
path = "/callbacks/passport"        # default: /callbacks/<name>
[[source.token]]
label = "2026-11"
sha256 = "{HASH}"
not_after = "2027-01-31"            # optional: last day on which it is accepted, UTC
"#
    );
    let settings = Case::new(&text).loaded().settings;
    let [source] = settings.sources.as_slice() else { panic!("{settings:?}") };
    assert_eq!((&*source.name, source.path.as_str()), ("passport", "/callbacks/passport"));
    assert_eq!(source.dialect.provider, Provider::GcNotify);
    let token = &source.credentials.tokens[0];
    assert_eq!((token.label.as_str(), &token.sha256[..2]), ("2026-11", &[0x9f, 0x86][..]));
    assert_eq!(token.not_after.unwrap().to_string(), "2027-01-31");
}

#[test]
fn a_path_that_is_left_out_is_made_from_the_name() {
    let settings = Case::new(&source("notify", "")).loaded().settings;
    assert_eq!(settings.sources[0].path, "/callbacks/a");
}

#[test]
fn a_day_may_be_a_date_of_toml() {
    let text = source("notify", "") + "not_after = 2027-01-31\n";
    let settings = Case::new(&text).loaded().settings;
    let day = settings.sources[0].credentials.tokens[0].not_after.unwrap();
    assert_eq!(day.to_string(), "2027-01-31");
}

#[test]
fn the_journal_stands_beside_the_state_file() {
    for (state, journal) in [
        ("receiptd.db", "receiptd.callbacks.db"),
        ("/data/a.b.db", "/data/a.b.callbacks.db"),
        ("./x.y/z.db", "./x.y/z.callbacks.db"),
    ] {
        let (path, network_file_system) = (state.into(), false);
        let kind = StoreKind::Sqlite;
        let store = Store { kind, path, free_bytes_min: 0, reserve_bytes: 0, network_file_system };
        assert_eq!(store.journal_path(), PathBuf::from(journal));
    }
}

// --- everything at once ---------------------------------------------------------------------

/// Eighteen mistakes.
const MISTAKES: &str = r#"
listen = "localhost:8080"
colour = "red"
body_bytes_max = 4
[store]
path = "receiptd.sqlite"
[limits]
header_bytes_max = 4096
body_byte_max = 10
queue_callbacks_max = "many"
[log]
level = "INFO"
[tls]
cert_file = "/nowhere/tls.crt"
[[source]]
name = "Passport Office"
provider = "gc-notify"
[[source.token]]
label = "a"
sha256 = "canary-q7x-canary"
[[source]]
name = "b"
provider = "gcnotify"
path = "callbacks"
[[source]]
name = "c"
provider = "notify"
ims_org = "x"
[[source.token]]
label = "a"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
not_after = "2026-02-30"
"#;

#[test]
fn all_mistakes_of_a_file_are_listed_in_one_go_and_in_its_order() {
    let problems = Case::new(MISTAKES).refused();
    let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    let expected = [
        "listen",
        "colour",
        "body_bytes_max",
        "store.path",
        "limits.header_bytes_max",
        "limits.body_byte_max",
        "limits.queue_callbacks_max",
        "log.level",
        "tls.key_file",
        "tls.cert_file",
        "source[1].name",
        "source[1].token.a.sha256",
        "source.b",
        "source.b.provider",
        "source.b.path",
        "source.c.ims_org",
        "source.c.token.a.sha256",
        "source.c.token.a.not_after",
    ];
    assert_eq!(keys, expected, "{problems}");
}

#[test]
fn the_list_is_numbered_names_lines_and_fits_80_columns() {
    let text = Case::new(MISTAKES).refused().to_string();
    assert!(text.starts_with("the configuration has 18 problems:\n\n  1. listen"), "{text}");
    assert!(text.contains("\n 18. source.c.token.a.not_after"), "{text}");
    assert!(text.contains("receiptd.toml:8)"), "{text}");
    assert!(text.contains("hint:     did you mean `body_bytes_max`?"), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80 || !line.trim_start().contains(' '), "{line}");
    }
}

#[test]
fn a_file_cut_off_anywhere_is_answered_and_never_panics() {
    let case = Case::new("");
    let whole = MISTAKES.to_owned() + &source("ajo", "jwt = { algorithm = \"HS256\" }");
    for end in 0..whole.len() {
        fs::write(case.file(), &whole.as_bytes()[..end]).unwrap();
        match case.load() {
            Ok(loaded) => assert!(loaded.settings.sources.is_empty()),
            Err(problems) => assert!(!problems.to_string().contains("canary")),
        }
    }
}

// --- single mistakes ------------------------------------------------------------------------

#[test]
fn a_syntax_error_is_one_problem_with_line_and_column() {
    let problem = Case::new("listen = \"127.0.0.1:1\"\nlog = { format = }\n").only();
    assert_problem(&problem, "--config", &["receiptd.toml:2", "column 1"]);
}

#[test]
fn a_file_that_is_not_there_is_a_problem_with_its_name() {
    let layers = Layers { file: Some("/nowhere/receiptd.toml".into()), ..Layers::default() };
    let problems = config::load(&layers, now()).unwrap_err();
    let words = ["/nowhere/receiptd.toml", "no such file"];
    assert_problem(problems.iter().next().unwrap(), "--config", &words);
}

#[test]
fn a_single_mistake_gives_a_single_problem_that_says_what_to_do() {
    let cases: [(&str, &str, &str); 21] = [
        ("limits = 5", "limits", "a section [limits]"),
        ("limits.body_bytes_max = 0", "limits.body_bytes_max", "from 1 to"),
        ("limits.body_bytes_max = 1e3", "limits.body_bytes_max", "with a fraction"),
        ("limits.body_bytes_max = \"9\"", "limits.body_bytes_max", "without quotes"),
        ("limits.header_bytes_max = 8191", "limits.header_bytes_max", "from 8192"),
        ("limits.idle_ms_max = 600001", "limits.idle_ms_max", "to 600000"),
        ("limits.idle_ms_max = -1", "limits.idle_ms_max", "-1"),
        ("limits.drain_ms_max = 4000", "limits.ack_wait_ms_max", "limits.drain_ms_max"),
        ("limits.queue_bytes_max = 99", "limits.queue_bytes_max", "limits.body_bytes_max"),
        ("idle_ms_max = 5", "idle_ms_max", "belongs in [limits]"),
        ("[store]\nlevel = \"info\"", "store.level", "belongs in [log]"),
        ("store.network_file_system = 1", "store.network_file_system", "true or false"),
        ("store.path = \"a.callbacks.db\"", "store.path", "without \".callbacks\""),
        ("store.path = \"data/\"", "store.path", "ending in .db"),
        ("store.path = \".db\"", "store.path", "ending in .db"),
        ("listen = 8080", "listen", "in quotes"),
        ("listen = \":8080\"", "listen", "0.0.0.0:8080"),
        ("listen = \"\"", "listen", "empty text"),
        ("admin_listen = \"127.0.0.1:8080\"", "admin_listen", "a port of its own"),
        ("admin_listen = \"0.0.0.0:8080\"", "admin_listen", "a port of its own"),
        ("log.format = \"jsn\"", "log.format", "did you mean `json`?"),
    ];
    for (text, key, word) in cases {
        assert_problem(&Case::new(text).only(), key, &[word]);
    }
}

#[test]
fn a_single_mistake_in_a_source_gives_a_single_problem_that_says_what_to_do() {
    let signature = "signature = { secret_file = \"DIR/receiptd.toml\" }";
    let cases = [
        ("gcnotify", "", "source.a.provider", "did you mean `gc-notify`?"),
        ("notify", "provder = 1", "source.a.provder", "did you mean `provider`?"),
        ("notify", "path = \"/a b\"", "source.a.path", "as they are written"),
        ("notify", "path = \"/a?b=c\"", "source.a.path", "the query"),
        ("ajo", signature, "source.a.signature", "va-notify or notify"),
        ("gc-notify", "sandbox = \"prod\"", "source.a.sandbox", "provider is gc-notify"),
    ];
    for (provider, more, key, word) in cases {
        assert_problem(&Case::new(&source(provider, more)).only(), key, &[word]);
    }
    let single_brackets = Case::new("[source]\nname = \"a\"\n").only();
    assert_problem(&single_brackets, "source", &["two brackets", "[[source]]"]);
}

#[test]
fn two_sources_of_one_name_are_refused() {
    let problem = Case::new(&(source("notify", "") + &source("notify", ""))).only();
    assert_problem(&problem, "source.a.name", &["first used at", "receiptd.toml:2"]);
}

#[test]
fn two_sources_on_one_path_are_refused_even_if_one_path_is_a_default() {
    let other = |path: &str| source("notify", path).replace("\"a\"", "\"b\"");
    let explicit = other("path = \"/callbacks/a\"");
    for text in [source("notify", "") + &explicit, explicit + &source("notify", "")] {
        let problem = Case::new(&text).only();
        let words = ["\"/callbacks/a\"", "a path no other source has", "first used at"];
        assert!(problem.key.ends_with(".path"), "{problem}");
        assert_problem(&problem, &problem.key, &words);
    }
}

#[test]
fn names_outside_their_alphabet_are_refused() {
    for name in ["", "Passport", "a_b", "a.b", "é", "a b", &"a".repeat(65)] {
        let text = source("notify", "").replace("\"a\"", &format!("{name:?}"));
        assert_problem(&Case::new(&text).only(), "source[1].name", &[]);
    }
}

#[test]
fn two_unusable_names_are_two_problems_and_not_a_shared_path_too() {
    let bad = source("notify", "").replace("\"a\"", "\"A\"");
    assert_eq!(Case::new(&(bad.clone() + &bad)).refused().iter().count(), 2);
}

#[test]
fn ports_chosen_by_the_system_do_not_collide() {
    Case::new("listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"").loaded();
}

#[test]
fn a_hash_that_is_none_is_refused_with_what_to_do() {
    let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for (hash, word) in [
        (CANARY, "looks like a bearer"),
        (&HASH[1..], "63 hex digits"),
        ("<64 hex digits of SHA-256 of the bearer>", "receiptd token new"),
        (&"0".repeat(64), "64 zeros"),
        (of_nothing, "empty text"),
    ] {
        let problem = Case::new(&source("notify", "").replace(HASH, hash)).only();
        assert_problem(&problem, "source.a.token.t.sha256", &[word]);
    }
}

#[test]
fn a_source_without_any_credential_is_refused() {
    let problem = Case::new("[[source]]\nname = \"a\"\nprovider = \"notify\"\n").only();
    assert_problem(&problem, "source.a", &["no credential", "receiptd token new"]);
}

#[test]
fn a_source_whose_only_tokens_are_past_their_last_day_is_refused() {
    let text = source("notify", "") + "not_after = \"2026-11-21\"\n";
    let problem = Case::new(&text).only();
    assert_problem(&problem, "source.a.token", &["\"t\"", "2026-11-21", "2026-11-22"]);
}

#[test]
fn a_token_is_good_on_its_last_day() {
    let loaded = Case::new(&(source("notify", "") + "not_after = \"2026-11-22\"\n")).loaded();
    assert!(loaded.warnings.iter().all(|warning| !warning.message.contains("refused")));
}

/// A token that was accepted until January.
fn old_token() -> String {
    format!(
        "[[source.token]]\nlabel = \"old\"\nsha256 = \"{OTHER_HASH}\"\nnot_after = 2026-01-31\n"
    )
}

#[test]
fn a_token_past_its_last_day_beside_a_live_credential_is_only_a_warning() {
    let header = format!("header = {{ name = \"x-secret\", sha256 = \"{HASH}\" }}\n");
    let head = "[[source]]\nname = \"a\"\nprovider = \"notify\"\n";
    for text in [source("notify", "") + &old_token(), format!("{head}{header}{}", old_token())] {
        let warnings = Case::new(&text).loaded().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert_eq!(warnings[0].key, "source.a.token.old");
        assert!(warnings[0].message.contains("2026-01-31"));
    }
}

#[test]
fn a_token_whose_last_day_is_within_two_weeks_is_a_warning() {
    for (last_day, expected) in [("2026-11-22", 1), ("2026-12-06", 1), ("2026-12-07", 0)] {
        let text = source("notify", "") + &format!("not_after = \"{last_day}\"\n");
        let warnings = Case::new(&text).loaded().warnings;
        assert_eq!(warnings.len(), expected, "{last_day}: {warnings:?}");
        assert!(warnings.iter().all(|warning| warning.message.contains(last_day)));
    }
}

#[test]
fn a_rotation_to_the_same_secret_is_a_warning() {
    let again = format!("[[source.token]]\nlabel = \"new\"\nsha256 = \"{HASH}\"\n");
    let warnings = Case::new(&(source("notify", "") + &again)).loaded().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].to_string().contains("the same secret as the token \"t\""));
}

#[test]
fn two_tokens_of_one_label_are_refused() {
    let again = format!("[[source.token]]\nlabel = \"t\"\nsha256 = \"{OTHER_HASH}\"\n");
    let problem = Case::new(&(source("notify", "") + &again)).only();
    assert_problem(&problem, "source.a.token.t.label", &["first used at"]);
}

#[test]
fn a_last_day_that_is_no_day_is_refused() {
    let days = ["\"31.01.2027\"", "2027-01-31T10:00:00Z", "\"2027-01-31T10:00\"", "20270131"];
    for day in days.into_iter().chain(["\"2027-02-29\""]) {
        let text = source("notify", "") + &format!("not_after = {day}\n");
        assert_problem(&Case::new(&text).only(), "source.a.token.t.not_after", &["2027-01-31"]);
    }
}

#[test]
fn a_header_that_is_none_or_taken_is_refused() {
    for (name, word) in [("Authorization", "source.token"), ("x y", "name of"), ("host", "HTTP")] {
        let header = format!("header = {{ name = \"{name}\", sha256 = \"{OTHER_HASH}\" }}");
        let problem = Case::new(&source("ajo", &header)).only();
        assert_problem(&problem, "source.a.header.name", &[word]);
    }
}

// --- files that settings name ---------------------------------------------------------------

fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn rsa_key() -> rcgen::KeyPair {
    rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap()
}

fn rsa_public_key() -> String {
    rsa_key().public_key_pem()
}

fn ec_key() -> rcgen::KeyPair {
    rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

#[test]
fn tls_wants_both_files_and_something_usable_in_them() {
    let (cert, key) = certificate();
    let both = "[tls]\ncert_file = \"DIR/a.crt\"\nkey_file = \"DIR/a.key\"\n";
    let case = |cert: &str, key: &str| Case::new(both).with("a.crt", cert).with("a.key", key);
    case(&cert, &key).loaded();
    assert_problem(&case(&key, &key).only(), "tls.cert_file", &["there is none in it"]);
    assert_problem(&case(&cert, "").only(), "tls.key_file", &["private key"]);
    let missing = Case::new(both).with("a.crt", &cert).only();
    assert_problem(&missing, "tls.key_file", &["a.key", "no such file"]);
    let half = Case::new("[tls]\ncert_file = \"DIR/a.crt\"\n").with("a.crt", &cert).only();
    assert_problem(&half, "tls.key_file", &["nothing"]);
    let folder = Case::new(&format!("{both}client_ca_file = \"DIR\"\n"));
    let folder = folder.with("a.crt", &cert).with("a.key", &key).only();
    assert_problem(&folder, "tls.client_ca_file", &["not a file"]);
}

#[test]
fn one_line_end_after_a_secret_does_not_belong_to_it() {
    for (content, secret) in
        [("s e\n", "s e"), ("s e\r\n", "s e"), ("s e", "s e"), ("s e\n\n", "s e\n"), (" s ", " s ")]
    {
        let text = source("va-notify", "signature = { secret_file = \"DIR/key\" }");
        let settings = Case::new(&text).with("key", content).loaded().settings;
        let read = settings.sources[0].credentials.signature.clone().unwrap();
        assert_eq!(read.0, secret.as_bytes());
    }
}

#[test]
fn an_empty_secret_is_refused() {
    let text = source("va-notify", "signature = { secret_file = \"DIR/key\" }");
    let problem = Case::new(&text).with("key", "\n").only();
    assert_problem(&problem, "source.a.signature.secret_file", &["it is empty"]);
}

/// A source that is called with JWTs, and a file `key`.
fn jwt(keys: &str, content: impl AsRef<[u8]>) -> Case {
    let text = format!("[[source]]\nname = \"a\"\nprovider = \"ajo\"\njwt = {{ {keys} }}\n");
    Case::new(&text).with("key", content)
}

const RS256_PEM: &str = "algorithm = \"RS256\", public_key_file = \"DIR/key\"";
const ES256_PEM: &str = "algorithm = \"ES256\", public_key_file = \"DIR/key\"";
const HS256: &str = "algorithm = \"HS256\", secret_file = \"DIR/key\"";

/// A public RSA key of 1024 bits, which no verifier of ours takes.
const SHORT_RSA_KEY: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCrv28RwzfTey5swbFp2vrSRfcE
HCoSsCYTiz+UpJ1Jz0T5npKCTTh+yJOlcQDYOy2zNGDOeT1Ztl+3Rmb9amP6kku9
BiJ/yTJNmf4ZguLuITgM7v8+HJZvBk9fPOEK/cljqOwieV3jS+vJoggW1WdrWsZx
MKhhvfsjM7z346M+NwIDAQAB
-----END PUBLIC KEY-----
";

#[test]
fn a_key_that_fits_its_algorithm_loads() {
    for (keys, content, algorithm) in [
        (RS256_PEM, rsa_public_key(), JwtAlgorithm::Rs256),
        (ES256_PEM, ec_key().public_key_pem(), JwtAlgorithm::Es256),
        (HS256, "0123456789abcdef\n".into(), JwtAlgorithm::Hs256),
    ] {
        let settings = jwt(keys, content).loaded().settings;
        let jwt = settings.sources[0].credentials.jwt.as_ref().unwrap();
        assert_eq!((jwt.algorithm, jwt.keys.len()), (algorithm, 1));
    }
}

#[test]
fn a_key_that_could_never_verify_is_refused() {
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    for (keys, content, word) in [
        (RS256_PEM, ec_key().public_key_pem(), "no RSA public key"),
        (ES256_PEM, rsa_public_key(), "no P-256 public key"),
        (ES256_PEM, p384.public_key_pem(), "P-256"),
        (RS256_PEM, rsa_key().serialize_pem(), "a private key"),
        (RS256_PEM, certificate().0, "a certificate"),
        (RS256_PEM, SHORT_RSA_KEY.into(), "1024 bits"),
        (RS256_PEM, String::new(), "no RSA public key"),
    ] {
        let problem = jwt(keys, content).only();
        assert_problem(&problem, "source.a.jwt.public_key_file", &[word]);
    }
    let short = jwt(HS256, "0123456789abcde\n").only();
    assert_problem(&short, "source.a.jwt.secret_file", &["15 bytes"]);
}

#[test]
fn the_algorithm_is_pinned_to_one_of_three_and_to_one_file() {
    for (keys, key, word) in [
        ("algorithm = \"none\", secret_file = \"DIR/key\"", "algorithm", "HS256, RS256, ES256"),
        ("algorithm = \"HS512\", secret_file = \"DIR/key\"", "algorithm", "HS256, RS256, ES256"),
        ("secret_file = \"DIR/key\"", "algorithm", "nothing"),
        ("algorithm = \"HS256\", public_key_file = \"DIR/key\"", "public_key_file", "secret_file"),
        ("algorithm = \"ES256\", secret_file = \"DIR/key\"", "secret_file", "jwks_file"),
        ("algorithm = \"HS256\", jwks_file = \"DIR/key\"", "jwks_file", "secret_file"),
    ] {
        let problem = jwt(keys, "0123456789abcdef").only();
        assert_problem(&problem, &format!("source.a.jwt.{key}"), &[word]);
    }
    let both = "algorithm = \"RS256\", jwks_file = \"DIR/key\", public_key_file = \"DIR/key\"";
    assert_problem(&jwt(both, "").only(), "source.a.jwt", &["public_key_file and jwks_file"]);
    assert_problem(&jwt("algorithm = \"RS256\"", "").only(), "source.a.jwt", &["exactly one of"]);
}

#[test]
fn only_those_keys_of_a_set_are_kept_that_fit_the_algorithm() {
    use data_encoding::BASE64URL_NOPAD as BASE64;
    let (x, y) = (BASE64.encode(&[1; 32]), BASE64.encode(&[2; 32]));
    let (n, short) = (BASE64.encode(&[0xff; 256]), BASE64.encode(&[0xff; 128]));
    let set = serde_json::json!({ "keys": [
        { "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "good", "use": "sig" },
        { "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "for encryption", "use": "enc" },
        { "kty": "EC", "crv": "P-384", "x": x, "y": y, "kid": "other curve" },
        { "kty": "EC", "crv": "P-256", "x": "AQ", "y": y, "kid": "cut short" },
        { "kty": "EC", "crv": "P-256", "x": x, "y": y, "alg": "ES384", "kid": "other algorithm" },
        { "kty": "RSA", "n": n, "e": "AQAB", "kid": "rsa" },
        { "kty": "RSA", "n": short, "e": "AQAB", "kid": "short rsa" },
        { "kty": "oct", "k": x, "kid": "shared secret" },
        { "kty": "AKP", "kid": "of tomorrow" },
        { "kty": "EC", "crv": "P-256", "x": x, "y": y },
        7,
    ]});
    for (algorithm, expected) in
        [("ES256", vec![Some("good".to_owned()), None]), ("RS256", vec![Some("rsa".to_owned())])]
    {
        let keys = format!("algorithm = \"{algorithm}\", jwks_file = \"DIR/key\"");
        let settings = jwt(&keys, set.to_string()).loaded().settings;
        let jwt = settings.sources[0].credentials.jwt.as_ref().unwrap();
        let kids: Vec<_> = jwt.keys.iter().map(|key| key.kid.clone()).collect();
        assert_eq!(kids, expected);
    }
}

#[test]
fn a_key_set_without_a_fitting_key_is_refused() {
    let keys = "algorithm = \"RS256\", jwks_file = \"DIR/key\"";
    for (content, word) in
        [("{\"keys\": []}", "none of its 0 keys"), ("[]", "not a JSON Web Key Set"), ("", "not a")]
    {
        let problem = jwt(keys, content).only();
        assert_problem(&problem, "source.a.jwt.jwks_file", &[word]);
    }
}

// --- layers ---------------------------------------------------------------------------------

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_the_defaults() {
    let text = "listen = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:11\"\n[log]\nlevel = \"warn\"";
    let loaded = Case::new(text)
        .env("RECEIPTD_LISTEN", "127.0.0.1:2")
        .env("RECEIPTD_ADMIN_LISTEN", "127.0.0.1:22")
        .flags(Flags { listen: Some("127.0.0.1:3".into()), ..Flags::default() })
        .loaded();
    assert_eq!(loaded.settings.listen.port(), 3);
    assert_eq!(loaded.settings.admin_listen.port(), 22);
    assert_eq!(loaded.settings.log.level, tracing::Level::WARN);
    let origin = |key| {
        let value = loaded.effective.iter().find(|value| value.key == key).unwrap();
        value.origin.to_string()
    };
    assert_eq!(origin("listen"), "flag --listen");
    assert_eq!(origin("admin_listen"), "environment RECEIPTD_ADMIN_LISTEN");
    assert!(origin("log.level").ends_with("receiptd.toml:4"));
    assert_eq!(origin("log.format"), "default");
}

#[test]
fn every_setting_with_a_default_has_a_variable() {
    for value in &Case::without_file().loaded().effective {
        let name = format!("RECEIPTD_{}", value.key.replace('.', "_").to_uppercase());
        let text = value.value.as_str().map_or_else(|| value.value.to_string(), str::to_owned);
        let loaded = Case::without_file().env(&name, &text).loaded();
        let set = loaded.effective.iter().find(|set| set.key == value.key).unwrap();
        assert_eq!((&set.value, &set.origin), (&value.value, &Origin::Environment(name)));
    }
}

#[test]
fn values_of_the_environment_are_checked_like_those_of_a_file() {
    let problems = Case::without_file()
        .env("RECEIPTD_LIMITS_BODY_BYTES_MAX", "lots")
        .env("RECEIPTD_STORE_NETWORK_FILE_SYSTEM", "yes")
        .env("RECEIPTD_TLS_CERT_FILE", "/nowhere/a.crt")
        .refused();
    let mut keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    keys.sort_unstable();
    let expected =
        ["limits.body_bytes_max", "store.network_file_system", "tls.cert_file", "tls.key_file"];
    assert_eq!(keys, expected, "{problems}");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let loaded = Case::without_file().env("RECEIPTD_LISTEN", "").env("RECEIPTD_TYPO", "").loaded();
    assert_eq!(loaded.settings.listen.port(), 8080);
}

#[test]
fn a_misspelt_variable_is_refused_with_the_name_that_was_meant() {
    let problem = Case::without_file().env("RECEIPTD_LISTN", CANARY).only();
    assert_problem(&problem, "RECEIPTD_LISTN", &["did you mean `RECEIPTD_LISTEN`?"]);
    let port = Case::without_file().env("RECEIPTD_PORT", "8080").only();
    assert_problem(&port, "RECEIPTD_PORT", &["an unknown variable"]);
}

#[test]
fn variables_that_are_not_settings_of_ours_are_ignored() {
    for (name, value) in [
        ("PATH", "/bin"),
        ("RECEIPTD_CONFIG", "/nowhere"),
        ("RECEIPTD_TOKEN", CANARY),
        ("RECEIPTD_TEST_SEED", "7"),
        ("RECEIPTD_SERVICE_HOST", "10.0.0.1"),
        ("RECEIPTD_SERVICE_PORT", "8080"),
        ("RECEIPTD_SERVICE_PORT_HTTP", "8080"),
        ("RECEIPTD_PORT", "tcp://10.0.0.1:8080"),
        ("RECEIPTD_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("RECEIPTD_PORT_8080_TCP_PROTO", "tcp"),
        ("RECEIPTD_PORT_8080_TCP_PORT", "8080"),
        ("RECEIPTD_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("RECEIPTD_ADMIN_SERVICE_HOST", "10.0.0.1"),
        ("RECEIPTD_ADMIN_PORT", "tcp://10.0.0.1:9090"),
        ("RECEIPTD_ADMIN_PORT_9090_TCP_PORT", "9090"),
    ] {
        Case::without_file().env(name, value).loaded();
    }
}

#[test]
fn the_state_file_has_two_variables_that_must_agree() {
    let short = Case::without_file().env("RECEIPTD_DB", "a.db");
    assert_eq!(short.loaded().settings.store.path, Path::new("a.db"));
    short.env("RECEIPTD_STORE_PATH", "a.db").loaded();
    let both = Case::without_file().env("RECEIPTD_DB", "a.db").env("RECEIPTD_STORE_PATH", "b.db");
    assert_problem(&both.only(), "store.path", &["a.db", "b.db"]);
}

#[test]
fn the_file_may_be_named_by_a_variable_and_the_flag_wins() {
    let env = vec![("RECEIPTD_CONFIG".to_owned(), "env.toml".to_owned())];
    let layers = Layers::new(None, env.clone(), Flags::default());
    assert_eq!(layers.file.as_deref(), Some(Path::new("env.toml")));
    let layers = Layers::new(Some("flag.toml".into()), env, Flags::default());
    assert_eq!(layers.file.as_deref(), Some(Path::new("flag.toml")));
}

#[test]
fn a_container_with_one_source_needs_no_file() {
    let settings = Case::without_file()
        .env("RECEIPTD_SOURCE", "passport=gc-notify")
        .env("RECEIPTD_TOKEN_SHA256", &format!("{HASH}, 2026-11={OTHER_HASH}"))
        .loaded()
        .settings;
    let source = &settings.sources[0];
    assert_eq!((&*source.name, source.path.as_str()), ("passport", "/callbacks/passport"));
    let labels = source.credentials.tokens.iter().map(|token| token.label.as_str());
    assert_eq!(labels.collect::<Vec<_>>(), ["environment", "2026-11"]);
}

#[test]
fn sources_and_tokens_of_flags_replace_those_of_the_environment_and_join_those_of_the_file() {
    let settings = Case::new(&source("notify", ""))
        .env("RECEIPTD_TOKEN_SHA256", &format!("gone={OTHER_HASH}"))
        .flags(Flags { token_sha256: vec![OTHER_HASH.into()], ..Flags::default() })
        .loaded()
        .settings;
    let labels = settings.sources[0].credentials.tokens.iter().map(|token| token.label.as_str());
    assert_eq!(labels.collect::<Vec<_>>(), ["t", "flag"]);
}

#[test]
fn a_token_of_a_flag_wants_exactly_one_source() {
    let flags = Flags { token_sha256: vec![HASH.into()], ..Flags::default() };
    let none = Case::without_file().flags(flags.clone()).only();
    assert_problem(&none, "source.token", &["0 sources", "--source NAME=PROVIDER"]);
    let two = source("notify", "") + &source("notify", "").replace("\"a\"", "\"b\"");
    let two = Case::new(&two).flags(flags).only();
    assert_problem(&two, "source.token", &["2 sources", "flag --token-sha256"]);
}

#[test]
fn a_source_of_a_flag_is_checked_like_one_of_a_file() {
    let flags = Flags { sources: vec!["a".into(), "B=notify".into()], ..Flags::default() };
    let text = Case::without_file().flags(flags).refused().to_string();
    for word in ["NAME=PROVIDER", "source[1].name", "no credential", "flag --source"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

// --- secrets --------------------------------------------------------------------------------

#[test]
fn a_secret_in_a_file_never_shows_in_a_problem() {
    let quoted = format!("\"{CANARY}\"");
    let texts = [
        source("notify", "").replace(HASH, CANARY),
        source("notify", "").replace(&format!("\"{HASH}\""), CANARY),
        source("notify", &format!("secret = {quoted}")),
        source("notify", &format!("header = {quoted}")),
        source("notify", &format!("header = {{ name = \"x-a\", sha256 = {quoted} }}")),
        source("va-notify", &format!("signature = {quoted}")),
        format!("token = {quoted}"),
        format!("[[source]]\nname = \"a\"\nprovider = \"notify\"\ntoken = {quoted}\n"),
        format!("[[source]]\nname = \"a\"\nprovider = \"notify\"\ntoken = [{quoted}]\n"),
        format!("store = {quoted}"),
        format!("listen = \"a\" {CANARY}"),
        format!("listen = \"{CANARY}"),
    ];
    for text in texts {
        let problems = Case::new(&text).refused();
        assert!(!format!("{problems}{problems:?}").contains("canary"), "{problems}");
    }
}

#[test]
fn a_bearer_given_as_its_hash_never_shows_in_a_problem() {
    for token in [CANARY.to_owned(), format!("label={CANARY}"), format!("{CANARY}==")] {
        let flags = Flags { token_sha256: vec![token.clone()], ..Flags::default() };
        let case = Case::new(&source("notify", "")).flags(flags).env("RECEIPTD_X", CANARY);
        let case = case.env("RECEIPTD_TOKEN", CANARY);
        let (problems, layers) = (case.refused(), format!("{:?}", case.layers));
        assert!(!format!("{problems}{problems:?}{layers}").contains("canary"), "{problems}");
        let case = Case::new(&source("notify", "")).env("RECEIPTD_TOKEN_SHA256", &token);
        assert!(!case.refused().to_string().contains("canary"));
    }
}

#[test]
fn a_secret_never_shows_in_what_was_loaded() {
    let va = source("va-notify", "signature = { secret_file = \"DIR/key\" }");
    for case in [Case::new(&va).with("key", CANARY), jwt(HS256, CANARY)] {
        let debug = format!("{:?}", case.loaded());
        let bytes = format!("{:?}", CANARY.as_bytes());
        assert!(!debug.contains("canary") && !debug.contains(&bytes), "{debug}");
    }
}

// --- the commands ---------------------------------------------------------------------------

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: cli::config::Args,
}

/// Runs `receiptd config …`: its output, or the failure's code and text.
fn run(args: &[&str], env: &[(&str, &str)]) -> Result<String, (u8, String)> {
    let cli = Cli::try_parse_from([&["config"], args].concat()).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let mut out = Vec::new();
    let outcome = cli::config::run(&cli.args, env, now(), &mut out);
    outcome.map_err(|failure| (failure.code, failure.to_string()))?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn check_lists_everything_and_exits_with_78() {
    let case = Case::new(MISTAKES);
    let (code, text) = run(&["check", "--config", case.file()], &[]).unwrap_err();
    assert_eq!(code, 78);
    assert!(text.contains("18 problems") && text.contains("hint: `receiptd config default`"));
}

#[test]
fn check_says_what_serve_would_do() {
    let none = run(&["check"], &[]).unwrap();
    assert!(none.contains("one called `default`"), "{none}");
    let token = format!("old={HASH}");
    let text = run(&["check", "--source", "a=ajo", "--token-sha256", &token], &[]).unwrap();
    assert!(text.contains("a (ajo) posts to /callbacks/a"), "{text}");
}

#[test]
fn check_warns_of_a_store_whose_folder_is_not_there_yet() {
    let case = Case::new(&source("notify", ""));
    let here = case.folder.path().display().to_string();
    let check = |path: &str| run(&["check", "--config", case.file(), "--db", path], &[]);
    for there in [&format!("{here}/receiptd.db"), "receiptd.db"] {
        assert!(!check(there).unwrap().contains("warning"), "{there}");
    }
    let said = check(&format!("{here}/none/receiptd.db")).unwrap();
    assert!(said.contains("warning: store.path (flag --db): there is no folder"), "{said}");
}

#[test]
fn without_a_store_nothing_is_asked_of_the_folder_where_one_would_be() {
    let sink = "[[sink]]\nname = \"app\"\ntype = \"http\"\nurl = \"http://127.0.0.1:9/\"\n";
    let store = "[store]\nkind = \"none\"\npath = \"DIR/none/receiptd.db\"\n";
    let case = Case::new(&format!("{store}{}{sink}", source("notify", "")));
    let loaded = case.loaded();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn check_prints_warnings() {
    let case = Case::new(&(source("notify", "") + &old_token()));
    let text = run(&["check", "--config", case.file()], &[]).unwrap();
    assert!(text.contains("warning: source.a.token.old ("), "{text}");
}

#[test]
fn show_prints_every_value_with_its_origin_and_no_secret() {
    let case = Case::new(&source("va-notify", "signature = { secret_file = \"DIR/key\" }"));
    let case = case.with("key", CANARY);
    for format in ["text", "table", "json", "csv"] {
        let args = ["show", "--config", case.file(), "--db", "x.db", "--format", format];
        let text = run(&args, &[("RECEIPTD_LOG_LEVEL", "debug")]).unwrap();
        for word in ["flag --db", "environment RECEIPTD_LOG_LEVEL", "default", "9f86d081…"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains("canary") && !text.contains(HASH), "{text}");
    }
}

#[test]
fn show_as_json_keeps_types() {
    let text = run(&["show", "--format", "json"], &[]).unwrap();
    let values: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let body = values.iter().find(|value| value["key"] == "limits.body_bytes_max").unwrap();
    assert_eq!((&body["value"], &body["origin"]), (&1_048_576.into(), &"default".into()));
}

#[test]
fn what_show_prints_without_sources_is_a_configuration() {
    let text = run(&["show"], &[]).unwrap();
    assert_eq!(text.lines().count(), 32, "{text}");
    Case::new(&text).loaded();
}

#[test]
fn default_prints_the_embedded_file() {
    assert_eq!(run(&["default"], &[]).unwrap(), config::DEFAULTS);
}
