//! Where it is played: a real receiver with a throw-away database and throw-away tokens, and the
//! senders who call it.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue,
    USER_AGENT,
};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::demo_body::{body, message_id};
use super::demo_scenario::{Fate, Life, Outcome, Post, SENDERS, Sender};
use crate::cli::Failure;
use crate::client::{self, Client, ClientError, Options, Target};
use crate::clock::Clock;
use crate::config::{self, Flags, Layers};
use crate::embedded::{LOOPBACK, STATE_FILE};
use crate::halves::random_bearer;
use crate::receiver::{Ended, Receiver};
use crate::state::read::Reader;

/// How much of a bearer of 43 characters is used: 128 bits are plenty, and a `curl` line with it
/// fits a narrow terminal.
const TOKEN_CHARS: usize = 22;

/// A token that nobody configured.
const WRONG_TOKEN: &str = "somebody-elses-token";

/// A receiver, those who may call it, and the folder that goes when this does.
pub struct Stage {
    /// The receiver.
    pub receiver: Receiver,
    tokens: HashMap<&'static str, String>,
    kept_alive: HashMap<&'static str, Client>,
    folder: TempDir,
}

/// What became of one life's callbacks, and where the journal has them.
pub struct Played {
    /// One for each callback, in order.
    pub fates: Vec<Fate>,
    /// Positions in the journal of those that were kept.
    pub kept_at: Vec<i64>,
}

impl Stage {
    /// Starts the receiver from a configuration file, as `serve` would be.
    ///
    /// # Errors
    /// If there is no room for its files, no free port, no randomness.
    pub async fn set() -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(Failure::IO, format!("failed to set up the demo: {error}"))
        };
        let folder = tempfile::Builder::new()
            .prefix("receiptd-demo-")
            .tempdir()
            .map_err(|error| failed(&error))?;
        let mut tokens = HashMap::new();
        let mut file = String::new();
        for sender in SENDERS {
            let mut token = random_bearer().map_err(|error| failed(&error))?;
            token.truncate(TOKEN_CHARS);
            file.push_str(&source(sender, &token));
            tokens.insert(sender.source, token);
        }
        let path = folder.path().join("receiptd.toml");
        fs::write(&path, file).map_err(|error| failed(&error))?;
        let flags = Flags {
            listen: Some(LOOPBACK.to_owned()),
            admin_listen: Some(LOOPBACK.to_owned()),
            ..Flags::default()
        };
        let clock = Clock::system();
        let mut settings = config::load(&Layers::new(Some(path), Vec::new(), flags), clock.now())
            .map_err(|problems| failed(&problems))?
            .settings;
        settings.store.path = folder.path().join(STATE_FILE);
        let receiver = Receiver::start(settings, clock).await.map_err(|error| failed(&error))?;
        Ok(Self { receiver, tokens, kept_alive: HashMap::new(), folder })
    }

    /// The token of that sender.
    pub fn token(&self, sender: &Sender) -> &str {
        &self.tokens[sender.source]
    }

    /// Sends a life's callbacks, one after the other.
    ///
    /// # Errors
    /// If one gets no answer at all.
    pub async fn play(&mut self, life: &Life, number: usize) -> Result<Played, ClientError> {
        let mut played = Played { fates: Vec::new(), kept_at: Vec::new() };
        for post in life.callbacks {
            let before = self.receiver.committed();
            let answer = self.send(life, number, post).await?;
            // Nobody else knows the tokens yet, so what is new in the journal is this callback.
            let after = self.receiver.committed();
            played.fates.push(Fate { answer, kept: after > before });
            played.kept_at.extend((after > before).then_some(after));
        }
        Ok(played)
    }

    async fn send(&mut self, life: &Life, number: usize, post: &Post) -> Result<u16, ClientError> {
        let sender = life.sender;
        let token = if post.has_right_token { self.token(sender) } else { WRONG_TOKEN };
        let headers = headers(sender, token);
        let body = Bytes::from(body(life, number, post.says));
        let mut client = match self.kept_alive.remove(sender.source) {
            Some(client) => client,
            None => {
                let url = self.receiver.callback_url(sender.source).unwrap_or_default();
                Client::new(Target::parse(&url)?, Options::default())?
            }
        };
        let code = client.post(headers, body).await?.code;
        if sender.keeps_alive {
            self.kept_alive.insert(sender.source, client);
        }
        Ok(code)
    }

    /// What is settled about a life, read as an app would read it.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub fn outcome(&self, life: &Life, number: usize, played: &Played) -> Result<Outcome, Failure> {
        let reader = Reader::open(self.receiver.state_path())?;
        Ok(look_up(&reader, life, number, played)?)
    }

    /// Stops the receiver; the folder goes with it.
    pub async fn clear(self) -> Ended {
        let Self { receiver, kept_alive, folder, .. } = self;
        // A receiver that stops waits for connections that are open.
        drop(kept_alive);
        let ended = receiver.stop().await;
        drop(folder);
        ended
    }

    /// Where the files are.
    pub fn database(&self) -> PathBuf {
        self.receiver.state_path().to_owned()
    }
}

fn look_up(
    reader: &Reader,
    life: &Life,
    number: usize,
    played: &Played,
) -> rusqlite::Result<Outcome> {
    let (source, id) = (Some(life.sender.source), message_id(number));
    if let Some(row) = reader.notification(source, &id)?.pop() {
        return Ok(Outcome::Notification {
            status: row.status.map(Into::into),
            receipts: row.receipts,
            duplicates: row.duplicates,
            complained: row.complained_at.is_some(),
            returned: row.returned_at.is_some(),
        });
    }
    if let Some(row) = reader.message(source, &id)?.pop() {
        return Ok(Outcome::Message { text: row.message.unwrap_or_default().into() });
    }
    for &seq in &played.kept_at {
        if reader.unrecognised_at(seq)?.is_some() {
            return Ok(Outcome::Unrecognised);
        }
    }
    Ok(Outcome::Nothing)
}

/// A source of the configuration file.
fn source(sender: &Sender, token: &str) -> String {
    let Sender { source, provider, .. } = sender;
    let sha256 = HEXLOWER.encode(&Sha256::digest(token));
    format!(
        "[[source]]\nname = \"{source}\"\nprovider = \"{provider}\"\n\
         [[source.token]]\nlabel = \"demo\"\nsha256 = \"{sha256}\"\n\n"
    )
}

/// The headers this sender puts on a callback.
fn headers(sender: &Sender, token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(agent) = sender.user_agent {
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
    }
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Ours are made of letters, digits and hyphens.
    headers.extend(client::bearer(token).map(|bearer| (AUTHORIZATION, bearer)));
    headers
}
