//! One visit at a receiver: who we are there, what was sent so far, how long it took.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, LOCATION, USER_AGENT,
};
use rand::SeedableRng as _;
use rand::rngs::ChaCha8Rng;

use super::answers::CLOSE_TO_LIMIT;
use super::consequence::Consequence;
use super::findings::{Check, Finding, Report, Severity, Written};
use super::specimen::{self, News, Specimen};
use super::stall::watched;
use super::{CHECKS, Question};
use crate::callback::Kind;
use crate::client::{Answer, Client, ClientError, Options, Target};
use crate::provider::notify::sign;
use crate::sender::{Outcome, Platform, Rules};

/// The senders are Python programs; some proxies treat those in their own way.
const USER_AGENT_SENT: &str = "python-requests/2.32.3 (receiptd doctor)";

/// Where VA Notify shows a signature instead of a bearer.
const SIGNATURE: HeaderName = HeaderName::from_static("x-enp-signature");

/// How often something is tried again because this process stood still.
pub const STALLS_MAX: u32 = 3;

/// What is shown of an answer.
const LINE_CHARS_MAX: usize = 80;

/// What came of one request.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// For the sender.
    pub outcome: Outcome,
    /// For people: `204 in 3 ms`, or why there was no answer.
    pub told: String,
    /// From before connecting until the last byte.
    pub took: Duration,
    /// Whether the receiver said that it closes the connection.
    pub says_close: bool,
    /// The path at the same host to which the body is redirected, if it is.
    pub kept_by_redirect: Option<String>,
}

/// Who we are, and what we have seen.
#[derive(Debug)]
pub struct Visit {
    /// What was asked.
    pub question: Question,
    /// How the platform behaves.
    pub rules: Rules,
    /// The slowest answer to a callback so far.
    pub slowest: Duration,
    /// How many callbacks were answered.
    pub answered: usize,
    bearer: HeaderValue,
    chance: ChaCha8Rng,
    written: Vec<Written>,
}

impl Visit {
    /// Nothing is sent yet.
    pub fn new(question: Question) -> Result<Self, ClientError> {
        let mut bearer = b"Bearer ".to_vec();
        bearer.extend_from_slice(&question.token.0);
        let mut bearer = HeaderValue::from_bytes(&bearer).map_err(|_| {
            ClientError::Url("expected a token of bytes that a header can hold".to_owned())
        })?;
        bearer.set_sensitive(true);
        let rules = question.platform.rules(Kind::Receipt);
        let chance = ChaCha8Rng::seed_from_u64(question.seed);
        let (slowest, answered, written) = (Duration::ZERO, 0, Vec::new());
        Ok(Self { question, rules, slowest, answered, bearer, chance, written })
    }

    /// As whom we call.
    pub fn platform(&self) -> Platform {
        self.question.platform
    }

    /// Where we call.
    pub fn target(&self) -> &Target {
        &self.question.target
    }

    /// The time limits of the platform, as the client wants them.
    pub fn options(&self) -> Options {
        Options {
            connect_ms_max: self.rules.connect_max,
            answer_ms_max: self.rules.silence_max,
            keep_alive: true,
            ca_file: self.question.ca_file.clone(),
        }
    }

    /// An id nobody was told of before. `expected`: what a right receiver holds of it in the end.
    pub fn new_id(&mut self, check: &Check, expected: impl Into<String>) -> String {
        let id = specimen::id(&mut self.chance);
        let expected = expected.into();
        self.written.push(Written { id: id.clone(), check: check.name, expected });
        id
    }

    /// The receipt of a message of its own that ends with these news.
    pub fn fresh(&mut self, check: &Check, news: News) -> Specimen {
        let status = news.status(self.platform().provider());
        let id = self.new_id(check, status);
        self.receipt(&id, news)
    }

    /// A receipt of the message with that id.
    pub fn receipt(&self, id: &str, news: News) -> Specimen {
        specimen::receipt(self.platform().provider(), id, news, self.question.now)
    }

    /// A made-up token of the same length as the true one, in hexadecimal.
    pub fn made_up_token(&mut self) -> String {
        let length = self.question.token.0.len();
        let mut token = String::new();
        while token.len() < length {
            token.push_str(&specimen::id(&mut self.chance)[specimen::ID_PREFIX.len()..]);
        }
        token.replace('-', "0").chars().take(length).collect()
    }

    /// Whether the platform signs bodies, so that the token is the secret which signs.
    pub fn is_signed(&self) -> bool {
        self.platform() == Platform::VaNotifySigned
    }

    /// What the platform sends beside this body.
    pub fn headers(&self, body: &[u8]) -> HeaderMap {
        if self.is_signed() {
            return self.headers_signed(&self.question.token.0, body);
        }
        self.headers_with(Some(self.bearer.clone()))
    }

    /// The same with the signature of that body, which need not be the one that is sent.
    pub fn headers_signed(&self, secret: &[u8], body: &[u8]) -> HeaderMap {
        let mut headers = self.headers_with(None);
        // Only of an object is there a signature.
        let signature = sign(secret, body).and_then(|hex| HeaderValue::from_str(&hex).ok());
        if let Some(mut signature) = signature {
            signature.set_sensitive(true);
            headers.insert(SIGNATURE, signature);
        }
        headers
    }

    /// The same with another `Authorization`, or none.
    pub fn headers_with(&self, authorization: Option<HeaderValue>) -> HeaderMap {
        let known = HeaderValue::from_static;
        let mut headers = HeaderMap::from_iter([
            (USER_AGENT, known(USER_AGENT_SENT)),
            (ACCEPT_ENCODING, known("gzip, deflate")),
            (ACCEPT, known("*/*")),
            // `requests` says so even where it closes the connection after the answer.
            (CONNECTION, known("keep-alive")),
            (CONTENT_TYPE, known("application/json")),
        ]);
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        headers
    }

    /// The true token after another word than `Bearer`.
    pub fn bearer_after(&self, scheme: &str) -> HeaderMap {
        let mut value = format!("{scheme} ").into_bytes();
        value.extend_from_slice(&self.question.token.0);
        let value = HeaderValue::from_bytes(&value).ok();
        self.headers_with(value.map(|mut value| {
            value.set_sensitive(true);
            value
        }))
    }

    /// Posts on a connection of its own, as `requests.post` does.
    pub async fn post(&mut self, headers: HeaderMap, body: Bytes) -> Exchange {
        let mut again = STALLS_MAX;
        let exchange = loop {
            let (answer, took, stood_still) = self.try_post(headers.clone(), body.clone()).await;
            // Who was late, nobody can say then: the receiver may have worked meanwhile.
            let is_late = took > self.rules.answer_asked.unwrap_or(CLOSE_TO_LIMIT);
            if (answer.is_err() || is_late) && !stood_still.is_zero() && again > 0 {
                again -= 1;
                continue;
            }
            break self.exchange(answer.map_err(|error| error.to_string()), took);
        };
        self.answered += 1;
        self.slowest = self.slowest.max(exchange.took);
        exchange
    }

    /// The answer, the time until then, and how much of it this process stood still.
    async fn try_post(
        &self,
        headers: HeaderMap,
        body: Bytes,
    ) -> (Result<Answer, ClientError>, Duration, Duration) {
        let started = Instant::now();
        let mut client = match Client::new(self.target().clone(), self.options()) {
            Ok(client) => client,
            Err(error) => return (Err(error), started.elapsed(), Duration::ZERO),
        };
        let (answer, stood_still) = watched(client.post(headers, body)).await;
        (answer, started.elapsed(), stood_still)
    }

    /// What came of a request.
    pub fn exchange(&self, answer: Result<Answer, String>, took: Duration) -> Exchange {
        let ms = took.as_millis();
        match answer {
            Err(problem) => Exchange {
                outcome: Outcome::NoAnswer,
                told: format!("no answer after {ms} ms: {problem}"),
                took,
                says_close: false,
                kept_by_redirect: None,
            },
            Ok(answer) => {
                let line = self.harmless_line(&answer);
                let colon = if line.is_empty() { "" } else { ": " };
                let closes = answer.headers.get(CONNECTION).and_then(|value| value.to_str().ok());
                Exchange {
                    kept_by_redirect: kept_by_redirect(&answer, self.target()),
                    outcome: Outcome::Answered(answer.code),
                    told: format!("{} in {ms} ms{colon}{line}", answer.code),
                    took,
                    says_close: closes.is_some_and(|word| word.eq_ignore_ascii_case("close")),
                }
            }
        }
    }

    /// The start of what the receiver says; not if it repeats the token, as some do in an error.
    fn harmless_line(&self, answer: &Answer) -> String {
        let token = String::from_utf8_lossy(&self.question.token.0);
        let line = answer.first_line();
        if String::from_utf8_lossy(&answer.body).contains(&*token) {
            return "(not shown: the answer repeats the token)".to_owned();
        }
        // XML has no way to hold these two.
        let is_character = |c: &char| !matches!(c, '\u{fffe}' | '\u{ffff}');
        line.chars().filter(is_character).take(LINE_CHARS_MAX).collect()
    }

    /// What the platform makes of an outcome that is always the same.
    pub fn consequence(&mut self, outcome: Outcome) -> Consequence {
        Consequence::of(self.question.platform, &self.rules, outcome, &mut self.chance)
    }

    /// Posts bodies one after the other, all of which must be accepted; the first that is not
    /// decides.
    pub async fn expect_accepted(&mut self, check: &'static Check, bodies: &[Bytes]) -> Finding {
        let mut exchanges = Vec::new();
        for body in bodies {
            let headers = self.headers(body);
            exchanges.push(self.post(headers, body.clone()).await);
        }
        self.judge_accepted(check, &exchanges)
    }

    /// The finding on answers all of which must be good.
    pub fn judge_accepted(&mut self, check: &'static Check, exchanges: &[Exchange]) -> Finding {
        let took = exchanges.iter().map(|exchange| exchange.took).sum();
        let consequences: Vec<Consequence> =
            exchanges.iter().map(|exchange| self.consequence(exchange.outcome)).collect();
        let bad = consequences.iter().find(|consequence| !consequence.is_accepted());
        let severity = if bad.is_some() { Severity::Lost } else { Severity::Ok };
        let consequence = bad.unwrap_or(&Consequence::Accepted);
        Finding::new(check, severity, told(exchanges), consequence.to_string()).within(took)
    }

    /// Everything found out, in the order of [`CHECKS`]; what is missing was skipped for `reason`.
    pub fn report(self, findings: &[Finding], reason: &str) -> Report {
        let mut findings: Vec<Finding> = CHECKS
            .iter()
            .map(|check| {
                let found = findings.iter().find(|finding| finding.check == *check);
                found.cloned().unwrap_or_else(|| Finding::skipped(check, reason))
            })
            .collect();
        explain_by(&super::order::UNKNOWN_ID, &mut findings);
        Report { findings, written: self.written }
    }
}

/// Where a 307 or 308 leads, if that is at the same host and port: there the senders show the token
/// again.
fn kept_by_redirect(answer: &Answer, target: &Target) -> Option<String> {
    let location = answer.headers.get(LOCATION).filter(|_| matches!(answer.code, 307 | 308))?;
    let location = location.to_str().ok()?;
    let location = location.split('#').next().unwrap_or_default();
    if location.starts_with('/') && !location.starts_with("//") {
        let uri: hyper::Uri = location.parse().ok()?;
        return Some(uri.path_and_query()?.as_str().to_owned());
    }
    let to = Target::parse(location).ok()?;
    let is_same = |to: &Target| {
        let is_host = to.host.eq_ignore_ascii_case(&target.host);
        is_host && (to.is_https, to.port) == (target.is_https, target.port)
    };
    is_same(&to).then_some(to.path)
}

/// The answers, in their order.
pub fn told(exchanges: &[Exchange]) -> String {
    exchanges.iter().map(|exchange| &*exchange.told).collect::<Vec<_>>().join("; then ")
}

/// If the plainest of all callbacks fails, others fail for the same reason, as far as one can tell
/// from outside: their code is the same.
fn explain_by(plainest: &'static Check, findings: &mut [Finding]) {
    let Some(found) = findings.iter().find(|it| it.check == plainest && it.is_failure()) else {
        return;
    };
    let sender_would = found.sender_would.clone();
    for finding in findings {
        let is_same = finding.severity == Severity::Lost && finding.sender_would == sender_would;
        if is_same && finding.check != plainest {
            finding.because_of = Some(plainest.name);
        }
    }
}
