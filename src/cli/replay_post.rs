//! Replaying over HTTP, as the senders would: their method, their headers, their patience; one
//! connection, one callback after the other, so that they arrive in the order asked for.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT,
};

use super::replay::{Args, PRINTED_MAX, Replayed};
use crate::cli::{Failure, block_on};
use crate::client::{Answer, Client, ClientError, Options, Target};
use crate::config;
use crate::journal;
use crate::journal::reader::Reader;
use crate::replay::Fixture;
use crate::sqlite::{self, Access};
use crate::state::export::{self, Span};
use crate::state::tables::{SCHEMA, cursor};

/// The senders are Python programs; some proxies treat those in their own way.
const USER_AGENT_SENT: &str = "python-requests/2.32.3 (receiptd replay)";

/// How long the receiver may take to settle what it acknowledged.
const SETTLED_MS_MAX: Duration = Duration::from_secs(5);

/// How often to look whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// Posts the fixtures and prints the answers; with `--db`, waits until the receiver has settled them
/// and reads what they came to.
pub fn replay(
    args: &Args,
    url: &str,
    env: &[(String, String)],
    fixtures: &[&Fixture],
    out: &mut dyn Write,
    aside: &mut dyn Write,
) -> Result<Replayed, Failure> {
    let headers = headers(args.token_file.as_deref(), env)?;
    let options = Options { ca_file: args.ca_file.clone(), ..Options::default() };
    let mut client = Client::new(Target::parse(url)?, options)?;
    let journal = args.db.as_ref().map(|db| Reader::open(&journal::path_beside(db))).transpose()?;
    let before = journal.as_ref().map(Reader::last_seq).transpose()?;
    let mut tally = Tally::default();
    let result = block_on(post_all(&mut client, &headers, fixtures, &mut tally))?;
    // Where the answers are all there is to know, they are the result.
    let answers = tally.describe();
    let told = if args.db.is_some() {
        aside.write_all(answers.as_bytes())
    } else {
        out.write_all(answers.as_bytes())
    };
    told.map_err(Failure::output)?;
    result?;
    let notifications = match (&args.db, journal, before) {
        (Some(db), Some(journal), Some(after)) => {
            let span = Span { after, through: journal.last_seq()?, source: args.source.as_deref() };
            Some(block_on(settled(db, span))??)
        }
        _ => None,
    };
    Ok(Replayed { notifications, is_yes: tally.refused.is_empty() })
}

/// What senders send beside the body. `Host` and `Content-Length` come from the client.
fn headers(token_file: Option<&Path>, env: &[(String, String)]) -> Result<HeaderMap, Failure> {
    let mut bearer = b"Bearer ".to_vec();
    bearer.extend_from_slice(&token(token_file, env)?);
    let mut bearer = HeaderValue::from_bytes(&bearer).map_err(|_| {
        Failure::new(Failure::USAGE, "the token holds bytes that no header can, such as a newline")
    })?;
    bearer.set_sensitive(true);
    let known = HeaderValue::from_static;
    Ok(HeaderMap::from_iter([
        (USER_AGENT, known(USER_AGENT_SENT)),
        (ACCEPT_ENCODING, known("gzip, deflate")),
        (ACCEPT, known("*/*")),
        (CONTENT_TYPE, known("application/json")),
        (AUTHORIZATION, bearer),
    ]))
}

/// Never from the arguments, which every process of the machine can read.
pub(super) fn token(file: Option<&Path>, env: &[(String, String)]) -> Result<Vec<u8>, Failure> {
    let token = match file {
        None => config::client_bearer(env).map(|secret| secret.0),
        Some(path) => {
            let bytes = std::fs::read(path).map_err(|error| {
                Failure::new(Failure::IO, format!("failed to read {}: {error}", path.display()))
            })?;
            let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
            Some(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
        }
    };
    token.filter(|token| !token.is_empty()).ok_or_else(|| {
        Failure::new(Failure::USAGE, "there is no token to present")
            .hint("set RECEIPTD_TOKEN, or name a file that holds it with --token-file")
    })
}

/// The answers so far.
#[derive(Default)]
struct Tally {
    codes: BTreeMap<u16, usize>,
    /// Name, code and what the receiver says to it.
    refused: Vec<(String, u16, String)>,
}

impl Tally {
    fn add(&mut self, fixture: &Fixture, answer: &Answer) {
        *self.codes.entry(answer.code).or_default() += 1;
        if !(200..300).contains(&answer.code) {
            self.refused.push((fixture.name.clone(), answer.code, answer.first_line()));
        }
    }

    fn describe(&self) -> String {
        let mut lines = Vec::new();
        for (name, code, said) in self.refused.iter().take(PRINTED_MAX) {
            lines.push(format!("{name}: {code} {said}").trim_end().to_owned());
        }
        if self.refused.len() > PRINTED_MAX {
            lines.push(format!("… and {} more refusals", self.refused.len() - PRINTED_MAX));
        }
        for (code, count) in &self.codes {
            lines.push(format!("{code}: {count}"));
        }
        lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

async fn post_all(
    client: &mut Client,
    headers: &HeaderMap,
    fixtures: &[&Fixture],
    tally: &mut Tally,
) -> Result<(), ClientError> {
    for fixture in fixtures {
        let body = Bytes::copy_from_slice(&fixture.body);
        let answer = client.post(headers.clone(), body).await?;
        tally.add(fixture, &answer);
    }
    Ok(())
}

/// Waits until the state at `db` has settled the span. Whatever was acknowledged is in the journal
/// by then, so the state's own cursor is the barrier: it needs no admin address.
async fn settled(db: &Path, span: Span<'_>) -> Result<Vec<export::SettledNotification>, Failure> {
    let deadline = Instant::now() + SETTLED_MS_MAX;
    let state = sqlite::open(db, &SCHEMA, Access::Read)?;
    loop {
        let (_, seq) = cursor(&state)?;
        if seq >= span.through {
            return Ok(export::notifications_told_of(&state, span)?);
        }
        if Instant::now() >= deadline {
            let message = format!("after 5 s {seq} of {} callbacks are settled", span.through);
            return Err(Failure::new(Failure::NO, message)
                .hint("is --db the state file of the receiver at --to?"));
        }
        tokio::time::sleep(LOOK).await;
    }
}
