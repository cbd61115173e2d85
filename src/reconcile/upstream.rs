//! One request to a platform's read API, and what its answer is.
//!
//! A client of one source. It asks the configured host and no other, for three things: one
//! notification, a page of them, a page of text messages from the public. An answer is read to a bound
//! in bytes, within a bound in time, and is taken apart by [`polled`]; whatever else it is, is a
//! [`Fault`]. It asks once: when to ask again is decided elsewhere.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
use tokio::time::timeout;

use super::credential::Credential;
use super::fault::Fault;
use super::scan::Place;
use crate::clock::Clock;
use crate::config::settings::Upstream;
use crate::forward::outgoing::{self, Client};
use crate::forward::{address, connect};
use crate::journal::PerList;
use crate::provider::Provider;
use crate::provider::polled::{self, Page, Said};

/// The longest answer. A page of 250 takes a few hundred kilobytes; letters and long e-mails are told
/// with their texts.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Which read API it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// `/v2/…`, pages by the id they follow.
    V2,
    /// `/notifications`, pages by number: US Notify.gov.
    V1,
}

/// A list of a platform's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// What the app sent.
    Notifications,
    /// What the public sent.
    Messages,
}

impl List {
    /// All, in the order of what there is of each.
    pub const ALL: PerList<Self> = [Self::Notifications, Self::Messages];
}

/// What a platform can be asked.
#[derive(Clone, Copy, Debug)]
pub enum Question<'q> {
    /// About one notification; its id, a UUID.
    Notification(&'q str),
    /// For the page of a list at that place.
    Page(List, &'q Place),
}

/// A platform, ready to be asked.
pub struct Platform {
    client: Client<Empty<Bytes>>,
    base: String,
    credential: Credential,
    shape: Shape,
    has_messages: bool,
    answer_ms_max: Duration,
    clock: Clock,
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Platform {
    /// Prepares to ask; in the runtime it is asked from. Connects to nothing.
    ///
    /// # Errors
    /// If a file cannot be used, or the host is an address at which no upstream may be; a sentence for
    /// the operator.
    pub fn open(upstream: &Upstream, provider: Provider, clock: Clock) -> Result<Self, String> {
        let base = &upstream.base;
        if address::is_forbidden_literal(&base.host) {
            return Err(format!("no upstream may be at {}", base.host));
        }
        let scheme = if base.is_https { "https" } else { "http" };
        Ok(Self {
            client: outgoing::client(&upstream.tls)?,
            base: format!("{scheme}://{}{}", base.authority, base.path),
            credential: Credential::new(upstream.api_key.clone(), provider),
            shape: if provider == Provider::UsNotify { Shape::V1 } else { Shape::V2 },
            has_messages: !matches!(provider, Provider::UsNotify | Provider::VaNotify),
            answer_ms_max: upstream.answer_ms_max,
            clock,
        })
    }

    /// Whom it asks: scheme, host and what comes before its paths.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Where the pages of that list begin; `None` if the platform has no such list.
    pub fn first_page(&self, list: List) -> Option<Place> {
        match (self.shape, list) {
            (_, List::Messages) if !self.has_messages => None,
            (Shape::V1, _) => Some(Place::Page(1)),
            (Shape::V2, _) => Some(Place::Newest),
        }
    }

    /// Asks once. What is said of one notification is a page of one.
    ///
    /// # Errors
    /// Whatever kept the platform from answering.
    pub async fn ask(&self, question: Question<'_>) -> Result<Page, Fault> {
        match question {
            Question::Page(list, place) => self.page(list, place).await,
            Question::Notification(id) => {
                let said = vec![self.notification(id).await?];
                Ok(Page { said, broken: Vec::new() })
            }
        }
    }

    async fn notification(&self, id: &str) -> Result<Said, Fault> {
        let path = match self.shape {
            Shape::V2 => format!("/v2/notifications/{id}"),
            Shape::V1 => format!("/notifications/{id}"),
        };
        let bytes = self.get(&path).await?;
        polled::notification(&bytes, id).map_err(|why| Fault::wrong(why.into_owned()))
    }

    async fn page(&self, list: List, place: &Place) -> Result<Page, Fault> {
        // Without it, what was sent by hand or from a file is not shown.
        let all = "include_jobs=true";
        let path = match (list, place) {
            (List::Notifications, Place::Newest) => format!("/v2/notifications?{all}"),
            (List::Notifications, Place::OlderThan(id)) => {
                format!("/v2/notifications?{all}&older_than={id}")
            }
            (List::Messages, Place::OlderThan(id)) => {
                format!("/v2/received-text-messages?older_than={id}")
            }
            (List::Messages, _) => "/v2/received-text-messages".to_owned(),
            (List::Notifications, Place::Page(number)) => {
                format!("/notifications?{all}&page={number}")
            }
        };
        let bytes = match self.get(&path).await {
            // Beyond its last page, US Notify.gov knows of none.
            Err(Fault::NotFound) if matches!(place, Place::Page(number) if *number > 1) => {
                return Ok(Page::default());
            }
            Err(Fault::NotFound) => return Err(Fault::wrong("answered 404: base_url is wrong")),
            asked => asked?,
        };
        let read = match list {
            List::Notifications => polled::notifications(&bytes),
            List::Messages => polled::messages(&bytes),
        };
        read.map_err(|why| Fault::wrong(why.into_owned()))
    }

    async fn get(&self, path: &str) -> Result<Bytes, Fault> {
        let request = self.request(path)?;
        let asking = async {
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| Fault::passing(connect::describe(&error)))?;
            self.judge(&answer)?;
            read(answer).await
        };
        let in_time = timeout(self.answer_ms_max, asking).await;
        in_time.unwrap_or_else(|_| Err(Fault::passing("no answer in time")))
    }

    fn request(&self, path: &str) -> Result<Request<Empty<Bytes>>, Fault> {
        let uri: Uri = format!("{}{path}", self.base)
            .parse()
            .map_err(|_| Fault::wrong("what is asked for cannot be written as a URL"))?;
        let mut headers = HeaderMap::new();
        let agent = concat!("receiptd/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let authorization = self.credential.authorization(self.clock.now());
        let authorization = authorization.ok_or_else(|| Fault::wrong("the key cannot sign"))?;
        headers.insert(AUTHORIZATION, authorization);
        let mut request = Request::new(Empty::new());
        (*request.uri_mut(), *request.headers_mut()) = (uri, headers);
        Ok(request)
    }

    fn judge(&self, answer: &Response<Incoming>) -> Result<(), Fault> {
        let code = answer.status().as_u16();
        let retry_after = || outgoing::retry_after(answer.headers(), self.clock.now());
        match code {
            200 => Ok(()),
            401 | 403 => Err(Fault::Denied { code }),
            404 => Err(Fault::NotFound),
            429 => Err(Fault::Limited { retry_after: retry_after() }),
            408 | 425 | 500..=599 => {
                let (why, retry_after) = (format!("answered {code}"), retry_after());
                Err(Fault::Passing { why, retry_after })
            }
            300..=399 => Err(Fault::wrong(format!("answered {code}: redirects are not followed"))),
            _ => Err(Fault::wrong(format!("answered {code}"))),
        }
    }
}

async fn read(answer: Response<Incoming>) -> Result<Bytes, Fault> {
    match Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Fault::wrong(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes")))
        }
        Err(_) => Err(Fault::passing("the connection ended before the answer")),
    }
}
