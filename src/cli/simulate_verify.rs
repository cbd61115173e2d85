//! Holds a receiver against the truth: its state file, or what it answers when asked.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use serde_json::{Map, Value};

use super::simulate::Args;
use super::{Failure, block_on, db, progress};
use crate::client::{Client, Options, Target, bearer};
use crate::config;
use crate::journal;
use crate::simulate::life::Truth;
use crate::simulate::scenario::Scenario;
use crate::simulate::verify::{Verification, differences, id};
use crate::simulate::worker::Place;
use crate::sqlite::{self, Access};
use crate::state::read::Reader;
use crate::state::tables::{SCHEMA, cursor};

/// How long a receiver may stand still while it settles what it acknowledged.
const SETTLED_MAX: Duration = Duration::from_secs(30);

/// How long what is not as it should be is asked for again: a receiver may work behind its answers.
const ASKED_AGAIN_MAX: Duration = Duration::from_secs(5);

/// How long to wait for a receiver that may not be there.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// How often to look.
const LOOK: Duration = Duration::from_millis(20);

/// What to compare with.
pub enum Verifier {
    /// Nothing.
    No,
    /// A state file.
    State {
        /// Its path.
        path: PathBuf,
        /// Only of this source.
        source: Option<String>,
    },
    /// A URL for each notification.
    Url {
        /// With `{id}` in it.
        template: String,
        /// What to present.
        headers: HeaderMap,
        /// How to behave.
        options: Options,
    },
}

impl Verifier {
    /// What the arguments ask for; looked at before anything is sent.
    ///
    /// # Errors
    /// If it can never work.
    pub fn of(args: &Args, env: &[(String, String)]) -> Result<Self, Failure> {
        if let Some(path) = &args.verify_db {
            return Ok(Self::State { path: path.clone(), source: args.source.clone() });
        }
        let Some(template) = &args.verify_url else { return Ok(Self::No) };
        if !template.contains("{id}") {
            let message = "--verify-url needs {id} where the id of a notification stands";
            return Err(Failure::new(Failure::USAGE, message));
        }
        Target::parse(&template.replace("{id}", "0"))?;
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("*/*"))]);
        if let Some(token) = config::verify_bearer(env) {
            let value = std::str::from_utf8(&token.0).ok().and_then(bearer).ok_or_else(|| {
                Failure::new(Failure::USAGE, "RECEIPTD_VERIFY_TOKEN holds what no header can")
            })?;
            headers.insert(hyper::header::AUTHORIZATION, value);
        }
        let options = Options { ca_file: args.ca_file.clone(), ..Options::default() };
        Ok(Self::Url { template: template.clone(), headers, options })
    }

    /// Looks whether there can be something to compare with, before an hour is spent on sending.
    /// Warns of a state that is not there though somebody answers: a receiver makes it before it
    /// listens. What answers may stand before a receiver that starts later, so it is no error.
    ///
    /// # Errors
    /// If there is no folder in which the state could come about.
    pub fn look(&self, place: &Place) -> Result<(), Failure> {
        let Self::State { path, .. } = self else { return Ok(()) };
        if path.exists() {
            return Ok(());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return db::must_exist(path)
                .map_err(|failure| failure.hint("is it the file that the receiver writes?"));
        }
        let is_answering = |address| TcpStream::connect_timeout(address, CONNECT_MAX).is_ok();
        if place.addresses.iter().any(is_answering) {
            let path = path.display();
            let _ = writeln!(
                io::stderr(),
                "receiptd: warning: --verify-db: there is no database at {path} yet, though \
                 somebody answers at the URL"
            );
        }
        Ok(())
    }

    /// Compares the messages below this number.
    ///
    /// # Errors
    /// If what is to be compared with cannot be read.
    pub fn run(self, scenario: &Scenario, messages: u64) -> Result<Option<Verification>, Failure> {
        match self {
            Self::No => Ok(None),
            Self::State { path, source } => {
                with_state(&path, source.as_deref(), scenario, messages).map(Some)
            }
            Self::Url { template, headers, options } => {
                let mut asking = Asking { template, headers, options, client: None };
                block_on(asking.all(scenario, messages))?.map(Some)
            }
        }
    }
}

fn with_state(
    path: &Path,
    source: Option<&str>,
    scenario: &Scenario,
    messages: u64,
) -> Result<Verification, Failure> {
    let reader = Reader::over(settled(path)?);
    let bar = progress::bar("comparing");
    bar.set_length(messages);
    let mut verification = Verification::default();
    for message in 0..messages {
        let truth = scenario.truth(message);
        let (wanted, found) = match &truth {
            Truth::Silent => continue,
            Truth::Notification(wanted) => {
                let rows = reader.notification(source, id(wanted)).map_err(db::unreadable)?;
                (wanted, only(rows, id(wanted))?.map(|row| object(&row)))
            }
            Truth::Message(wanted) => {
                let rows = reader.message(source, id(wanted)).map_err(db::unreadable)?;
                (wanted, only(rows, id(wanted))?.map(|row| object(&row)))
            }
        };
        verification.add(wanted, found.as_ref());
        bar.set_position(message);
    }
    bar.finish_and_clear();
    Ok(verification)
}

/// The state, once it has settled everything that is in the journal now.
fn settled(path: &Path) -> Result<rusqlite::Connection, Failure> {
    let journal = journal::path_beside(path);
    db::must_exist(path)?;
    db::must_exist(&journal)?;
    let journal = journal::reader::Reader::open(&journal).map_err(db::not_opened)?;
    let last = journal.last_seq().map_err(db::unreadable)?;
    let state = sqlite::open(path, &SCHEMA, Access::Read).map_err(db::not_opened)?;
    let (mut reached, mut since) = (None, Instant::now());
    loop {
        let (_, seq) = cursor(&state).map_err(db::unreadable)?;
        if seq >= last {
            return Ok(state);
        }
        if reached != Some(seq) {
            (reached, since) = (Some(seq), Instant::now());
        } else if since.elapsed() >= SETTLED_MAX {
            let message = format!("{seq} of {last} callbacks are settled, and none more for 30 s");
            return Err(Failure::new(Failure::NO, message).hint("does the receiver still run?"));
        }
        std::thread::sleep(LOOK);
    }
}

/// Two sources may have the same id if the same seed was sent to both.
fn only<R>(mut rows: Vec<R>, id: &str) -> Result<Option<R>, Failure> {
    if rows.len() > 1 {
        let message = format!("{} sources have {id}", rows.len());
        return Err(Failure::new(Failure::USAGE, message).hint("name the one with --source"));
    }
    Ok(rows.pop())
}

fn object(row: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(row) {
        Ok(Value::Object(keys)) => keys,
        // A struct of texts and numbers always has a form as a JSON object.
        other => unreachable!("a row became {other:?}"),
    }
}

/// Asks for notifications one by one, over one connection where the server keeps it.
struct Asking {
    template: String,
    headers: HeaderMap,
    options: Options,
    client: Option<Client>,
}

impl Asking {
    /// Asks for all; what is not as it should be is asked for again for a while.
    async fn all(&mut self, scenario: &Scenario, messages: u64) -> Result<Verification, Failure> {
        let bar = progress::bar("comparing");
        bar.set_length(messages);
        let mut verification = Verification::default();
        let mut deadline = None;
        for message in 0..messages {
            // A received text has no status to ask for.
            let Truth::Notification(truth) = scenario.truth(message) else { continue };
            let (mut wanted, mut found) = self.compared(&truth).await?;
            while !is_as_wanted(&wanted, found.as_ref())
                && Instant::now()
                    < *deadline.get_or_insert_with(|| Instant::now() + ASKED_AGAIN_MAX)
            {
                tokio::time::sleep(LOOK).await;
                (wanted, found) = self.compared(&truth).await?;
            }
            verification.add(&wanted, found.as_ref());
            bar.set_position(message);
        }
        bar.finish_and_clear();
        Ok(verification)
    }

    /// What the answer should say of the keys it has, and what it does.
    async fn compared(
        &mut self,
        wanted: &Map<String, Value>,
    ) -> Result<(Map<String, Value>, Option<Map<String, Value>>), Failure> {
        let found = self.ask(id(wanted)).await?;
        let mut wanted = wanted.clone();
        if let Some(found) = &found {
            wanted.retain(|key, _| key == "status" || key == "id" || found.contains_key(key));
            // Whoever is asked by the id need not repeat it.
            if !found.contains_key("id") {
                let mut found = found.clone();
                found.insert("id".to_owned(), wanted["id"].clone());
                return Ok((wanted, Some(found)));
            }
        }
        Ok((wanted, found))
    }

    async fn ask(&mut self, id: &str) -> Result<Option<Map<String, Value>>, Failure> {
        let target = Target::parse(&self.template.replace("{id}", &escaped(id)))?;
        let path = target.path.clone();
        let client = match self.client.take() {
            Some(client) => self.client.insert(client),
            None => self.client.insert(Client::new(target, self.options.clone())?),
        };
        let headers = self.headers.clone();
        let answer = client.request(Method::GET, &path, headers, Bytes::new()).await?;
        let wrong = |why: &str| {
            let message = format!("--verify-url: {why} for {id}");
            Failure::new(Failure::UNAVAILABLE, message)
        };
        match answer.code {
            200 => match serde_json::from_slice(&answer.body) {
                Ok(Value::Object(keys)) => Ok(Some(keys)),
                _ => Err(wrong("the answer is no JSON object")),
            },
            404 => Ok(None),
            code => Err(wrong(&format!("the answer is {code}"))),
        }
    }
}

fn is_as_wanted(wanted: &Map<String, Value>, found: Option<&Map<String, Value>>) -> bool {
    found.is_some_and(|found| differences(wanted, found).is_empty())
}

/// An id as a part of a path.
fn escaped(id: &str) -> String {
    let mut escaped = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_one_part_of_a_path() {
        assert_eq!(escaped("740e5834-3a29"), "740e5834-3a29");
        assert_eq!(escaped("a/b?c#d é"), "a%2Fb%3Fc%23d%20%C3%A9");
    }
}
