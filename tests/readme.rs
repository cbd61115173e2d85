//! What the README claims, as far as a program can tell: every command, flag, setting, table,
//! column, statement, metric and link in it exists. Its Rust is what a doctest runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use receiptd::clock::Clock;
use receiptd::config::{self, Flags, Layers};
use receiptd::sqlite::{self, Access, Durability, Schema};
use receiptd::telemetry::{Expectation, Metrics, Snapshot};
use receiptd::{journal, state};
use rusqlite::Connection;
use rusqlite::fallible_iterator::FallibleIterator as _;

const README: &str = include_str!("../README.md");
const DOCKERFILE: &str = include_str!("../Dockerfile");
const DEPLOY: [&str; 3] = [
    include_str!("../deploy/receiptd.service"),
    include_str!("../deploy/docker-compose.yml"),
    include_str!("../deploy/kubernetes.yaml"),
];
const GATE: &str = include_str!("../.ci/run");

/// The fenced blocks of one language, without the indentation of their fence.
fn blocks(language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = README.lines();
    while let Some(line) = lines.next() {
        let fence = line.trim_start();
        let Some(found) = fence.strip_prefix("```") else { continue };
        let indent = line.len() - fence.len();
        let block: Vec<&str> = lines
            .by_ref()
            .take_while(|line| line.trim_start() != "```")
            .map(|line| line.get(indent..).unwrap_or(""))
            .collect();
        if found == language {
            blocks.push(block.join("\n"));
        }
    }
    assert!(!blocks.is_empty(), "no {language} in the README");
    blocks
}

/// What stands between backticks outside of fenced blocks.
fn code_spans() -> Vec<String> {
    let mut is_fenced = false;
    let prose: Vec<&str> = README
        .lines()
        .filter(|line| {
            let is_fence = line.trim_start().starts_with("```");
            is_fenced ^= is_fence;
            !is_fenced && !is_fence
        })
        .collect();
    prose.join("\n").split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect()
}

#[test]
fn every_toml_block_is_a_configuration_that_loads_without_a_warning() {
    for block in blocks("toml") {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("receiptd.toml");
        let block = block.replace("/var/lib/receiptd", folder.path().to_str().unwrap());
        std::fs::write(&file, with_files(&block, folder.path())).unwrap();
        let layers = Layers::new(Some(file), vec![], Flags::default());
        let loaded = config::load(&layers, Clock::system().now())
            .unwrap_or_else(|problems| panic!("{problems}\n\n{block}"));
        assert!(loaded.warnings.is_empty(), "{:?}\n{block}", loaded.warnings);
        let settings = loaded.settings;
        assert!(!settings.sources.is_empty() || !settings.sinks.is_empty(), "{block}");
    }
}

/// The block with every file it names made in `folder`.
fn with_files(block: &str, folder: &Path) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])
        .and_then(|params| params.self_signed(&key))
        .unwrap();
    let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let contents = BTreeMap::from([
        ("tls.crt", certificate.pem()),
        ("tls.key", key.serialize_pem()),
        ("ajo.pem", rsa.public_key_pem()),
        ("va-api-key", "a secret of the platform".to_owned()),
        (
            "passport-api-key",
            "live-26785a09-ab16-4eb0-8407-a37497a57506-3d844edf-8d35-48ac-975b-e847b4f122b0"
                .to_owned(),
        ),
        ("reader", "3d844edf-8d35-48ac-975b-e847b4f122b0".to_owned()),
        ("hook", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()),
        ("rabbit-password", "a password".to_owned()),
        ("pg-password", "a password".to_owned()),
    ]);
    let mut text = String::new();
    for (index, piece) in block.split('"').enumerate() {
        let is_inside = index % 2 == 1;
        let is_file = ["/run/secrets/", "/etc/receiptd/"].iter().any(|f| piece.starts_with(f));
        let quote = if index == 0 { "" } else { "\"" };
        text.push_str(quote);
        if !(is_inside && is_file) {
            text.push_str(piece);
            continue;
        }
        let name = Path::new(piece).file_name().unwrap().to_str().unwrap();
        let made = folder.join(name);
        std::fs::write(&made, &contents[name]).unwrap();
        std::fs::set_permissions(&made, Permissions::from_mode(0o600)).unwrap();
        text.push_str(made.to_str().unwrap());
    }
    text
}

#[test]
fn every_variable_of_the_environment_exists() {
    let texts = [README, DOCKERFILE].into_iter().chain(DEPLOY);
    let names: BTreeSet<&str> = texts.flat_map(|text| words(text, "RECEIPTD_")).collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        let layers = Layers::new(None, vec![(name.to_owned(), "x".to_owned())], Flags::default());
        let layers = Layers { file: None, ..layers };
        if let Err(problems) = config::load(&layers, Clock::system().now()) {
            let is_unknown = problems.iter().any(|problem| problem.found.contains("unknown"));
            assert!(!is_unknown, "{name}: {problems}");
        }
    }
}

/// Words that begin like this.
fn words<'t>(text: &'t str, prefix: &str) -> Vec<&'t str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c)).filter(|word| word.starts_with(prefix)).collect()
}

/// A fresh state file and a fresh journal.
fn databases(folder: &Path) -> (Connection, Connection) {
    let open = |name: &str, schema: &Schema| {
        sqlite::open(&folder.join(name), schema, Access::Write(Durability::Normal)).unwrap()
    };
    (open("x.db", &state::tables::SCHEMA), open("x.callbacks.db", &journal::SCHEMA))
}

#[test]
fn every_statement_runs_on_a_fresh_database() {
    let folder = tempfile::tempdir().unwrap();
    let (state, _) = databases(folder.path());
    let mut count = 0;
    for sql in blocks("sql") {
        let mut batch = rusqlite::Batch::new(&state, &sql);
        while let Some(mut statement) =
            batch.next().unwrap_or_else(|error| panic!("{error}\n{sql}"))
        {
            assert!(statement.readonly() && statement.parameter_count() == 0, "{sql}");
            assert!(statement.query([]).unwrap().next().unwrap().is_none());
            count += 1;
        }
    }
    let quoted = blocks("python").into_iter().flat_map(|code| quoted_by(&code, "\"\"\""));
    let in_shell = blocks("sh").into_iter().flat_map(|code| quoted_by(&code, "\""));
    for sql in quoted.chain(in_shell).filter(|text| text.trim_start().starts_with("SELECT")) {
        let statement = state.prepare(&sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
        assert!(statement.readonly(), "{sql}");
        count += 1;
    }
    assert!(count > 5, "only {count} statements were found");
}

fn quoted_by(text: &str, quote: &str) -> Vec<String> {
    text.split(quote).skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_table_is_documented_column_by_column() {
    let folder = tempfile::tempdir().unwrap();
    let (state, journal) = databases(folder.path());
    for (table, connection) in [
        ("notification", &state),
        ("received_message", &state),
        ("history", &state),
        ("unrecognised", &state),
        ("callback", &journal),
    ] {
        let actual: Vec<(String, String)> = connection
            .prepare("SELECT name, lower(type) FROM pragma_table_info(?1)")
            .unwrap()
            .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(documented_columns(table), actual, "{table}");
    }
}

fn documented_columns(table: &str) -> Vec<(String, String)> {
    let heading = format!("### `{table}`\n");
    let section = README.split_once(&heading).unwrap_or_else(|| panic!("{heading}")).1;
    section
        .lines()
        .take_while(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| {
            let mut cells = line.split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let metrics = Arc::new(Metrics::new());
    let source = metrics.source("passport");
    let now = Clock::system().now();
    source.kept(now);
    source.refused("wrong");
    source.retiring_token_used("2026-11", now);
    metrics.sink("app");
    metrics.asks(&["passport"]);
    metrics.expects("passport", &Expectation::default());
    metrics.relay("app");
    metrics.token_ends("passport", "2026-11", now);
    metrics.answered(Duration::from_millis(1));
    metrics.reads().answered("/v2", 404, Duration::from_millis(1));
    let page = metrics.page(&Snapshot { wal_bytes: Some([0, 0]), ..Snapshot::default() });
    let documented: BTreeSet<&str> = words(README, "receiptd_").into_iter().collect();
    for name in &documented {
        let exists = page.lines().any(|line| {
            line.starts_with(&format!("# TYPE {name} histogram"))
                || line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        assert!(exists, "{name}\n{page}");
    }
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        assert!(documented.contains(name.as_str()), "{name} is not in the README");
    }
}

/// The help of a command, and what it leads to.
struct Help {
    text: String,
    commands: BTreeMap<String, Help>,
}

impl Help {
    fn of(path: &[String]) -> Self {
        let output = Command::new(env!("CARGO_BIN_EXE_receiptd"))
            .args(path)
            .arg("--help")
            .output()
            .expect("the binary runs");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{path:?}");
        let listed = text.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
        let commands = listed
            .lines()
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
            .filter(|name| !name.is_empty() && *name != "help")
            .map(|name| {
                let path: Vec<String> = path.iter().cloned().chain([name.to_owned()]).collect();
                (name.to_owned(), Self::of(&path))
            })
            .collect();
        Self { text, commands }
    }

    /// What is wrong with this command line, if anything is.
    fn problem(&self, words: &[&str]) -> Option<String> {
        let mut help = self;
        let mut words = words.iter().peekable();
        while let Some(next) = words.peek().and_then(|word| help.commands.get(**word)) {
            help = next;
            words.next();
        }
        // A command stands before its arguments, which begin otherwise or belong to a leaf.
        if let Some(word) = words.peek().filter(|_| !help.commands.is_empty()) {
            let is_option = word.starts_with('-') || word.chars().any(|c| !c.is_ascii_lowercase());
            if !is_option {
                return Some(format!("there is no command `{word}`"));
            }
        }
        let flags = words.filter(|word| word.starts_with("--"));
        let mut unknown = flags.filter(|flag| !help.has(flag));
        unknown.next().map(|flag| format!("there is no flag {flag}"))
    }

    fn has(&self, flag: &str) -> bool {
        let flag = flag.split('=').next().unwrap_or(flag);
        let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '-';
        self.text.split(is_end).any(|word| word == flag)
    }

    fn anywhere(&self, flag: &str) -> bool {
        self.has(flag) || self.commands.values().any(|help| help.anywhere(flag))
    }
}

/// The words after the program's name in every command line that the README shows.
fn command_lines() -> Vec<String> {
    let mut lines = Vec::new();
    for block in blocks("sh") {
        lines.extend(block.replace("\\\n", " ").lines().map(str::to_owned));
    }
    lines.extend(code_spans());
    let starts = ["receiptd ", "sudo -u receiptd receiptd ", "cargo run --release -- "];
    lines
        .iter()
        .filter_map(|line| {
            let inside = line.split_once(" /receiptd ").map(|(_, rest)| rest);
            inside.or_else(|| starts.iter().find_map(|start| line.strip_prefix(start)))
        })
        .map(|line| line.trim_end_matches('…').trim().to_owned())
        .collect()
}

#[test]
fn every_command_and_flag_is_in_the_help() {
    let help = Help::of(&[]);
    let lines = command_lines();
    assert!(lines.len() > 30, "{lines:?}");
    let mut problems: BTreeSet<String> = lines
        .iter()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            help.problem(&words).map(|problem| format!("receiptd {line}: {problem}"))
        })
        .collect();
    for span in code_spans().iter().filter(|span| span.starts_with("--")) {
        let flag = span.split(' ').next().unwrap_or(span);
        if !help.anywhere(flag) {
            problems.insert(format!("{flag}: no command has it"));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn every_command_is_in_the_readme() {
    let lines = command_lines();
    let is_shown = |path: &str| lines.iter().any(|line| line.starts_with(path));
    for (name, help) in Help::of(&[]).commands {
        assert!(is_shown(&name), "{name}");
        for inner in help.commands.keys() {
            assert!(is_shown(&format!("{name} {inner}")), "{name} {inner}");
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    let slugs: BTreeSet<String> = README
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let kept = line.trim_start_matches('#').trim().to_lowercase();
            let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect();
    for link in README.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let leads = match link.strip_prefix('#') {
            Some(slug) => slugs.contains(slug),
            None => {
                link.contains("://") || Path::new(env!("CARGO_MANIFEST_DIR")).join(link).exists()
            }
        };
        assert!(leads, "{link}");
    }
}

/// A test function in a doctest would not be compiled, let alone run.
#[test]
fn every_line_of_rust_is_one_that_a_doctest_runs() {
    let page = include_str!("../src/receiver/mod.rs");
    let lines = page.lines().filter_map(|line| line.strip_prefix("//! "));
    let run: BTreeSet<&str> = lines.map(str::trim).collect();
    let block = &blocks("rust")[0];
    let (_, body) = block.split_once("-> Result<(), Box<dyn std::error::Error>> {\n").unwrap();
    let (body, _) = body.split_once("    Ok(())").unwrap();
    assert!(body.lines().count() > 5, "{body}");
    for line in body.lines() {
        assert!(run.contains(line.trim()), "{line}");
    }
}

#[test]
fn every_room_is_on_the_architecture_page() {
    let page = include_str!("../src/lib.rs");
    for line in page.lines() {
        let Some(room) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';'))
        else {
            continue;
        };
        assert!(page.contains(&format!("//! | [`{room}`] | ")), "{room} has no row in the map");
    }
}

#[test]
fn the_gate_runs_the_two_commands_of_the_readme() {
    assert!(blocks("sh").iter().any(|block| block == "cargo test"));
    assert!(blocks("sh").iter().any(|block| block == "cargo run --release -- demo"));
    assert!(GATE.lines().any(|line| line == "cargo test"));
    assert!(GATE.lines().any(|line| line.ends_with("-- demo --once")));
}

#[test]
fn a_secret_made_as_the_readme_says_is_one_that_a_sink_takes() {
    let blocks = blocks("sh");
    let making = blocks.iter().find(|block| block.contains("whsec_%s")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("sh").args(["-ec", making]).current_dir(&folder).status().unwrap();
    assert!(made.success(), "{making}");
    let file = folder.path().join("receiptd.toml");
    let secret = folder.path().join("hook");
    let sink = format!(
        "[[sink]]\nname = \"app\"\ntype = \"http\"\nurl = \"http://127.0.0.1:3000/\"\n\
         secret_files = [{secret:?}]\n"
    );
    std::fs::write(&file, sink).unwrap();
    let layers = Layers::new(Some(file), vec![], Flags::default());
    let loaded = config::load(&layers, Clock::system().now()).unwrap_or_else(|why| panic!("{why}"));
    assert!(!loaded.settings.sinks.is_empty());
}

/// tests/sinks runs the file.
#[test]
fn the_receiver_in_python_is_the_one_that_is_tried() {
    let tried = include_str!("sinks/receiver.py");
    assert!(blocks("python").iter().any(|block| block.trim() == tried.trim()));
}

#[test]
fn every_type_of_sink_has_a_row() {
    let types = config::DEFAULTS.split_once("\n# type = \"http\"").unwrap().1;
    let types = types.lines().next().unwrap().trim_start_matches([' ', '#']).split(" | ");
    let types: Vec<&str> = types.collect();
    assert_eq!(types.len(), 8, "{types:?}");
    for kind in types {
        assert!(README.contains(&format!("\n| `{kind}` | ")), "{kind}");
    }
}

/// A hash that someone knows the bearer of would be a back door in every copy of it.
#[test]
fn no_hash_in_the_readme_is_that_of_an_obvious_bearer() {
    use sha2::{Digest as _, Sha256};
    for word in ["", "a-token", "token", "secret", "password", "test", "receiptd", "passport"] {
        assert!(!README.contains(&data_encoding::HEXLOWER.encode(&Sha256::digest(word))), "{word}");
    }
}
