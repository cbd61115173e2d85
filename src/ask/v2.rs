//! The paths of the official clients.

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HOST, HeaderMap};
use hyper::{Method, Request, Response};
use rusqlite::Connection;

use super::fault::Fault;
use super::query::{List, forms_of, not_an_id};
use super::readers::Reader;
use super::shape::{Links, Message, Messages, Notification, Notifications};
use super::{Ask, PAGE, holding, written};
use crate::state::asked::{self, Place};

const NOTIFICATIONS: &str = "/v2/notifications";
const MESSAGES: &str = "/v2/received-text-messages";

/// What is asked for.
enum Route<'p> {
    Notification(&'p str),
    Notifications,
    Messages,
    Other,
}

impl<'p> Route<'p> {
    fn of(method: &Method, path: &'p str) -> Self {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Self::Other;
        }
        match path.strip_prefix(NOTIFICATIONS) {
            Some("") => Self::Notifications,
            Some(rest) => match rest.strip_prefix('/') {
                Some(id) if !id.is_empty() && !id.contains('/') => Self::Notification(id),
                _ => Self::Other,
            },
            None if path == MESSAGES => Self::Messages,
            None => Self::Other,
        }
    }

    /// For metrics.
    fn label(&self) -> &'static str {
        match self {
            Self::Notification(_) => "/v2/notifications/{id}",
            Self::Notifications => NOTIFICATIONS,
            Self::Messages => MESSAGES,
            Self::Other => "/v2",
        }
    }
}

type Answer = Response<Full<Bytes>>;

/// The answer, and what was asked for.
pub(super) async fn answer(ask: &Ask, request: &Request<Incoming>) -> (&'static str, Answer) {
    let route = Route::of(request.method(), request.uri().path());
    let label = route.label();
    if matches!(route, Route::Other) {
        // Told to everybody: it is in the documentation.
        return (label, Fault::NoRoute.answer(super::Voice::Govuk));
    }
    let reader = match ask.reader(request) {
        Ok(reader) => reader,
        Err((fault, voice)) => return (label, fault.answer(voice)),
    };
    let held = match ask.hold(&reader) {
        Ok(held) => held,
        Err(fault) => return (label, fault.answer(reader.voice())),
    };
    let answer = match route {
        Route::Notification(id) => notification(ask, &reader, id).await,
        Route::Messages => messages(ask, &reader, request).await,
        Route::Notifications | Route::Other => notifications(ask, &reader, request).await,
    };
    (label, holding(answer.unwrap_or_else(|fault| fault.answer(reader.voice())), held))
}

async fn notification(ask: &Ask, reader: &Arc<Reader>, id: &str) -> Result<Answer, Fault> {
    let id = percent_encoding::percent_decode_str(id).decode_utf8_lossy().into_owned();
    let committed = ask.current().await?;
    let reader = Arc::clone(reader);
    ask.pool
        .of(&reader.source)
        .ask(committed, move |state| {
            for form in forms_of(&id) {
                if let Some(found) = asked::notification(state, &reader.source, &form)? {
                    return Ok(written(&Notification::of(&found, &reader)));
                }
            }
            let mistake = not_an_id("notification_id", &id);
            Err(mistake.map_or(Fault::NotFound, |mistake| Fault::Invalid(vec![mistake])))
        })
        .await
}

async fn notifications(
    ask: &Ask,
    reader: &Arc<Reader>,
    request: &Request<Incoming>,
) -> Result<Answer, Fault> {
    let list = List::of_notifications(request.uri().query(), reader.voice())?;
    let base = format!("{}{NOTIFICATIONS}", base(request.headers()));
    ask.indexes.are_there()?;
    let committed = ask.current().await?;
    let reader = Arc::clone(reader);
    ask.pool
        .of(&reader.source)
        .ask(committed, move |state| {
            let rows = match begin(state, &reader, &list, asked::notification_place)? {
                Begin::At(place) => {
                    asked::notifications(state, &reader.source, &list.filter, place.as_ref(), PAGE)?
                }
                Begin::Nowhere => Vec::new(),
            };
            let links = links(&base, &list, rows.last().map(|last| last.row.id.as_str()));
            let notifications = rows.iter().map(|row| Notification::of(row, &reader)).collect();
            Ok(written(&Notifications { notifications, links }))
        })
        .await
}

async fn messages(
    ask: &Ask,
    reader: &Arc<Reader>,
    request: &Request<Incoming>,
) -> Result<Answer, Fault> {
    let list = List::of_messages(request.uri().query())?;
    let base = format!("{}{MESSAGES}", base(request.headers()));
    ask.indexes.are_there()?;
    let committed = ask.current().await?;
    let reader = Arc::clone(reader);
    ask.pool
        .of(&reader.source)
        .ask(committed, move |state| {
            let rows = match begin(state, &reader, &list, asked::message_place)? {
                Begin::At(place) => asked::messages(state, &reader.source, place.as_ref(), PAGE)?,
                Begin::Nowhere => Vec::new(),
            };
            let links = links(&base, &list, rows.last().map(|last| last.id.as_str()));
            let received_text_messages = rows.iter().map(|row| Message::of(row, &reader)).collect();
            Ok(written(&Messages { received_text_messages, links }))
        })
        .await
}

/// Where a list begins.
enum Begin {
    /// Behind that place; without one, at the newest.
    At(Option<Place>),
    /// Behind something that is not kept: the platforms answer with an empty page.
    Nowhere,
}

fn begin(
    state: &Connection,
    reader: &Reader,
    list: &List,
    place_of: fn(&Connection, &str, &str) -> rusqlite::Result<Option<Place>>,
) -> Result<Begin, Fault> {
    let Some(id) = &list.older_than else { return Ok(Begin::At(None)) };
    for form in forms_of(id) {
        if let Some(place) = place_of(state, &reader.source, &form)? {
            return Ok(Begin::At(Some(place)));
        }
    }
    match not_an_id("older_than", id) {
        Some(mistake) => Err(Fault::Invalid(vec![mistake])),
        None => Ok(Begin::Nowhere),
    }
}

/// Where the caller has found us.
fn base(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // A proxy in front that speaks TLS says so; it changes nothing but what the caller is told.
    let scheme = match text("x-forwarded-proto") {
        Some("https") => "https",
        _ => "http",
    };
    format!("{scheme}://{}", text(HOST.as_str()).unwrap_or("localhost"))
}

fn links(base: &str, list: &List, last: Option<&str>) -> Links {
    let with =
        |query: String| if query.is_empty() { base.to_owned() } else { format!("{base}?{query}") };
    Links { current: with(list.current()), next: last.map(|id| with(list.next(id))) }
}
