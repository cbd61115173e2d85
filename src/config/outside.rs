//! The two layers that are not files: environment variables and flags.
//!
//! The names of variables are not a list of their own: each is the place of a key of the defaults,
//! in upper case, joined by `_`. A variable that begins like ours and is none of them is a mistake
//! someone should hear about, except what Kubernetes puts there by itself for a Service of our
//! name. An empty variable counts as not set, because that is how compose files and charts write
//! an optional one.

use super::digest;
use super::document::{Kind, Table, Value};
use super::problem::Origin;
use super::report::{At, Checked, Report, did_you_mean};
use super::{Flags, section};

/// What every variable of ours begins with.
const PREFIX: &str = "RECEIPTD_";

/// Keys that have no default and therefore do not stand in the defaults: a section that is there
/// or not as a whole.
const WITHOUT_DEFAULT: [&str; 3] = ["tls.cert_file", "tls.key_file", "tls.client_ca_file"];

/// The place of the state file, which has a short name beside the derived one.
const STORE_PATH: &str = "store.path";
const DB: &str = "RECEIPTD_DB";

const SOURCE: &str = "RECEIPTD_SOURCE";
const TOKEN_SHA256: &str = "RECEIPTD_TOKEN_SHA256";

/// Variables with a meaning of their own elsewhere: the configuration file's name, and the bearers
/// of client commands.
const ELSEWHERE: [&str; 3] =
    [super::CONFIG_VARIABLE, super::TOKEN_VARIABLE, super::VERIFY_TOKEN_VARIABLE];

/// What a layer says beside single keys: whole sources, and tokens for the one source there is.
/// A later layer's take the place of an earlier one's; the file's sources stay either way.
#[derive(Default)]
pub(super) struct Callers {
    /// `NAME=PROVIDER`, each with where it was said.
    sources: Vec<(String, Origin)>,
    /// `[LABEL=]HEX`.
    tokens: Vec<(String, Origin)>,
    /// What a token without a label is called.
    label: &'static str,
}

/// Lays the environment over the document.
pub(super) fn environment(
    env: &[(String, String)],
    document: &mut Table,
    paths: &[String],
    callers: &mut Callers,
    report: &mut Report,
) {
    let known: Vec<(String, &str)> = paths
        .iter()
        .map(String::as_str)
        .chain(WITHOUT_DEFAULT)
        .map(|path| (variable(path), path))
        .chain([(DB.into(), STORE_PATH), (SOURCE.into(), ""), (TOKEN_SHA256.into(), "")])
        .collect();
    let ours = env.iter().filter(|(name, text)| name.starts_with(PREFIX) && !text.is_empty());
    for (name, text) in ours {
        let origin = Origin::Environment(name.clone());
        match (known.iter().find(|(known, _)| known == name), name.as_str()) {
            (_, SOURCE) => callers.sources = split(text, &origin),
            (_, TOKEN_SHA256) => {
                (callers.tokens, callers.label) = (split(text, &origin), "environment");
            }
            (Some((_, path)), _) => document.set_path(path, Kind::Raw(text.clone()), origin),
            (None, _) if is_not_ours(name, text) => {}
            (None, _) => unknown(name, &known, report),
        }
    }
    both_names_of_the_store(env, report);
}

/// Lays the flags over the document.
pub(super) fn flags(flags: &Flags, document: &mut Table, callers: &mut Callers) {
    let single = [
        ("listen", "--listen", &flags.listen),
        ("admin_listen", "--admin-listen", &flags.admin_listen),
        (STORE_PATH, "--db", &flags.db),
        ("log.format", "--log-format", &flags.log_format),
        ("log.level", "--log-level", &flags.log_level),
    ];
    for (path, name, text) in single {
        if let Some(text) = text {
            document.set_path(path, Kind::Raw(text.clone()), Origin::Flag(name));
        }
    }
    let each = |texts: &[String], name| {
        texts.iter().map(|text| (text.clone(), Origin::Flag(name))).collect()
    };
    if !flags.sources.is_empty() {
        callers.sources = each(&flags.sources, "--source");
    }
    if !flags.token_sha256.is_empty() {
        (callers.tokens, callers.label) = (each(&flags.token_sha256, "--token-sha256"), "flag");
    }
}

/// Writes sources and tokens that were not said in a file into the document, as if they had been.
pub(super) fn callers(callers: &Callers, document: &mut Table, report: &mut Report) {
    if callers.sources.is_empty() && callers.tokens.is_empty() {
        return;
    }
    if document.find("source").is_none() {
        document.set("source", Kind::List(vec![]), Origin::Default);
    }
    // Anything else than a list is reported when sources are read.
    let Some(Value { kind: Kind::List(sources), .. }) = document.find_mut("source") else { return };
    let read: Vec<_> =
        callers.sources.iter().map(|(text, origin)| source(text, origin, report)).collect();
    let is_complete = read.iter().all(Result::is_ok);
    sources.extend(read.into_iter().flatten());
    // Unless every source could be read, whether there is only one is anyone's guess.
    let Some((_, origin)) = callers.tokens.first().filter(|_| is_complete) else { return };
    let count = sources.len();
    let [Value { kind: Kind::Table(only), .. }] = sources.as_mut_slice() else {
        let at = At { key: "source.token".into(), origin: origin.clone() };
        let found = format!("a token, and {count} sources it could belong to");
        let hint = match count {
            0 => "name the source too: --source NAME=PROVIDER or RECEIPTD_SOURCE",
            _ => "write the tokens of several sources into a file, as [[source.token]]",
        };
        report.problem_hinted(&at, found, "exactly one source", Some(hint.into()));
        return;
    };
    add_tokens(only, callers, report);
}

/// A source said as `NAME=PROVIDER`.
fn source(text: &str, origin: &Origin, report: &mut Report) -> Checked<Value> {
    let Some((name, provider)) = text.split_once('=') else {
        let at = At { key: "source".into(), origin: origin.clone() };
        let hint = format!("for example {}=gc-notify", if text.is_empty() { "NAME" } else { text });
        return Err(report.problem_hinted(&at, section::quoted(text), "NAME=PROVIDER", Some(hint)));
    };
    let mut table = Table::default();
    table.set("name", Kind::Raw(name.trim().into()), origin.clone());
    table.set("provider", Kind::Raw(provider.trim().into()), origin.clone());
    Ok(Value { kind: Kind::Table(table), origin: origin.clone() })
}

/// Adds tokens said as `[LABEL=]HEX` to the only source.
fn add_tokens(only: &mut Table, callers: &Callers, report: &mut Report) {
    let mut added = Vec::new();
    for (index, (text, origin)) in callers.tokens.iter().enumerate() {
        let (label, hex) = match text.rsplit_once('=') {
            Some((label, hex)) => (label.trim().to_owned(), hex.trim()),
            None if index == 0 => (callers.label.to_owned(), text.trim()),
            None => (format!("{}-{}", callers.label, index + 1), text.trim()),
        };
        // Checked here already: if this is no hash, it may be a bearer, whose base64 ends in `=`,
        // and then the half taken for a label must not be shown as one.
        if let Err(fault) = digest::parse(hex) {
            let at = At { key: "source.token".into(), origin: origin.clone() };
            let expected = format!("[LABEL=]HEX, where HEX is {}", digest::EXPECTED);
            report.problem_hinted(&at, fault.found, expected, fault.hint);
            continue;
        }
        let mut token = Table::default();
        token.set("label", Kind::Raw(label), origin.clone());
        token.set("sha256", Kind::Raw(hex.into()), origin.clone());
        added.push(Value { kind: Kind::Table(token), origin: origin.clone() });
    }
    let (_, origin) = &callers.tokens[0];
    match only.find_mut("token") {
        None => only.set("token", Kind::List(added), origin.clone()),
        Some(Value { kind: Kind::List(tokens), .. }) => tokens.append(&mut added),
        // Reported when the source is read.
        Some(_) => {}
    }
}

/// The variable of a key: its place in upper case, joined by `_`.
fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "_").to_uppercase())
}

fn split(text: &str, origin: &Origin) -> Vec<(String, Origin)> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| (part.to_owned(), origin.clone())).collect()
}

fn unknown(name: &str, known: &[(String, &str)], report: &mut Report) {
    let at = At { key: name.into(), origin: Origin::Environment(name.into()) };
    // Without what all have in common, or everything would look alike.
    let known = known.iter().filter_map(|(known, _)| known.strip_prefix(PREFIX));
    let hint = did_you_mean(&name[PREFIX.len()..], known)
        .map(|hint| hint.replacen('`', &format!("`{PREFIX}"), 1))
        .unwrap_or_else(|| "`receiptd config default` shows every setting".into());
    let expected = "the name of a setting: its place in the file in upper case, joined by \"_\"";
    report.problem_hinted(&at, "an unknown variable", expected, Some(hint));
}

/// Two names for one setting are fine as long as they agree.
fn both_names_of_the_store(env: &[(String, String)], report: &mut Report) {
    let long = variable(STORE_PATH);
    let value = |wanted: &str| {
        env.iter().find(|(name, text)| name == wanted && !text.is_empty()).map(|(_, text)| text)
    };
    if let (Some(short_text), Some(long_text)) = (value(DB), value(&long))
        && short_text != long_text
    {
        let at = At { key: STORE_PATH.into(), origin: Origin::Environment(long) };
        let found =
            format!("{}, but {DB} is {}", section::quoted(long_text), section::quoted(short_text));
        report.problem(&at, found, "only one of the two names");
    }
}

/// Variables that begin like ours but configure nothing here.
fn is_not_ours(name: &str, text: &str) -> bool {
    ELSEWHERE.contains(&name) || name.starts_with("RECEIPTD_TEST_") || is_service_link(name, text)
}

/// What Kubernetes (and Docker's links) put into every container for a Service whose name begins
/// with `receiptd`: `RECEIPTD_SERVICE_HOST`, `RECEIPTD_SERVICE_PORT[_NAME]`,
/// `RECEIPTD_PORT=tcp://…`, `RECEIPTD_PORT_8080_TCP[_PROTO|_PORT|_ADDR]`, and the same after
/// `RECEIPTD_ADMIN` for a Service named `receiptd-admin`.
fn is_service_link(name: &str, text: &str) -> bool {
    let is_address =
        |text: &str| ["tcp://", "udp://", "sctp://"].iter().any(|s| text.starts_with(s));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_address(text))
        || name.rsplit_once("_PORT_").is_some_and(|(_, rest)| is_numbered_port(rest))
}

/// `8080_TCP`, `8080_TCP_PORT` and the like.
fn is_numbered_port(rest: &str) -> bool {
    let mut words = rest.split('_');
    let number =
        words.next().is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let protocol = words.next().is_some_and(|word| matches!(word, "TCP" | "UDP" | "SCTP"));
    let detail = words.next().is_none_or(|word| matches!(word, "PROTO" | "PORT" | "ADDR"));
    number && protocol && detail && words.next().is_none()
}
