//! The layering of the architecture, held as text: what a room must not know it does not name.
//!
//! Tests at the end of a file are not looked at, and neither are comments: words are free there.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file without its tests; what is longer hides something.
const LINES_MAX: usize = 500;

/// A source file: its path under `src/`, and its lines without comments and tests.
struct File {
    path: String,
    code: Vec<(usize, String)>,
    lines: usize,
}

impl File {
    fn read(root: &Path, path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let end = text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        let text = &text[..end];
        let code = (1..)
            .zip(text.lines())
            .map(|(number, line)| (number, without_comment(line).to_owned()))
            .filter(|(_, line)| !line.trim().is_empty())
            .collect();
        Self { path, code, lines: text.lines().count() }
    }

    /// Whether it is in that room: a folder, or a file of that name.
    fn is_in(&self, room: &str) -> bool {
        self.path == format!("{room}.rs") || self.path.starts_with(&format!("{room}/"))
    }

    /// Everything it names under `crate::`, as whole paths, `{…}` spread out.
    fn names(&self) -> Vec<(usize, String)> {
        let joined: String =
            self.code.iter().map(|(number, line)| format!("{number}\u{1}{line}\n")).collect();
        let mut names = Vec::new();
        for (at, _) in joined.match_indices("crate::") {
            let before = &joined[..at];
            let line = before.rfind('\u{1}').map_or(0, |mark| {
                let start = before[..mark].rfind('\n').map_or(0, |end| end + 1);
                before[start..mark].parse().unwrap()
            });
            // The rest of a `use` may go over lines, whose numbers are in the way.
            let rest: String = joined[at + "crate::".len()..]
                .split('\n')
                .map(|line| line.split_once('\u{1}').map_or(line, |(_, code)| code).trim())
                .take(20)
                .collect();
            spread("", &rest, &mut |path| names.push((line, path)));
        }
        names
    }

    /// Its lines that hold that text.
    fn lines_with(&self, text: &str) -> Vec<String> {
        let found = self.code.iter().filter(|(_, line)| line.contains(text));
        found.map(|(number, line)| format!("{}:{number}: {}", self.path, line.trim())).collect()
    }
}

/// A line up to `//`, unless that is part of an address.
fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

/// Calls `tell` with each path at the start of `text`; returns what follows them.
fn spread<'t>(prefix: &str, text: &'t str, tell: &mut dyn FnMut(String)) -> &'t str {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let path = format!("{prefix}{word}");
    if let Some(rest) = rest.strip_prefix("::") {
        return spread(&format!("{path}::"), rest, tell);
    }
    let Some(mut rest) = rest.strip_prefix('{').filter(|_| word.is_empty()) else {
        tell(path.strip_suffix("::self").unwrap_or(&path).to_owned());
        return rest;
    };
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if rest.is_empty() || rest.starts_with('}') {
            return rest.strip_prefix('}').unwrap_or(rest);
        }
        let after = spread(prefix, rest, tell);
        // `as` and whatever else is no path.
        rest = after.find([',', '}']).map_or("", |at| &after[at..]);
    }
}

fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    assert!(paths.len() > 40, "{}", paths.len());
    paths.iter().map(|path| File::read(&root, path)).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), paths);
        } else {
            paths.push(entry.path());
        }
    }
}

/// Whether `path` is `room` or something in it.
fn is_under(path: &str, room: &str) -> bool {
    path == room || path.strip_prefix(room).is_some_and(|rest| rest.starts_with("::"))
}

/// The files of `room` name nothing of ours outside these, and nothing at all of the forbidden.
fn assert_knows_only(room: &str, allowed: &[&str], forbidden: &[&str]) {
    let files = files();
    let files: Vec<_> = files.iter().filter(|file| file.is_in(room)).collect();
    assert!(!files.is_empty(), "there is no room {room}");
    for file in files {
        for (line, name) in file.names() {
            let is_allowed =
                is_under(&name, room) || allowed.iter().any(|known| is_under(&name, known));
            assert!(is_allowed, "{}:{line}: {room} must not know {name}", file.path);
        }
        for word in forbidden {
            assert_eq!(file.lines_with(word), Vec::<String>::new(), "{room} must not know {word}");
        }
    }
}

/// Nothing that leaves the process, in any of its forms.
const IO: [&str; 7] = ["std::fs", "std::io", "std::net", "std::env", "tokio", "rusqlite", "hyper"];

#[test]
fn the_senders_rules_know_no_io() {
    assert_knows_only("sender", &["callback", "provider"], &IO);
}

/// What lives come to is told by the lives: a truth made by the code under test would prove nothing.
#[test]
fn the_lives_of_messages_know_no_reader_and_no_merge() {
    let files = [
        "scenario",
        "mix",
        "life",
        "chance",
        "people",
        "notify",
        "notify_row",
        "notify_body",
        "ajo",
        "ajo_body",
        "json",
    ];
    let allowed = ["callback", "clock", "sender"];
    for file in files {
        let mut forbidden = IO.to_vec();
        forbidden.extend(["provider::", "Precedence", "Fingerprint", "replay::", "super::super"]);
        assert_knows_only(&format!("simulate/{file}"), &allowed, &forbidden);
    }
}

/// The sender is told by the lives what to send and by the rules what follows: whoever could read a
/// body, or look into the database, could spare the receiver what it must be able to bear.
#[test]
fn what_sends_the_lives_knows_no_reader_and_no_database() {
    let files = ["engine", "schedule", "worker", "connection", "http", "report"];
    let forbidden = ["rusqlite", "std::fs", "std::env", "tokio::", "hyper", "super::super"];
    for file in files {
        assert_knows_only(&format!("simulate/{file}"), &["callback", "sender"], &forbidden);
    }
    let allowed = ["client::Target", "provider::notify::sign"];
    assert_knows_only("simulate/request", &allowed, &forbidden);
    let allowed = ["clock::Timestamp", "state::compare::PERSONAL"];
    assert_knows_only("simulate/verify", &allowed, &forbidden);
}

/// It judges by answers alone: whoever could look into the database would judge only ours.
#[test]
fn the_doctor_knows_no_database_and_no_parser() {
    let allowed = [
        "callback::Kind",
        "client",
        "clock",
        "config::settings::Secret",
        "provider::Provider",
        "provider::notify::sign",
        "sender",
    ];
    assert_knows_only("doctor", &allowed, &["rusqlite", "std::fs", "std::env", "provider::read"]);
}

#[test]
fn the_reader_of_paths_sees_every_form() {
    let mut names = Vec::new();
    let mut read = |text: &str| spread("", text, &mut |path| names.push(path)).to_owned();
    read("a::b;");
    read("c::{self, d::E, f::{G, H as I}, j};");
    read("k::l(m)");
    assert_eq!(names, ["a::b", "c", "c::d::E", "c::f::G", "c::f::H", "c::j", "k::l"]);
    assert_eq!(without_comment("x(\"http://a\"); // said"), "x(\"http://a\"); ");
}

#[test]
fn receive_knows_no_providers_words() {
    let allowed = [
        "admission",
        "clock",
        "config",
        "journal",
        "telemetry",
        "provider",
        "provider::Provider",
        "provider::is_probe",
        "relay",
    ];
    assert_knows_only("receive", &allowed, &["rusqlite", "delivered", "notification_id"]);
    for file in files().iter().filter(|file| file.is_in("receive")) {
        for line in file.lines_with("provider::") {
            let named = line.split("provider::").nth(1).unwrap();
            let is_allowed = ["Provider", "is_probe(", "notify::signature_agrees("]
                .iter()
                .any(|allowed| named.starts_with(allowed));
            assert!(is_allowed, "{line}");
        }
    }
}

#[test]
fn the_journal_knows_no_providers_words() {
    let allowed =
        ["callback", "clock", "provider::Dialect", "provider::Provider", "sqlite", "state"];
    assert_knows_only(
        "journal",
        &allowed,
        &["hyper", "delivered", "notification_id", "serde_json"],
    );
}

#[test]
fn merge_and_callback_do_no_io() {
    assert_knows_only("merge", &["callback", "clock"], &IO);
    assert_knows_only("callback", &["clock"], &IO);
    assert_knows_only("ends", &[], &IO);
    assert_knows_only("clock", &[], &IO);
}

#[test]
fn providers_know_no_sql_and_no_http() {
    assert_knows_only("provider", &["callback", "clock", "ends"], &IO);
}

#[test]
fn the_state_knows_no_provider() {
    let allowed =
        ["callback", "change", "clock", "ends", "merge", "provider::CALLBACK_EVENTS_MAX", "sqlite"];
    assert_knows_only("state", &allowed, &["hyper", "tokio", "std::fs", "std::env"]);
}

#[test]
fn sqlite_knows_nothing_of_ours() {
    assert_knows_only("sqlite", &[], &["hyper", "std::env"]);
}

#[test]
fn settling_knows_no_caller_and_no_answer() {
    let allowed =
        ["callback", "change", "clock", "journal", "merge", "provider", "sqlite", "state"];
    assert_knows_only("settle", &allowed, &["hyper", "std::env", "std::net"]);
}

#[test]
fn a_relay_knows_no_database_and_no_caller() {
    let allowed = [
        "change",
        "clock",
        "config::settings",
        "forward",
        "journal::Entry",
        "provider",
        "settle::alone",
        "telemetry",
    ];
    let forbidden = ["rusqlite", "hyper", "std::fs", "std::net", "std::env", "provider::read"];
    assert_knows_only("relay", &allowed, &forbidden);
}

#[test]
fn a_change_knows_no_io() {
    assert_knows_only("change", &["callback", "clock", "merge"], &IO);
}

#[test]
fn forwarding_knows_no_provider_and_no_caller() {
    let allowed = [
        "background",
        "change",
        "client",
        "clock",
        "config::settings",
        "journal",
        "settle",
        "sqlite",
        "state",
        "telemetry",
    ];
    assert_knows_only("forward", &allowed, &["std::env", "notification_id", "Bearer realm"]);
}

/// It asks, and has what is new appended: what that means is decided behind the journal.
#[test]
fn reconciling_knows_no_caller_and_no_sink() {
    let allowed = [
        "callback",
        "clock",
        "config::settings",
        "forward::address",
        "forward::backoff",
        "forward::breaker",
        "forward::connect",
        "forward::outgoing",
        "journal",
        "merge",
        "ends",
        "provider::Provider",
        "provider::ends",
        "provider::polled",
        "settle",
        "sqlite",
        "state::expected",
        "state::outstanding",
        "state::tables::SCHEMA",
        "state::write",
        "telemetry",
    ];
    let forbidden = ["std::env", "provider::read", "INSERT INTO", "\"delivered\"", "Precedence"];
    assert_knows_only("reconcile", &allowed, &forbidden);
}

#[test]
fn answering_apps_knows_no_callback_and_no_sink() {
    let allowed = [
        "background",
        "clock",
        "config::settings",
        "journal::Journal",
        "provider::Provider",
        "provider::ends",
        "provider::notify::FAILURES",
        "provider::notify::is_known_status",
        "settle",
        "sqlite",
        "state::asked",
        "state::epoch",
        "state::feed",
        "state::read",
        "state::tables",
        "state::time_line",
        "telemetry",
    ];
    let forbidden = ["std::env", "provider::read", "callback::", "outbox", "INSERT", "UPDATE"];
    assert_knows_only("ask", &allowed, &forbidden);
}

#[test]
fn only_config_reads_the_environment() {
    for file in files().iter().filter(|file| !file.is_in("config")) {
        for word in ["std::env", "env::var", "env::args", "clap::Arg::env", "env = \""] {
            assert_eq!(file.lines_with(word), Vec::<String>::new());
        }
    }
}

#[test]
fn only_the_clock_reads_the_time() {
    for file in files().iter().filter(|file| !file.is_in("clock")) {
        for word in
            ["SystemTime", "UNIX_EPOCH", "Timestamp::now", "Zoned::now", "CURRENT_TIMESTAMP"]
        {
            assert_eq!(file.lines_with(word), Vec::<String>::new());
        }
    }
}

#[test]
fn only_cli_prints() {
    for file in files().iter().filter(|file| !file.is_in("cli")) {
        for word in ["print!(", "println!(", "dbg!("] {
            assert_eq!(file.lines_with(word), Vec::<String>::new());
        }
        // Standard output is the one place of one sink; it prints nothing of its own.
        if !file.is_in("forward/stdout") {
            for word in ["io::stdout", "stdout()"] {
                assert_eq!(file.lines_with(word), Vec::<String>::new());
            }
        }
        // Logging writes to standard error, and nothing else does.
        if !file.is_in("telemetry") {
            assert_eq!(file.lines_with("stderr"), Vec::<String>::new());
        }
    }
}

#[test]
fn nothing_is_left_for_later_and_no_file_is_long() {
    for file in files() {
        for word in ["TODO", "FIXME", "XXX", "unimplemented!", "todo!"] {
            let text = fs::read_to_string(
                Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(&file.path),
            );
            assert!(!text.unwrap().contains(word), "{}: {word}", file.path);
        }
        assert!(file.lines <= LINES_MAX, "{} has {} lines", file.path, file.lines);
    }
}

#[test]
fn no_room_is_deeper_than_one_folder() {
    for file in files() {
        assert!(file.path.matches('/').count() <= 1, "{}", file.path);
    }
}
