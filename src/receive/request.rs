//! One request, from its head to its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{
    AUTHORIZATION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING,
};
use hyper::{Method, Request, Response, Version};
use tokio::time::timeout;

use super::answer::Answer;
use super::authenticate::Verdict;
use super::connection::{Phase, Watch};
use super::keeper::{Keeper, NotKept};
use super::refusal::Refusal;
use super::refusals::Refusals;
use super::routes::{Route, Routes};
use crate::clock::Clock;
use crate::config::settings::Limits;
use crate::journal::Entry;
use crate::provider;
use crate::telemetry::Metrics;

/// The longest body that could be a reachability probe, in bytes.
const PROBE_BYTES_MAX: usize = 256;

/// What a refused caller may still send before it is answered, in bytes: a client that writes its
/// body in a second packet would otherwise see a reset in place of the answer.
const DRAIN_BYTES_MAX: usize = 64 << 10;

/// GC Notify asks for an answer within a second.
const SLOW: Duration = Duration::from_secs(1);

/// What every request needs.
#[derive(Debug)]
pub struct FrontDoor {
    /// Who may post where.
    pub routes: Routes,
    /// Makes callbacks safe.
    pub keeper: Keeper,
    /// Every bound.
    pub limits: Limits,
    /// The time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What was refused lately, for the log.
    pub refusals: Refusals,
    /// Set while stopping: every answer ends its connection.
    pub is_draining: AtomicBool,
}

impl FrontDoor {
    /// A head was answered with that code that never became a request: whose it was is not known.
    pub fn turned_away(&self, code: u16, reason: &'static str) {
        self.metrics.stranger(code);
        self.refusals.note(None, reason);
    }

    /// Answers one request, and tells `watch` where it has got to.
    pub async fn serve(&self, request: Request<Incoming>, watch: &Watch) -> Response<Full<Bytes>> {
        let started = Instant::now();
        watch.enter(Phase::Serving);
        let path = request.uri().path();
        let route = self.routes.at(path);
        let answer = match (head_problem(&request), &route) {
            (Some(answer), _) => answer,
            (None, None) => self.turn_away(request, Answer::UnknownPath).await,
            (None, Some(_)) if request.method() != Method::POST => {
                self.turn_away(request, Answer::WrongMethod).await
            }
            (None, Some(route)) => self.receive(request, route, watch).await,
        };
        match (&route, &answer) {
            (Some(route), Answer::Kept) => route.metrics.kept(self.clock.now()),
            (Some(route), Answer::Probed) => route.metrics.probed(),
            (Some(route), _) => route.metrics.answered(answer.status().as_u16()),
            (None, _) => self.metrics.stranger(answer.status().as_u16()),
        }
        if !matches!(answer, Answer::Kept | Answer::Probed | Answer::Unauthenticated(_)) {
            self.refusals.note(route.as_deref().map(|route| &*route.source), answer.reason());
        }
        let took = started.elapsed();
        if let Some(route) = &route
            && (took > SLOW || answer.status().is_server_error())
        {
            route.metrics.unwell(self.clock.now());
        }
        self.metrics.answered(took);
        watch.enter(Phase::Answering);
        answer.respond(self.is_draining.load(Ordering::Relaxed))
    }

    async fn receive(&self, request: Request<Incoming>, route: &Route, watch: &Watch) -> Answer {
        let (head, body) = request.into_parts();
        match route.doorkeeper.check(&head.headers, self.clock.now()) {
            Verdict::Granted(granted) => {
                watch.authenticated();
                route.used(granted, self.clock.now());
                match self.read_body(body, self.limits.body_bytes_max).await {
                    Ok(body) => self.keep(route, body).await,
                    Err(answer) => answer,
                }
            }
            Verdict::SignatureOwed(owed) => {
                let body = match self.read_body(body, self.limits.body_bytes_max).await {
                    Ok(body) => body,
                    Err(answer) => return answer,
                };
                let (secret, signature) = (&owed.secret.0, owed.signature.as_bytes());
                let agrees = provider::notify::signature_agrees(secret, &body, signature);
                match owed.decide(agrees) {
                    Ok(_) => {
                        watch.authenticated();
                        self.keep(route, body).await
                    }
                    Err(refusal) => self.refuse(route, &refusal),
                }
            }
            Verdict::ProbeOnly(refusal) if body.size_hint().lower() > PROBE_BYTES_MAX as u64 => {
                let answer = self.refuse(route, &refusal);
                self.turn_away(Request::from_parts(head, body), answer).await
            }
            // Without a declared length it is heard out like any other that is turned away.
            Verdict::ProbeOnly(refusal) => match self.read_body(body, DRAIN_BYTES_MAX).await {
                Ok(body) if is_probe(route, &body) => Answer::Probed,
                _ => self.refuse(route, &refusal),
            },
            Verdict::Refused(refusal) => {
                let answer = self.refuse(route, &refusal);
                self.turn_away(Request::from_parts(head, body), answer).await
            }
        }
    }

    fn refuse(&self, route: &Route, refusal: &Refusal<'_>) -> Answer {
        let reason = refusal.reason.as_str();
        route.metrics.refused(reason);
        self.refusals.note(Some(&route.source), reason);
        Answer::Unauthenticated(refusal.challenge())
    }

    /// Reads the whole body: bounded by its declared length, its actual length and its time.
    async fn read_body(&self, body: Incoming, bytes_max: usize) -> Result<Bytes, Answer> {
        let declared = body.size_hint().lower();
        if declared > bytes_max as u64 {
            return Err(Answer::TooLarge);
        }
        timeout(self.limits.body_ms_max, collect(body, bytes_max))
            .await
            .unwrap_or(Err(Answer::TooSlow))
    }

    /// Has the callback made safe.
    async fn keep(&self, route: &Route, body: Bytes) -> Answer {
        if is_probe(route, &body) {
            return Answer::Probed;
        }
        let source = Arc::clone(&route.source);
        let entry = Entry::called_back(source, self.clock.now(), body);
        match self.keeper.keep(entry).await {
            Ok(()) => Answer::Kept,
            Err(NotKept::Late) => {
                tracing::warn!(source = &*route.source, "no commit in time; answered 503");
                Answer::Unavailable
            }
            Err(why) => {
                tracing::debug!(source = &*route.source, %why, "answered 503");
                Answer::Unavailable
            }
        }
    }

    /// Lets a refused caller finish what it was about to send, within narrow bounds, so that it
    /// hears the answer; but never asks for a body with which the caller waits for a word.
    async fn turn_away(&self, request: Request<Incoming>, answer: Answer) -> Answer {
        if request.headers().contains_key(EXPECT) {
            return answer;
        }
        let body = request.into_body();
        if body.size_hint().lower() <= DRAIN_BYTES_MAX as u64 {
            // Whatever comes of it, the answer is the same.
            let _ = timeout(self.limits.body_ms_max, collect(body, DRAIN_BYTES_MAX)).await;
        }
        answer
    }
}

fn is_probe(route: &Route, body: &[u8]) -> bool {
    body.len() <= PROBE_BYTES_MAX && provider::is_probe(route.provider, body)
}

async fn collect(mut body: Incoming, bytes_max: usize) -> Result<Bytes, Answer> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Answer::Malformed) };
        let Ok(data) = frame.into_data() else { continue };
        let so_far = first.as_ref().map_or(0, Bytes::len).max(rest.len());
        if so_far + data.len() > bytes_max {
            return Err(Answer::TooLarge);
        }
        match first.take() {
            // The usual callback arrives in one piece, which is taken as it is.
            None if rest.is_empty() => first = Some(data),
            None => rest.extend_from_slice(&data),
            Some(piece) => {
                rest.reserve(piece.len() + data.len());
                rest.extend_from_slice(&piece);
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| rest.freeze()))
}

/// What hyper lets pass and we must not: anything that a proxy in front could read differently.
fn head_problem<B>(request: &Request<B>) -> Option<Answer> {
    let headers = request.headers();
    // A proxy may speak HTTP/1.0 to what is behind it, as nginx does unless told otherwise; to
    // refuse that would lose every callback.
    let is_wrong = !matches!(request.version(), Version::HTTP_11 | Version::HTTP_10)
        || request.uri().authority().is_some()
        || !request.uri().path().starts_with('/')
        || count(headers, &HOST) != 1
        || count(headers, &AUTHORIZATION) > 1
        || count(headers, &CONTENT_LENGTH) > 1
        || !is_plainly_chunked(headers);
    is_wrong.then_some(Answer::Malformed)
}

fn count(headers: &HeaderMap, name: &HeaderName) -> usize {
    headers.get_all(name).iter().count()
}

fn is_plainly_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}
