//! The real sender: `receiptd simulate` as a process of its own, and what it reported.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use serde::Deserialize;

use super::support::{TOKEN, receiptd, source};

/// One that keeps its connections, and one that opens a connection for each callback.
pub const HABITS: [&str; 2] = ["govuk-notify", "gc-notify"];

/// A source for each of them, named as it is.
pub fn sources() -> String {
    HABITS.map(|name| source(name, name, &[("live", TOKEN)])).concat()
}

/// A platform at work; it ends by itself.
pub struct Platform {
    child: Child,
    name: String,
}

/// What it reported: the part of its JSON that is judged here.
#[derive(Debug, Deserialize)]
pub struct Told {
    /// Callbacks that were to be sent.
    pub callbacks: u64,
    /// By status code.
    pub answers: BTreeMap<String, u64>,
    /// By cause.
    pub no_answers: BTreeMap<String, u64>,
    latency_ms: BTreeMap<String, Option<f64>>,
    lost: Vec<Lost>,
    verification: Option<Verification>,
}

#[derive(Debug, Deserialize)]
struct Lost {
    reason: String,
    callbacks: u64,
}

#[derive(Debug, Deserialize)]
struct Verification {
    different: u64,
    missing: u64,
}

impl Platform {
    /// Sends to the source of its own name, as [`sources`] has it, and holds `state` against the
    /// truth at the end, if there is one. The token is not among the arguments.
    pub fn start(
        receiver: SocketAddr,
        name: &str,
        state: Option<&Path>,
        arguments: &[String],
    ) -> Self {
        let url = format!("http://{receiver}/callbacks/{name}");
        let mut command = receiptd(&std::env::temp_dir(), &["simulate", &url, "--provider", name]);
        command.args(["--format", "json"]).args(arguments);
        if let Some(state) = state {
            command.args(["--source", name, "--verify-db"]).arg(state);
        }
        command.env("RECEIPTD_TOKEN", TOKEN).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { child: command.spawn().expect("the binary can be run"), name: name.to_owned() }
    }

    /// Waits for its end and reads its report; what it said instead, if it has none.
    pub fn end(self) -> Result<Told, String> {
        let ended = self.child.wait_with_output().expect("it can be waited for");
        serde_json::from_slice(&ended.stdout).map_err(|error| {
            let said = String::from_utf8_lossy(&ended.stderr);
            format!("{}: no report, {}: {error}: {said}", self.name, ended.status)
        })
    }
}

impl Told {
    /// That share of the answers was as fast as this or faster, in milliseconds since each was due.
    /// Nothing, if nothing was answered.
    pub fn latency_ms(&self, key: &str) -> Option<f64> {
        self.latency_ms.get(key).copied().flatten()
    }

    /// Callbacks answered 204.
    pub fn acknowledged(&self) -> u64 {
        self.answers.get("204").copied().unwrap_or(0)
    }

    /// Attempts that were answered otherwise, or not at all.
    pub fn failures(&self) -> u64 {
        let all: u64 = self.answers.values().sum();
        all - self.acknowledged() + self.no_answers.values().sum::<u64>()
    }

    /// Callbacks the platform gave up.
    pub fn lost(&self) -> u64 {
        self.lost.iter().map(|lost| lost.callbacks).sum()
    }

    /// Final states that are not what the messages came to.
    pub fn wrong(&self) -> u64 {
        self.verification.as_ref().map_or(0, |found| found.different + found.missing)
    }

    /// What failed, in words; empty if nothing did.
    pub fn what_failed(&self) -> String {
        let mut words = Vec::new();
        let others = self.answers.iter().filter(|(code, _)| *code != "204");
        words.extend(others.map(|(code, count)| format!("{count} answered {code}")));
        words.extend(self.no_answers.iter().map(|(cause, count)| format!("{count} {cause}")));
        words.extend(self.lost.iter().map(|lost| format!("{} {}", lost.callbacks, lost.reason)));
        if self.wrong() > 0 {
            words.push(format!("{} final states wrong or missing", self.wrong()));
        }
        words.join(", ")
    }
}
