//! Raw settings → checked settings, all problems at once.
//!
//! [`load`] lays four layers over one another, later over earlier: the embedded
//! `config/receiptd.toml` (the only home of defaults), the file named by `--config`, `RECEIPTD_…`
//! in the environment, flags. It gives [`Settings`], of which nothing is ever checked again
//! elsewhere, or [`Problems`]: everything that is wrong, each with its key, where it stands, what
//! was found, what was expected and, where we know, what to do.
//!
//! Promises: an unknown key, variable or misspelt section is refused, never ignored; a secret is
//! never part of a problem, a warning, a `Debug` text or the values in force, and what stands where
//! a hash should (perhaps a bearer, pasted by mistake) counts as a secret; the same layers at the
//! same time give the same result, so a reload is the same call again.
//!
//! Layers come in as arguments. [`environment`] is the one place that reads the process's
//! environment, so that a test needs none.
//!
//! Why our own reader on the `toml` crate: no well-kept layered-configuration library reports more
//! than its first problem, and someone who sets up a receiver should not have to start it twelve
//! times to find twelve mistakes.
//!
//! In reading order: `document` parses and merges, `outside` brings in environment and flags,
//! `check`, `source`, `upstream` and `sink` turn the document into settings by way of `section`, which knows
//! which keys were asked for.

use std::fmt;
use std::path::PathBuf;

use crate::clock::Timestamp;

mod document;
mod outside;

mod check;
mod source;
mod upstream;

mod reader;

mod sink;
#[cfg(any(feature = "sink-nats", feature = "sink-amqp", feature = "sink-redis"))]
mod sink_broker;
mod sink_file;
mod sink_filter;
mod sink_http;
#[cfg(feature = "sink-postgres")]
mod sink_postgres;
#[cfg(feature = "sink-sqs")]
mod sink_sqs;
mod sink_to;

mod sink_secret;
mod sink_url;

mod credentials;
mod digest;
mod jwt;

mod files;
mod section;

mod problem;
mod report;

pub mod settings;
mod settings_sink;

pub use problem::{Origin, Problem, Problems, Warning};
pub use report::{Effective, did_you_mean};
pub use settings::Settings;

use report::Report;
use settings::Secret;

/// Names the configuration file where `--config` does not.
const CONFIG_VARIABLE: &str = "RECEIPTD_CONFIG";

/// Holds the bearer of a client command (`replay --to`); no setting of the receiver.
const TOKEN_VARIABLE: &str = "RECEIPTD_TOKEN";

/// Names the bearer that `simulate` presents where it verifies.
const VERIFY_TOKEN_VARIABLE: &str = "RECEIPTD_VERIFY_TOKEN";

/// The embedded `config/receiptd.toml`: every setting with its default, its unit and its reason.
pub const DEFAULTS: &str = document::DEFAULTS;

/// Everything a configuration is made of, apart from the embedded defaults.
#[derive(Clone, Default)]
pub struct Layers {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// The environment; what does not begin with `RECEIPTD_` is ignored.
    pub env: Vec<(String, String)>,
    /// The command line.
    pub flags: Flags,
}

impl Layers {
    /// The layers of one command: the file is the flag's or, without one, `RECEIPTD_CONFIG`'s.
    pub fn new(file: Option<PathBuf>, env: Vec<(String, String)>, flags: Flags) -> Self {
        let file = file.or_else(|| variable(&env, CONFIG_VARIABLE).map(PathBuf::from));
        Self { file, env, flags }
    }
}

impl fmt::Debug for Layers {
    /// Names only: a value of the environment may be a bearer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours =
            self.env.iter().map(|(name, _)| name).filter(|name| name.starts_with("RECEIPTD_"));
        f.debug_struct("Layers")
            .field("file", &self.file)
            .field("env", &ours.collect::<Vec<_>>())
            .field("flags", &self.flags)
            .finish()
    }
}

/// Settings from the command line, as they were typed: they are checked with all the others.
#[derive(Clone, Default)]
pub struct Flags {
    /// `--listen`
    pub listen: Option<String>,
    /// `--admin-listen`
    pub admin_listen: Option<String>,
    /// `--db`, the `path` of `[store]`.
    pub db: Option<String>,
    /// `--source NAME=PROVIDER`: sources beside those of the file.
    pub sources: Vec<String>,
    /// `--token-sha256 [LABEL=]HEX`: tokens of the only source there is.
    pub token_sha256: Vec<String>,
    /// `--log-format`
    pub log_format: Option<String>,
    /// `--log-level`
    pub log_level: Option<String>,
}

impl fmt::Debug for Flags {
    /// All but the token hashes: one of them may be a bearer, given by mistake.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flags")
            .field("listen", &self.listen)
            .field("admin_listen", &self.admin_listen)
            .field("db", &self.db)
            .field("sources", &self.sources)
            .field("token_sha256", &format_args!("<{} redacted>", self.token_sha256.len()))
            .field("log_format", &self.log_format)
            .field("log_level", &self.log_level)
            .finish()
    }
}

/// A configuration that is right.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the rest of the program works with.
    pub settings: Settings,
    /// What works today but deserves a look; the caller logs or prints them.
    pub warnings: Vec<Warning>,
    /// What does not work today, but must not keep a receiver from starting. Among the warnings too.
    pub not_yet: Option<Problems>,
    /// Every value in force and the layer it came from, for `config show`.
    pub effective: Vec<Effective>,
}

/// Lays the layers over one another and checks the result. `now` tells which tokens are past their
/// last day.
pub fn load(layers: &Layers, now: Timestamp) -> Result<Loaded, Problems> {
    let mut report = Report::default();
    let mut document = document::defaults();
    let paths = document.paths();
    if let Some(file) = &layers.file {
        match document::read(file) {
            Ok(later) => document.lay_over(later, "", &mut report),
            // Without the file every further word would be about something that is not there.
            Err(problem) => return Err(Problems::only(*problem)),
        }
    }
    let mut callers = outside::Callers::default();
    outside::environment(&layers.env, &mut document, &paths, &mut callers, &mut report);
    outside::flags(&layers.flags, &mut document, &mut callers);
    outside::callers(&callers, &mut document, &mut report);
    let settings = check::settings(&document, &paths, now, &mut report);
    let Report { mut problems, not_yet, mut warnings, effective } = report;
    if problems.is_empty() {
        let Ok(settings) = settings else { unreachable!("what is `Reported` is on record") };
        let later = not_yet.iter().map(Warning::of_problem).collect::<Vec<_>>();
        let not_yet = Problems::new(not_yet, &warnings);
        warnings.extend(later);
        return Ok(Loaded { settings, warnings, not_yet, effective });
    }
    problems.extend(not_yet);
    Err(Problems::new(problems, &warnings).expect("there is one"))
}

/// The process's environment, as far as it is about us. The only place that reads it.
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, _)| name.starts_with("RECEIPTD_"))
        .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
        .collect()
}

/// Whether colours are unwelcome: `NO_COLOR` is set and not empty (<https://no-color.org>).
pub fn is_colour_unwelcome() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// This program, as it was called: to be pasted into a shell that stands in the same folder.
pub fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "receiptd".to_owned())
}

/// The bearer a client command presents, if `RECEIPTD_TOKEN` holds one.
pub fn client_bearer(env: &[(String, String)]) -> Option<Secret> {
    variable(env, TOKEN_VARIABLE).map(|text| Secret(text.as_bytes().to_vec()))
}

/// The bearer `simulate --verify-url` asks with, if `RECEIPTD_VERIFY_TOKEN` holds one.
pub fn verify_bearer(env: &[(String, String)]) -> Option<Secret> {
    variable(env, VERIFY_TOKEN_VARIABLE).map(|text| Secret(text.as_bytes().to_vec()))
}

/// A variable that is set and not empty.
fn variable<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = env.iter().find(|(candidate, _)| candidate == name).map(|(_, text)| text.as_str());
    found.filter(|text| !text.is_empty())
}
