//! The paths of our own: what the platforms' read API has no words for.
//!
//! - One notification, waited for until it has come to an end.
//! - What has changed since, for whoever keeps a copy ([`super::changed`]).
//! - What was told of one notification, callback by callback.
//! - Changes as they happen ([`super::events`]).
//! - What the app says it sent ([`super::expected`]): the one thing here that is told, not asked.
//!
//! The same readers, tokens and errors as under `/v2`; the JSON has the columns of the public tables.
//! `openapi.json` describes it, and is what these paths are held to by the tests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::time::{sleep_until, timeout_at};

use super::fault::{Fault, Voice, json_answer};
use super::query::{forms_of, pairs, parse_wait};
use super::readers::Reader;
use super::{Answer, Ask, changed, events, expected, holding, written};
use crate::provider::Provider;
use crate::provider::ends::is_end;
use crate::state::asked;
use crate::state::read::NotificationRow;
use crate::state::time_line::{TimeLine, time_line};

const NOTIFICATIONS: &str = "/v1/notifications";
const EVENTS: &str = "/v1/events";
const EXPECTED: &str = "/v1/expected";
const OPENAPI: &str = "/v1/openapi.json";

/// What describes all of it.
const DOCUMENT: &str = include_str!("openapi.json");

/// What to give instead of what is no such time.
const NO_POSITION: &str = "after is no position; give that of the last one you have, as 1000";

const NO_WAIT: &str = "wait is not a time of at most 60 seconds; give whole seconds or milliseconds with \
    their unit, as in wait=10s or wait=500ms";

/// Questions that wait at once.
pub(super) const WAITING_MAX: usize = 64;

/// How often a question that waits looks again, at most: news of others wakes it too.
const LOOK_MS_MIN: Duration = Duration::from_millis(100);

/// Callbacks about one notification that are told at once.
const RECEIPTS_MAX: usize = 1_000;

/// What is asked for.
enum Route<'p> {
    Notification(&'p str),
    Receipts(&'p str),
    Changed,
    Events,
    Expected,
    OpenApi,
    Other,
}

impl<'p> Route<'p> {
    fn of(path: &'p str) -> Self {
        match path {
            NOTIFICATIONS => return Self::Changed,
            EVENTS => return Self::Events,
            EXPECTED => return Self::Expected,
            OPENAPI => return Self::OpenApi,
            _ => {}
        }
        let rest = path.strip_prefix(NOTIFICATIONS).and_then(|rest| rest.strip_prefix('/'));
        match rest.map(|rest| rest.split_once('/').unwrap_or((rest, ""))) {
            Some((id, "")) if !id.is_empty() && !path.ends_with('/') => Self::Notification(id),
            Some((id, "receipts")) if !id.is_empty() => Self::Receipts(id),
            _ => Self::Other,
        }
    }

    /// For metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Notification(_) => "/v1/notifications/{id}",
            Self::Receipts(_) => "/v1/notifications/{id}/receipts",
            Self::Changed => NOTIFICATIONS,
            Self::Events => EVENTS,
            Self::Expected => EXPECTED,
            Self::OpenApi => OPENAPI,
            Self::Other => "/v1",
        }
    }

    /// Whether it is for that method; else what is wrong.
    fn takes(&self, method: &Method) -> Result<(), Fault> {
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        match self {
            Self::Other => Err(Fault::NoPath),
            Self::Expected if *method == Method::POST => Ok(()),
            Self::Expected => Err(Fault::OnlyPost),
            _ if is_read => Ok(()),
            _ => Err(Fault::Method),
        }
    }
}

/// The answer, and what was asked for.
pub(super) async fn answer(ask: &Arc<Ask>, request: Request<Incoming>) -> (&'static str, Answer) {
    let uri = request.uri().clone();
    let route = Route::of(uri.path());
    let answer = answer_to(ask, &route, request).await;
    // One voice for all: these paths are of no platform.
    (route.label(), answer.unwrap_or_else(|fault| whole(fault.answer(Voice::Govuk))))
}

async fn answer_to(
    ask: &Arc<Ask>,
    route: &Route<'_>,
    request: Request<Incoming>,
) -> Result<Answer, Fault> {
    route.takes(request.method())?;
    if matches!(route, Route::OpenApi) {
        return Ok(whole(json_answer(StatusCode::OK, DOCUMENT)));
    }
    let reader = ask.reader(&request).map_err(|(fault, _)| fault)?;
    let held = ask.hold(&reader)?;
    let query = request.uri().query();
    let answer = match route {
        Route::Notification(id) => notification(ask, &reader, id, query).await.map(whole),
        Route::Receipts(id) => receipts(ask, &reader, id, query).await.map(whole),
        Route::Events => events::answer(ask, reader, &request).await,
        Route::Expected => expected::answer(ask, &reader, request).await.map(whole),
        Route::Changed | Route::OpenApi | Route::Other => {
            changed::answer(ask, &reader, query).await.map(whole)
        }
    };
    answer.map(|answer| holding(answer, held))
}

/// An answer that is sent as it is.
pub(super) fn whole(answer: Response<Full<Bytes>>) -> Answer {
    answer.map(http_body_util::Either::Left)
}

/// The value of the one key that may be there.
pub(super) fn only(query: Option<&str>, known: &[&str]) -> Result<Option<String>, Fault> {
    let mut pairs = pairs(query);
    if let Some((key, _)) = pairs.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        return Err(invalid(format!("{key} means nothing here; leave it out")));
    }
    match pairs.len() {
        0 | 1 => Ok(pairs.pop().map(|(_, value)| value)),
        _ => Err(invalid(format!("{} is given more than once; give it once", pairs[0].0))),
    }
}

pub(super) fn invalid(mistake: String) -> Fault {
    Fault::Invalid(vec![mistake])
}

/// So many digits are more than anybody has.
fn parse_position(text: &str) -> Option<usize> {
    let is_number = text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn decoded(id: &str) -> String {
    percent_encoding::percent_decode_str(id).decode_utf8_lossy().into_owned()
}

async fn notification(
    ask: &Ask,
    reader: &Arc<Reader>,
    id: &str,
    query: Option<&str>,
) -> Result<Response<Full<Bytes>>, Fault> {
    let Some(wait) = only(query, &["wait"])? else {
        let committed = ask.current().await?;
        return told(look(ask, reader, id, committed).await);
    };
    let wait = parse_wait(&wait).ok_or_else(|| invalid(NO_WAIT.to_owned()))?;
    let deadline = Instant::now() + wait;
    let _place = ask.place(&ask.waiting, reader)?;
    let committed = ask.current().await?;
    let mut settled = ask.settled.clone();
    loop {
        let looked_at = Instant::now();
        let looked = look(ask, reader, id, committed).await;
        if is_over(&looked, reader.provider) || looked_at >= deadline {
            return told(looked);
        }
        // What is settled after the look was begun ends the wait at once.
        match timeout_at(deadline.into(), settled.changes()).await {
            Ok(true) => sleep_until((looked_at + LOOK_MS_MIN).min(deadline).into()).await,
            // Settling has ended: nothing more will come.
            Ok(false) => return told(looked),
            // One more look.
            Err(_) => {}
        }
    }
}

/// What a look comes to.
type Looked = Result<Option<NotificationRow>, Fault>;

fn told(looked: Looked) -> Result<Response<Full<Bytes>>, Fault> {
    looked?.ok_or(Fault::NotHeardOf).map(|row| written(&row))
}

/// Whether to wait no longer. A state that is settled anew will know what the one before it knew.
fn is_over(looked: &Looked, provider: Provider) -> bool {
    match looked {
        Ok(found) => found.as_ref().is_some_and(|row| has_ended(row, provider)),
        Err(fault) => *fault != Fault::NotSettled,
    }
}

fn has_ended(row: &NotificationRow, provider: Provider) -> bool {
    let kind = row.notification_type.as_deref();
    row.returned_at.is_some()
        || row.status.as_deref().is_some_and(|status| is_end(provider, status, kind))
}

/// What is known of it now, in a state that holds everything up to `committed`.
async fn look(ask: &Ask, reader: &Arc<Reader>, id: &str, committed: i64) -> Looked {
    let (id, reader) = (decoded(id), Arc::clone(reader));
    ask.pool
        .of(&reader.source)
        .ask(committed, move |state| {
            for form in forms_of(&id) {
                if let Some(found) = asked::notification(state, &reader.source, &form)? {
                    return Ok(Some(found.row));
                }
            }
            Ok(None)
        })
        .await
}

/// What was told of one notification.
#[derive(Serialize)]
struct Receipts {
    receipts: Vec<TimeLine>,
    /// Whether there are more than are told.
    has_more: bool,
}

async fn receipts(
    ask: &Ask,
    reader: &Arc<Reader>,
    id: &str,
    query: Option<&str>,
) -> Result<Response<Full<Bytes>>, Fault> {
    let after = only(query, &["after"])?.map_or(Some(0), |after| parse_position(&after));
    let after = after.ok_or_else(|| invalid(NO_POSITION.to_owned()))?;
    let committed = ask.current().await?;
    let (id, reader) = (decoded(id), Arc::clone(reader));
    ask.pool
        .of(&reader.source)
        .ask(committed, move |state| {
            for form in forms_of(&id) {
                let lines = time_line(state, &reader.source, &form, (after, RECEIPTS_MAX + 1))?;
                let Some(mut receipts) = lines else { continue };
                let has_more = receipts.len() > RECEIPTS_MAX;
                receipts.truncate(RECEIPTS_MAX);
                return Ok(written(&Receipts { receipts, has_more }));
            }
            Err(Fault::NotHeardOf)
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_outlasts_a_state_that_is_settled_anew_and_no_other_fault() {
        let is_over = |looked| is_over(&looked, Provider::GovukNotify);
        assert!(!is_over(Err(Fault::NotSettled)) && !is_over(Ok(None)));
        assert!(is_over(Err(Fault::Failed)) && is_over(Err(Fault::Stopping)));
    }

    #[test]
    fn a_key_may_stand_once_and_only_where_it_means_something() {
        assert_eq!(only(Some("wait=5s"), &["wait"]), Ok(Some("5s".to_owned())));
        assert_eq!(only(None, &["wait"]), Ok(None));
        assert_eq!(only(Some(""), &[]), Ok(None));
        for wrong in ["wait=5s&wait=6s", "wait=5s&x=1", "x=1"] {
            assert!(matches!(only(Some(wrong), &["wait"]), Err(Fault::Invalid(_))), "{wrong}");
        }
    }
}
