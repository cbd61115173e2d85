//! Sinks in the configuration: what is accepted, what is refused and in which words, and that no
//! secret shows. Needs every sink built in, as the default build has them.
#![cfg(all(
    feature = "sink-nats",
    feature = "sink-amqp",
    feature = "sink-redis",
    feature = "sink-sqs",
    feature = "sink-postgres"
))]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use receiptd::change::What;
use receiptd::cli;
use receiptd::clock::Timestamp;
use receiptd::config::settings::{Deliver, HttpFormat, Secret, Sink, StoreKind, To};
use receiptd::config::{self, Layers, Loaded, Problem, Problems};
use tempfile::TempDir;

/// SHA-256 of `test`.
const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// A word that stands wherever a secret may stand, and that must never come out again.
const CANARY: &str = "canary-q7x-canary";

/// A signing secret of 32 bytes, and one of 24.
const WHSEC: &str = "whsec_TWZLUTlyOEdLWXFyVHdqVVBEOElMUFpJbzJMYUxhU3c=";
const WHSEC_24: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

/// A folder with a configuration and the files it names.
struct Case {
    folder: TempDir,
    layers: Layers,
}

impl Case {
    /// The text after a source `passport`; `DIR` stands for the folder.
    fn new(text: &str) -> Self {
        let token = format!("[[source.token]]\nlabel = \"t\"\nsha256 = \"{HASH}\"\n");
        let source = "[[source]]\nname = \"passport\"\nprovider = \"gc-notify\"\n";
        Self::bare(&format!("{text}\n{source}{token}"))
    }

    fn bare(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("receiptd.toml");
        fs::write(&file, text.replace("DIR", folder.path().to_str().unwrap())).unwrap();
        Self { folder, layers: Layers { file: Some(file), ..Layers::default() } }
    }

    /// A file that only its owner may read.
    fn with(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.with_mode(name, content, 0o600)
    }

    fn with_mode(self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> Self {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.layers.env.push((name.into(), value.into()));
        self
    }

    fn load(&self) -> Result<Loaded, Problems> {
        config::load(&self.layers, now())
    }

    #[track_caller]
    fn loaded(&self) -> Loaded {
        self.load().unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// The only sink there is.
    #[track_caller]
    fn sink(&self) -> Sink {
        let sinks = self.loaded().settings.sinks;
        assert_eq!(sinks.len(), 1, "{sinks:?}");
        sinks.into_iter().next().unwrap()
    }

    #[track_caller]
    fn refused(&self) -> Problems {
        self.load().expect_err("it should have been refused")
    }

    /// The only problem there is, if its key and these words are right.
    #[track_caller]
    fn assert_only(&self, key: &str, words: &[&str]) -> Problem {
        let problems = self.refused();
        assert_eq!(problems.iter().count(), 1, "{problems}");
        let problem = problems.iter().next().unwrap().clone();
        let text = problem.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(problem.key, key, "{text}");
        for word in words {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
        problem
    }

    fn file(&self) -> &str {
        self.layers.file.as_ref().unwrap().to_str().unwrap()
    }
}

/// A sink `app` of that type with these lines.
fn sink(kind: &str, lines: &str) -> String {
    format!("[[sink]]\nname = \"app\"\ntype = \"{kind}\"\n{lines}\n")
}

const HTTP: &str = "url = \"http://127.0.0.1:3000/receipts\"";
const LOGIN: &str = "user = \"u\"\npassword_file = \"DIR/password\"";

/// What each type needs and no more.
fn least(kind: &str) -> String {
    let lines = match kind {
        "http" => HTTP.to_owned(),
        "file" => "path = \"/x.jsonl\"".to_owned(),
        "stdout" => String::new(),
        "nats" => "url = \"nats://127.0.0.1\"".to_owned(),
        "amqp" => format!("url = \"amqp://127.0.0.1\"\nrouting_key = \"q\"\n{LOGIN}"),
        "redis" => "url = \"redis://127.0.0.1\"".to_owned(),
        "sqs" => "queue_url = \"https://sqs.ca-central-1.amazonaws.com/1/q\"".to_owned(),
        "postgres" => format!("url = \"postgresql://127.0.0.1/app\"\n{LOGIN}"),
        other => panic!("{other}"),
    };
    sink(kind, &lines)
}

const TYPES: [&str; 8] = ["http", "file", "stdout", "nats", "amqp", "redis", "sqs", "postgres"];

/// A case with the file that `LOGIN` names.
fn case(text: &str) -> Case {
    Case::new(text).with("password", "pw\n")
}

// --- what is accepted -----------------------------------------------------------------------

#[test]
fn the_shape_of_the_contract_loads() {
    let text = r#"
[[sink]]                            # this shape is a contract
name = "app"
type = "http"
url = "http://127.0.0.1:3000/receipts"
format = "cloudevents"              # cloudevents | cloudevents-binary | raw
secret_files = ["DIR/hook"]   # Standard Webhooks secrets (whsec_…), the first signs first
sources = ["passport"]              # filters; absent = all
kinds = ["status", "message", "complaint", "returned-letter", "overdue", "unrecognised"]
statuses = ["permanent-failure"]
deliver = "every-change"            # or "latest"
"#;
    let case = Case::new(text).with("hook", format!("{WHSEC_24}\n"));
    assert!(case.loaded().warnings.is_empty());
    let sink = case.sink();
    assert_eq!((&*sink.name, sink.deliver, sink.include_raw), ("app", Deliver::EveryChange, false));
    assert_eq!(sink.filter.sources.as_deref(), Some(&["passport".to_owned()][..]));
    assert_eq!(sink.filter.kinds.as_deref(), Some(&What::ALL[..]));
    assert_eq!(sink.filter.statuses.as_deref(), Some(&["permanent-failure".to_owned()][..]));
    let To::Http(http) = sink.to else { panic!("{:?}", sink.to) };
    assert_eq!((http.url.port, http.url.path.as_str()), (3000, "/receipts"));
    assert_eq!((http.format, http.secrets.len()), (HttpFormat::CloudEvents, 1));
    assert_eq!(http.secrets[0].0.len(), 24);
}

#[test]
fn every_type_loads_with_what_it_needs_and_no_more() {
    for kind in TYPES {
        assert_eq!(case(&least(kind)).sink().to.word(), kind);
    }
}

#[test]
fn the_bounds_of_forwarding_hold_for_every_sink_that_does_not_set_its_own() {
    let sink = case(&least("http")).sink();
    assert_eq!(sink.attempt_ms_max, Duration::from_secs(10));
    assert_eq!((sink.attempts_max, sink.in_flight_max), (None, 64));
    assert_eq!(sink.age_s_max, Duration::from_secs(259_200));
    assert_eq!(sink.backoff_ms_min, Duration::from_millis(500));
    assert_eq!(sink.backoff_ms_max, Duration::from_secs(300));

    let own = "attempts_max = 7\nbackoff_ms_min = 1\n";
    let text = format!("[forward]\nattempts_max = 5\nage_s_max = 60\n{}{own}", least("http"));
    let case = case(&text).env("RECEIPTD_FORWARD_IN_FLIGHT_MAX", "3");
    let sink = case.sink();
    assert_eq!((sink.attempts_max, sink.in_flight_max), (Some(7), 3));
    assert_eq!(sink.age_s_max, Duration::from_secs(60));
    assert_eq!(sink.backoff_ms_min, Duration::from_millis(1));
}

#[test]
fn a_store_of_none_loads_with_a_sink_for_every_source() {
    let loaded = case(&format!("store.kind = \"none\"\n{}", least("http"))).loaded();
    assert_eq!(loaded.settings.store.kind, StoreKind::None);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(case("").loaded().settings.store.kind, StoreKind::Sqlite);
}

#[test]
fn brokers_and_databases_load_with_everything_they_can_have() {
    let nats = "url = [\"nats://a\", \"nats://[::1]:1\"]\nsubject = \"a.b\"\nstream = \"S\"\n";
    let To::Nats(nats) = case(&sink("nats", &format!("{nats}{LOGIN}"))).sink().to else { panic!() };
    let servers: Vec<_> = nats.servers.iter().map(|at| (at.host.as_str(), at.port)).collect();
    assert_eq!(servers, [("a", 4222), ("::1", 1)]);
    assert_eq!((nats.subject.as_str(), nats.stream.as_deref()), ("a.b", Some("S")));
    assert_eq!(nats.login.unwrap().password, Secret(b"pw".to_vec()));

    let amqp = format!("url = \"amqp://h/%2fv\"\nexchange = \"e\"\n{LOGIN}");
    let To::Amqp(amqp) = case(&sink("amqp", &amqp)).sink().to else { panic!() };
    assert_eq!((amqp.at.path.as_str(), amqp.exchange.as_str()), ("/v", "e"));
    assert_eq!((amqp.at.port, amqp.routing_key), (5672, None));

    let redis = "url = \"redis://h:1/3\"\nentries_max = 9\npassword_file = \"DIR/password\"";
    let To::Redis(redis) = case(&sink("redis", redis)).sink().to else { panic!() };
    assert_eq!(
        (redis.database, redis.entries_max, redis.stream.as_str()),
        (3, Some(9), "receiptd")
    );
    assert_eq!(redis.login.unwrap().user, "default");

    let sqs = "queue_url = \"http://127.0.0.1:5000/1/q.fifo\"\nregion = \"ca-central-1\"\n\
               endpoint_url = \"http://127.0.0.1:5000\"\naccess_key_id = \"k\"\n\
               secret_access_key_file = \"DIR/password\"";
    let To::Sqs(sqs) = case(&sink("sqs", sqs)).sink().to else { panic!() };
    assert_eq!(sqs.endpoint_url.as_deref(), Some("http://127.0.0.1:5000"));
    assert_eq!((sqs.region.as_str(), sqs.login.unwrap().user.as_str()), ("ca-central-1", "k"));
    let To::Sqs(sqs) = case(&least("sqs")).sink().to else { panic!() };
    assert_eq!((sqs.region.as_str(), sqs.login), ("ca-central-1", None));

    let To::Postgres(pg) = case(&least("postgres")).sink().to else { panic!() };
    assert_eq!((pg.at.path.as_str(), pg.at.is_tls, pg.schema.as_str()), ("app", false, "public"));
}

#[test]
fn headers_are_text_or_come_from_a_file() {
    let lines = format!("{HTTP}\nheaders = {{ X-A = \"b\", x-key = {{ file = \"DIR/key\" }} }}");
    let To::Http(http) = Case::new(&sink("http", &lines)).with("key", "k\n").sink().to else {
        panic!()
    };
    let header = |name: &str, value: &str| (name.to_owned(), Secret(value.into()));
    assert_eq!(http.headers, [header("x-a", "b"), header("x-key", "k")]);
}

#[test]
fn a_secret_that_the_group_may_read_is_accepted() {
    for mode in [0o400, 0o440, 0o600, 0o640] {
        let lines = format!("{HTTP}\nbearer_file = \"DIR/bearer\"");
        Case::new(&sink("http", &lines)).with_mode("bearer", CANARY, mode).loaded();
    }
}

// --- the embedded file ----------------------------------------------------------------------

/// The commented sections for sinks of the embedded file, each as its lines without the `#`.
fn examples() -> Vec<Vec<&'static str>> {
    let is_setting = |line: &str| {
        line.split_once(" = ")
            .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    config::DEFAULTS
        .split("\n\n")
        .filter(|block| block.contains("\n# [[sink]]"))
        .map(|block| {
            let lines = block.lines().map(|line| line.strip_prefix("# ").expect("a comment"));
            lines
                .skip_while(|line| *line != "[[sink]]")
                .filter(|line| *line == "[[sink]]" || is_setting(line))
                .collect()
        })
        .collect()
}

/// A case with a text whose files are made.
fn filled_in(text: &str) -> Case {
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let mut case = Case::new(
        &["/etc/receiptd/", "/run/secrets/", "/var/lib/receiptd/"]
            .iter()
            .fold(text.to_owned(), |text, folder| text.replace(folder, "DIR/")),
    );
    for name in text.split('"').filter_map(|path| {
        path.strip_prefix("/etc/receiptd/").or_else(|| path.strip_prefix("/run/secrets/"))
    }) {
        let content = match name {
            "hook" => WHSEC.to_owned(),
            name if name.ends_with(".key") => made.signing_key.serialize_pem(),
            name if name.ends_with(".crt") => made.cert.pem(),
            _ => "a secret".to_owned(),
        };
        case = case.with(name, content);
    }
    case
}

#[test]
fn there_is_a_commented_section_for_every_type_and_it_loads_when_uncommented() {
    let words: Vec<String> = examples()
        .iter()
        .map(|lines| {
            let case = filled_in(&lines.join("\n"));
            assert!(case.loaded().warnings.is_empty(), "{:?}", case.loaded().warnings);
            case.sink().to.word().to_owned()
        })
        .collect();
    assert_eq!(words, TYPES);
}

#[test]
fn all_commented_sections_load_together() {
    let text: Vec<String> = examples().iter().map(|lines| lines.join("\n")).collect();
    assert_eq!(filled_in(&text.join("\n")).loaded().settings.sinks.len(), TYPES.len());
}

#[test]
fn what_the_embedded_file_calls_a_default_is_what_is_in_force_without_it() {
    let mut count = 0;
    for lines in examples() {
        let is_default = |line: &&str| {
            line.split_once("# ").is_some_and(|(_, comment)| comment.starts_with("default"))
        };
        count += lines.iter().filter(|line| is_default(line)).count();
        let without: Vec<&str> = lines.iter().filter(|line| !is_default(line)).copied().collect();
        let (with, without) = (filled_in(&lines.join("\n")), filled_in(&without.join("\n")));
        // Folders differ, and with them the paths.
        let shown = |case: &Case| {
            format!("{:?}", case.sink()).replace(case.folder.path().to_str().unwrap(), "DIR")
        };
        assert_eq!(shown(&with), shown(&without));
    }
    assert!(count >= 10, "{count}");
}

// --- single mistakes ------------------------------------------------------------------------

/// A type, lines of a sink of it, the key that is wrong, and words of what is said of it.
const MISTAKES: [(&str, &str, &str, &[&str]); 68] = [
    ("htpp", HTTP, "type", &["did you mean `http`?"]),
    ("kafka", "url = \"http://x\"\nstream = \"s\"", "type", &["\"kafka\"", "postgres"]),
    ("http", "", "url", &["nothing", "http://127.0.0.1:3000/receipts"]),
    ("http", "url = \"127.0.0.1:3000\"", "url", &["put http:// in front"]),
    ("http", "url = \"ftp://h/\"", "url", &["http:// or https://"]),
    ("http", "url = \"http://:80/\"", "url", &["such as", "there is no host"]),
    ("http", "url = \"http:///a\"", "url", &["such as", "there is no host"]),
    ("http", "url = \"http://h:0/\"", "url", &["such as", "from 1 to 65535"]),
    ("http", "url = \"http://h:99999/\"", "url", &["such as", "from 1 to 65535"]),
    ("http", "url = \"\"", "url", &["empty text", "http://127.0.0.1:3000/receipts"]),
    ("http", "url = \"http://h ost/\"", "url", &["such as"]),
    ("http", "url = \"http://u:canary@h/\"", "url", &["a password", "bearer_file"]),
    ("http", "url = \"http://h/?code=canary\"", "url", &["a query"]),
    ("http", "url = [\"http://h/\"]", "url", &["a list"]),
    ("http", "FORMAT", "format", &["did you mean `cloudevents`?"]),
    ("http", "SUBJECT", "subject", &["type is http", "only where type is nats"]),
    ("http", "secret_fil", "secret_fil", &["an unknown key", "did you mean `secret_files`?"]),
    ("http", "password", "password", &["an unknown key"]),
    ("http", "sources = [\"pasport\"]", "sources", &["did you mean `passport`?"]),
    ("http", "sources = \"passport\"", "sources", &["in brackets"]),
    ("http", "sources = []", "sources", &["an empty list", "leave `sources` out"]),
    ("http", "sources = [1]", "sources", &["a whole number in the list"]),
    ("http", "kinds = [\"statuses\"]", "kinds", &["did you mean `status`?"]),
    ("http", "deliver = \"last\"", "deliver", &["every-change, latest"]),
    ("http", "include_raw = \"yes\"", "include_raw", &["true or false"]),
    ("http", "in_flight_max = 0", "in_flight_max", &["from 1 to 4096"]),
    ("http", "attempt_ms_max = 700000", "attempt_ms_max", &["to 600000"]),
    ("http", "backoff_ms_min = 400000", "backoff_ms_min", &["at most backoff_ms_max"]),
    ("http", "ca_file = \"DIR/password\"", "ca_file", &["there is none in it"]),
    ("http", "secret_files = [\"/nowhere\"]", "secret_files", &["no such file"]),
    ("http", "secret_files = [\"DIR/password\"]", "secret_files", &["begin with whsec_"]),
    ("http", "bearer_file = \"DIR\"", "bearer_file", &["not a file"]),
    ("http", "headers = \"x\"", "headers", &["a section"]),
    ("http", "headers = { \"x y\" = \"a\" }", "headers.x y", &["the name of an HTTP header"]),
    ("http", "headers = { Authorization = \"a\" }", "headers.Authorization", &["bearer_file"]),
    ("http", "headers = { host = \"a\" }", "headers.host", &["HTTP itself"]),
    ("http", "headers = { webhook-id = \"a\" }", "headers.webhook-id", &["signs the event"]),
    ("http", "headers = { x-a = \"a\\nb\" }", "headers.x-a", &["control characters"]),
    ("http", "headers = { x-a = 1 }", "headers.x-a", &["a whole number"]),
    ("http", "headers = { x-a = {} }", "headers.x-a.file", &["nothing"]),
    ("http", "headers = { x-a = \"a\", X-A = \"b\" }", "headers.X-A", &["first used at"]),
    ("file", "", "path", &["nothing"]),
    ("file", "path = \"/a/\"", "path", &["\"/a/\""]),
    ("file", "path = \"DIR\"", "path", &["it is a folder"]),
    ("file", "path = \"/dev/null\"", "path", &["it is a device or a pipe"]),
    ("file", "path = \"DIR/password/a\"", "path", &["password is no folder"]),
    ("file", "path = \"/a\"\nfile_bytes_max = 1", "file_bytes_max", &["from 4096"]),
    ("stdout", "path = \"/a\"", "path", &["type is stdout", "only where type is file"]),
    ("nats", "url = \"nats://h/x\"", "url", &["without a path"]),
    ("nats", "url = [\"nats://h\", \"tls://h\"]", "url", &["the same for all"]),
    ("nats", "url = \"nats://u:canary@h\"", "url", &["user", "password_file"]),
    ("nats", "url = \"nats://h\"\nsubject = \"a.*\"", "subject", &["without spaces, * and >"]),
    ("nats", "url = \"nats://h\"\nstream = \"a.b\"", "stream", &["JetStream"]),
    ("nats", "url = \"nats://h\"\nuser = \"u\"", "password_file", &["nothing"]),
    ("amqp", "url = \"amqp://h\"\nLOGIN", "exchange", &["neither", "the name of the queue"]),
    ("amqp", "url = \"amqp://h\"\nexchange = \"e\"", "user", &["user and password_file"]),
    ("amqp", "url = \"amqp://h\"\nexchange = \"LONG\"\nLOGIN", "exchange", &["255 bytes"]),
    ("redis", "url = \"redis://h/one\"", "url", &["the number of a database"]),
    ("redis", "url = \"redis://h\"\nca_file = \"DIR/c\"", "ca_file", &["begins with rediss://"]),
    ("redis", "url = \"redis://h\"\nentries_max = 0", "entries_max", &["from 1"]),
    ("sqs", "queue_url = \"https://sqs.x.amazonaws.com/\"", "queue_url", &["the URL of a queue"]),
    ("sqs", "queue_url = \"https://h/1/q\"\nregion = \"r\"", "endpoint_url", &["none of AWS"]),
    ("sqs", "QUEUE\nregion = \"us-east-1\"", "region", &["the queue is in \"ca-central-1\""]),
    ("sqs", "QUEUE\naccess_key_id = \"a\"", "secret_access_key_file", &["nothing"]),
    ("sqs", "QUEUE\nendpoint_url = \"https://h/x\"", "endpoint_url", &["without a path"]),
    ("postgres", "url = \"postgresql://h\"\nLOGIN", "url", &["the name of the database"]),
    ("postgres", "PG\nschema = \"A\"\nLOGIN", "schema", &["the name of a schema"]),
    (
        "postgres",
        "PG\nLOGIN\ncert_file = \"DIR/c\"\nkey_file = \"DIR/k\"",
        "cert_file",
        &["tls = true"],
    ),
];

#[test]
fn a_single_mistake_gives_a_single_problem_that_says_what_to_do() {
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    for (kind, lines, key, words) in MISTAKES {
        let mut lines = lines
            .replace("FORMAT", "format = \"cloudevent\"")
            .replace("SUBJECT", "subject = \"a\"")
            .replace("LOGIN", LOGIN)
            .replace("LONG", &"e".repeat(256))
            .replace("QUEUE", "queue_url = \"https://sqs.ca-central-1.amazonaws.com/1/q\"")
            .replace("PG", "url = \"postgresql://h/app\"");
        if matches!(lines.as_str(), "secret_fil" | "password") {
            lines.push_str(" = \"canary\"");
        }
        if kind == "http" && !lines.contains("url") && !lines.is_empty() {
            lines = format!("{HTTP}\n{lines}");
        }
        let case = Case::new(&sink(kind, &lines)).with("password", "pw");
        let case = case.with("c", made.cert.pem()).with("k", made.signing_key.serialize_pem());
        let problem = case.assert_only(&format!("sink.app.{key}"), words);
        assert!(!problem.to_string().contains("canary"), "{problem}");
    }
}

#[test]
fn a_key_of_another_type_is_told_from_an_unknown_one() {
    for kind in TYPES {
        for other in TYPES {
            let own = least(kind);
            let theirs = least(other);
            let extra = theirs.lines().filter(|line| {
                let key = line.split(' ').next().unwrap();
                !["[[sink]]", "name", "type"].contains(&key)
                    && !own.lines().any(|line| line.starts_with(&format!("{key} ")))
            });
            for line in extra.filter(|line| !line.is_empty()) {
                let key = line.split(' ').next().unwrap();
                if ["nats", "redis"].contains(&kind) && ["user", "password_file"].contains(&key) {
                    continue;
                }
                let words = [format!("type is {kind}"), "only where type is".to_owned()];
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let text = format!("{own}\n{line}");
                case(&text).assert_only(&format!("sink.app.{key}"), &words);
            }
        }
    }
}

#[test]
fn an_unknown_type_is_one_problem_whatever_stands_beside_it() {
    for kind in TYPES {
        let text = least(kind).replace(&format!("type = \"{kind}\""), "type = \"kafka\"");
        case(&text).assert_only("sink.app.type", &["\"kafka\"", "one of http, file, stdout"]);
    }
}

#[test]
fn two_sinks_of_one_name_or_on_one_file_are_refused() {
    case(&(least("http") + &least("stdout"))).assert_only("sink.app.name", &["first used at"]);
    let other = least("file").replace("\"app\"", "\"b\"");
    case(&(least("file") + &other)).assert_only("sink.b.path", &["a path no other sink has"]);
}

/// A sink `name` on that file.
fn on_file(name: &str, path: &str) -> String {
    least("file").replace("\"app\"", &format!("{name:?}")).replace("\"/x.jsonl\"", path)
}

#[test]
fn a_file_that_something_else_uses_is_refused_however_it_is_spelt() {
    for (path, what) in [
        ("DIR/receiptd.db", "the state of this receiver"),
        ("DIR/receiptd.callbacks.db", "the journal of this receiver"),
        ("DIR/sub/../receiptd.callbacks.db", "the journal of this receiver"),
        ("DIR/link", "the journal of this receiver"),
        ("DIR/hard", "the state of this receiver"),
        ("DIR/dangling", "a file of this receiver's database"),
        ("DIR/receiptd.callbacks.db-wal", "a file of this receiver's database"),
        ("DIR/receiptd.callbacks.db-reserve", "a file of this receiver's database"),
        ("DIR/receiptd.db.lock", "a file of this receiver's database"),
        ("DIR/receiptd.db.control", "a file of this receiver's database"),
        ("DIR/receiptd.toml", "the configuration"),
        ("DIR/hook", "the file that sink.secret_files names"),
        ("DIR/bearer", "the file that sink.bearer_file names"),
        ("DIR/key", "the file that sink.headers.x-a.file names"),
        ("DIR/cert", "the file that tls.cert_file names"),
    ] {
        let secrets = "secret_files = [\"DIR/hook\"]\nbearer_file = \"DIR/bearer.000001\"\n\
                       headers = { x-a = { file = \"DIR/key\" } }";
        let tls = "[tls]\ncert_file = \"DIR/cert\"\nkey_file = \"DIR/tls-key\"\n";
        let store = "store.path = \"DIR/receiptd.db\"\n";
        let file = on_file("lines", &format!("{path:?}"));
        let text = format!("{store}{tls}{}{file}", sink("http", &format!("{HTTP}\n{secrets}")));
        let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let case = Case::new(&text)
            .with("hook", WHSEC)
            .with("bearer.000001", CANARY)
            .with("key", CANARY)
            .with("cert", made.cert.pem())
            .with("tls-key", made.signing_key.serialize_pem())
            .with("receiptd.db", "")
            .with("receiptd.callbacks.db", "");
        let folder = case.folder.path();
        fs::create_dir(folder.join("sub")).unwrap();
        std::os::unix::fs::symlink("receiptd.callbacks.db", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("receiptd.db-wal", folder.join("dangling")).unwrap();
        fs::hard_link(folder.join("receiptd.db"), folder.join("hard")).unwrap();
        let words = [what, "a file that nothing else uses"];
        case.assert_only("sink.lines.path", &words);
    }
}

#[test]
fn two_sinks_that_would_write_rename_or_remove_the_same_file_are_refused() {
    for (first, second) in [
        ("DIR/a.jsonl", "DIR/./a.jsonl"),
        ("DIR/a.jsonl", "DIR/link"),
        ("DIR/a.jsonl", "DIR/a.jsonl.000001"),
        ("DIR/a.jsonl.1234567", "DIR/a.jsonl"),
    ] {
        let sinks = [on_file("a", &format!("{first:?}")), on_file("b", &format!("{second:?}"))];
        let case = Case::new(&sinks.concat());
        let link = case.folder.path().join("link");
        std::os::unix::fs::symlink("a.jsonl", link).unwrap();
        case.assert_only("sink.b.path", &["a path no other sink has", "sink.a", "first used at"]);
    }
    // Neither is a name that the other gets.
    let beside = [on_file("a", "\"DIR/a.jsonl\""), on_file("b", "\"DIR/a.jsonl.1\"")];
    Case::new(&beside.concat()).loaded();
    let out = least("stdout") + &least("stdout").replace("\"app\"", "\"b\"");
    Case::new(&out).assert_only("sink.b.type", &["one sink of type stdout", "sink.app"]);
}

#[test]
fn a_folder_that_is_not_there_is_refused_by_check_and_keeps_no_receiver_from_starting() {
    let case = Case::new(&on_file("app", "\"DIR/none/changes.jsonl\""));
    let folder = case.folder.path().join("none");
    let what = format!("there is no folder {}", folder.display());
    let loaded = case.loaded();
    assert!(loaded.warnings[0].message.contains(&what), "{:?}", loaded.warnings);
    let cli = Cli::try_parse_from(["config", "check", "--config", case.file()]).unwrap();
    let refused = cli::config::run(&cli.args, vec![], now(), &mut Vec::new()).unwrap_err();
    assert_eq!(refused.code, cli::Failure::CONFIG);
    let said = refused.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains(&what), "{said}");
    fs::create_dir(folder).unwrap();
    assert!(run(&["check", "--config", case.file()]).contains("the configuration is right"));
}

#[test]
fn what_was_expected_names_each_key_once() {
    let text = format!("{}colour = \"red\"", least("file"));
    let problem = Case::new(&text).assert_only("sink.app.colour", &["an unknown key"]);
    let mut keys: Vec<&str> = problem.expected.split([' ', ',']).collect();
    keys.retain(|key| !key.is_empty());
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count, "{}", problem.expected);
}

#[test]
fn what_deserves_a_look_is_told_beside_problems() {
    let text = least("http") + "statuses = [\"deliverd\"]\ncolour = \"red\"";
    let said = Case::new(&text).refused().to_string();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("has 1 problem:"), "{said}");
    assert!(said.contains("warning: sink.app.statuses"), "{said}");
    assert!(said.contains("`delivered`?"), "{said}");
}

#[test]
fn single_brackets_are_told() {
    case("[sink]\nname = \"a\"").assert_only("sink", &["two brackets", "[[sink]]"]);
}

#[test]
fn a_secret_that_every_user_may_read_or_replace_is_refused_wherever_it_stands() {
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let header = "headers = { x-a = { file = \"DIR/open\" } }";
    let tls = "url = \"https://h/\"\ncert_file = \"DIR/c\"\nkey_file = \"DIR/open\"";
    let cases = [
        ("http", format!("{HTTP}\nsecret_files = [\"DIR/open\"]"), "secret_files"),
        ("http", format!("{HTTP}\nbearer_file = \"DIR/open\""), "bearer_file"),
        ("http", format!("{HTTP}\n{header}"), "headers.x-a.file"),
        ("http", tls.to_owned(), "key_file"),
        ("nats", "url = \"nats://h\"\ntoken_file = \"DIR/open\"".to_owned(), "token_file"),
        ("redis", "url = \"redis://h\"\npassword_file = \"DIR/open\"".to_owned(), "password_file"),
    ];
    for (kind, lines, key) in cases {
        for mode in [0o644, 0o604, 0o666, 0o602] {
            let case = Case::new(&sink(kind, &lines))
                .with("c", made.cert.pem())
                .with_mode("open", CANARY, mode);
            let mode = format!("{mode:04o}");
            let words = ["open to every user", &mode, "chmod o=", "0400"];
            let problem = case.assert_only(&format!("sink.app.{key}"), &words);
            assert!(!problem.to_string().contains("canary"));
        }
    }
}

#[test]
fn a_signing_secret_that_is_none_is_refused_and_not_quoted() {
    let of = |bytes: usize| format!("whsec_{}", data_encoding::BASE64.encode(&vec![7; bytes]));
    for (content, word) in [
        (CANARY.to_owned(), "does not begin with whsec_"),
        (format!("whsec_{CANARY}!"), "is not base64"),
        ("whsec_".to_owned(), "holds 0 bytes"),
        (of(23), "holds 23 bytes"),
        (of(65), "holds 65 bytes"),
        (String::new(), "it is empty"),
        ("\n".to_owned(), "it is empty"),
    ] {
        let lines = format!("{HTTP}\nsecret_files = [\"DIR/hook\"]");
        let case = Case::new(&sink("http", &lines)).with("hook", &content);
        let problem = case.assert_only("sink.app.secret_files", &[word]);
        assert!(!problem.to_string().contains("canary"), "{problem}");
    }
    for bytes in [24, 64] {
        let lines = format!("{HTTP}\nsecret_files = [\"DIR/hook\"]");
        Case::new(&sink("http", &lines)).with("hook", of(bytes)).loaded();
    }
}

#[test]
fn a_secret_where_the_name_of_its_file_belongs_is_not_quoted() {
    for key in ["secret_files = [\"whsec_canary\"]", "bearer_file = \"whsec_canary\""] {
        let problems = Case::new(&sink("http", &format!("{HTTP}\n{key}"))).refused().to_string();
        assert!(problems.contains("a secret where the name of its file"), "{problems}");
        assert!(!problems.contains("canary"), "{problems}");
    }
}

#[test]
fn half_a_login_and_two_ways_to_log_in_are_refused() {
    let nats = "url = \"nats://h\"\n";
    let both = format!("{nats}{LOGIN}\ntoken_file = \"DIR/password\"");
    case(&sink("nats", &both)).assert_only("sink.app.token_file", &["one way to log in"]);
    let half = format!("{nats}password_file = \"DIR/password\"");
    case(&sink("nats", &half)).assert_only("sink.app.user", &["nothing"]);
}

// --- where nothing is kept ------------------------------------------------------------------

#[test]
fn a_store_of_none_refuses_what_would_lose_callbacks() {
    let none = "store.kind = \"none\"\n";
    case(none).assert_only("store.kind", &["no [[sink]]"]);
    case(&format!("{none}{}", least("stdout")))
        .assert_only("sink.app.type", &["keeps nothing", "store.kind is \"none\""]);
    case(&format!("{none}{}deliver = \"latest\"\n", least("http")))
        .assert_only("sink.app.deliver", &["every-change", "store.kind is \"none\""]);
    Case::bare(&format!("{none}{}", least("http"))).assert_only("store.kind", &["no [[source]]"]);
    let second = "[[source]]\nname = \"b\"\nprovider = \"notify\"\n[[source.token]]\n\
                  label = \"t\"\nsha256 = \"HASH\"\n"
        .replace("HASH", HASH);
    case(&format!("{none}{}sources = [\"b\"]\n{second}", least("http")))
        .assert_only("store.kind", &["no sink takes every status, message"]);
    case("store.kind = \"nothing\"").assert_only("store.kind", &["one of sqlite, none"]);
}

#[test]
fn a_store_of_none_refuses_filters_through_which_something_falls() {
    for (filter, lost) in [
        ("kinds = [\"status\"]", "message, complaint, returned-letter, unrecognised"),
        ("statuses = [\"delivered\"]", "no sink takes every status of \"passport\""),
    ] {
        let text = format!("store.kind = \"none\"\n{}{filter}\n", least("http"));
        case(&text).assert_only("store.kind", &[lost, "be lost"]);
    }
}

// --- warnings -------------------------------------------------------------------------------

#[test]
fn a_status_that_nobody_uses_is_a_warning_because_the_set_is_open() {
    let text = least("http") + "statuses = [\"permanent-failure\", \"deliverd\", \"bounced\"]\n";
    let loaded = case(&text).loaded();
    let texts: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains("sink.app.statuses") && texts[0].contains("`delivered`?"));
    assert!(texts[1].contains("\"bounced\""), "{texts:?}");
    assert_eq!(loaded.settings.sinks[0].filter.statuses.as_ref().unwrap().len(), 3);
}

#[test]
fn statuses_without_the_kind_status_are_a_warning() {
    let text = least("http") + "kinds = [\"message\"]\nstatuses = [\"delivered\"]\n";
    let warnings = case(&text).loaded().warnings;
    assert!(warnings[0].to_string().contains("does not hold \"status\""), "{warnings:?}");
}

#[test]
fn a_rotation_to_the_same_signing_secret_is_a_warning() {
    let lines = format!("{HTTP}\nsecret_files = [\"DIR/a\", \"DIR/b\"]");
    let case = Case::new(&sink("http", &lines)).with("a", WHSEC).with("b", WHSEC);
    assert!(case.loaded().warnings[0].message.contains("the same secret"));
}

// --- everything at once ---------------------------------------------------------------------

#[test]
fn all_mistakes_are_listed_in_one_go_and_in_the_order_of_the_file() {
    let text = r#"
[forward]
attempts_max = -1
[[sink]]
name = "a"
type = "http"
url = "http://u:canary@h/"
secret_files = ["/nowhere/hook"]
sources = ["nobody"]
kinds = ["bounce"]
deliver = "sometimes"
subject = "x"
colour = "red"
[[sink]]
name = "a"
type = "natz"
[[sink]]
name = "c"
type = "amqp"
url = "amqp://h?canary"
in_flight_max = 100000
"#;
    let problems = Case::new(text).refused();
    let mut keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert!(!problems.to_string().contains("canary"), "{problems}");
    let lines: Vec<String> = problems.iter().map(|problem| problem.origin.to_string()).collect();
    let line = |text: &String| text.rsplit(':').next().unwrap().parse::<u32>().unwrap();
    assert!(lines.is_sorted_by_key(line), "{lines:?}");
    let mut expected = vec![
        "forward.attempts_max",
        "sink.a.url",
        "sink.a.secret_files",
        "sink.a.sources",
        "sink.a.kinds",
        "sink.a.deliver",
        "sink.a.subject",
        "sink.a.colour",
        "sink.a.name",
        "sink.a.type",
        "sink.c.user",
        "sink.c.exchange",
        "sink.c.url",
        "sink.c.in_flight_max",
    ];
    keys.sort_unstable();
    expected.sort_unstable();
    assert_eq!(keys, expected, "{problems}");
}

#[test]
fn a_file_cut_off_anywhere_is_answered_and_never_panics() {
    let whole: String = examples().iter().map(|lines| lines.join("\n") + "\n").collect();
    let case = Case::bare("");
    for end in 0..whole.len() {
        fs::write(case.file(), &whole.as_bytes()[..end]).unwrap();
        drop(case.load());
    }
}

// --- the commands ---------------------------------------------------------------------------

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: cli::config::Args,
}

/// The output of `receiptd config …`.
fn run(args: &[&str]) -> String {
    let cli = Cli::try_parse_from([&["config"], args].concat()).unwrap();
    let mut out = Vec::new();
    assert!(cli::config::run(&cli.args, vec![], now(), &mut out).is_ok());
    String::from_utf8(out).unwrap()
}

fn secretive() -> Case {
    let lines = format!(
        "{HTTP}\nsecret_files = [\"DIR/hook\"]\nbearer_file = \"DIR/bearer\"\n\
         headers = {{ x-a = \"{CANARY}\", x-b = {{ file = \"DIR/bearer\" }} }}\n\
         kinds = [\"status\"]\nsources = [\"passport\"]\nstatuses = [\"delivered\"]"
    );
    Case::new(&sink("http", &lines)).with("hook", WHSEC).with("bearer", CANARY)
}

#[test]
fn show_lists_sinks_with_their_origin_and_no_secret() {
    let case = secretive();
    let debug = format!("{:?}", case.loaded());
    for text in [debug, run(&["show", "--config", case.file(), "--format", "json"])] {
        let bytes = format!("{:?}", CANARY.as_bytes());
        for secret in ["canary", "TWZLUTl", bytes.as_str()] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
    let text = run(&["show", "--config", case.file()]);
    for line in [
        "sink.app.url = \"http://127.0.0.1:3000/receipts\"",
        "sink.app.kinds = [\"status\"]",
        "sink.app.deliver = \"every-change\"",
        "sink.app.attempt_ms_max = 10000",
        "sink.app.headers.x-a = \"<redacted>\"",
    ] {
        assert!(text.lines().any(|shown| shown.starts_with(line)), "{line}: {text}");
    }
    let bound = text.lines().find(|line| line.starts_with("sink.app.attempt_ms_max")).unwrap();
    assert!(bound.ends_with("# default"), "{bound}");
}

#[test]
fn check_says_what_each_sink_is_sent() {
    let text = run(&["check", "--config", secretive().file()]);
    let line =
        "  app (http) is sent changes of kind status from passport, only those to delivered\n";
    assert!(text.contains(line), "{text}");
    let http = |lines: &str| sink("http", &format!("{HTTP}\n{lines}"));
    for (lines, said) in [
        (http(""), "app (http) is sent every change, unsigned\n"),
        (
            http(
                "kinds = [\"status\", \"message\", \"complaint\"]\nstatuses = [\"sent\", \"failed\"]",
            ),
            "changes of kind status, message or complaint, of status only those to sent or failed, \
             unsigned\n",
        ),
        (http("deliver = \"latest\""), "is sent the latest changes, unsigned\n"),
    ] {
        let text = run(&["check", "--config", Case::new(&lines).file()]);
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_of_a_check_is_no_failure() {
    let case = secretive();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_receiptd"));
    command.args(["config", "check", "--config", case.file()]);
    let (read, written) = std::io::pipe().unwrap();
    drop(read);
    let ended = command.stdout(written).output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn a_secret_that_changed_in_its_file_is_another_setting() {
    let case = secretive();
    let before = case.sink();
    assert_eq!(before, case.sink());
    let path = case.folder.path().join("bearer");
    fs::write(Path::new(&path), "another").unwrap();
    assert_ne!(before, case.sink());
}
