//! What can be wrong with a question, and the one table from there to the answer.
//!
//! Codes, bodies and sentences are those of the platforms, because apps and client libraries look for
//! them; GC Notify words some of them otherwise. What no platform would say is in the same shape.
//!
//! None depends on what is configured beside the reader's own source: see [`super::token::voice`].

use std::borrow::Cow;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

/// Whose sentences are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// GOV.UK Notify's, which all but one of its relatives have too.
    Govuk,
    /// GC Notify's.
    Gc,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No `Authorization`.
    NoToken,
    /// `Authorization` of another scheme.
    OtherScheme,
    /// A token that is none, or that we do not understand.
    Malformed,
    /// A token that is signed in another way.
    Algorithm,
    /// A token that names no service.
    NoIssuer,
    /// A service or a key that is not configured: it is not said which.
    UnknownKey,
    /// A token from too long ago, or from the future. Told only to who has the key.
    OldClock,
    /// What is asked for makes no sense: a sentence for each mistake.
    Invalid(Vec<String>),
    /// The source has no notification of that id.
    NotFound,
    /// The same, of our own paths.
    NotHeardOf,
    /// Nothing is asked there: sending, above all.
    NoRoute,
    /// Nothing is asked there, of our own paths.
    NoPath,
    /// All but one of our own paths are only read.
    Method,
    /// That one is only posted to.
    OnlyPost,
    /// A body of more bytes than may be said at once.
    LongBody,
    /// A body that is not there in time.
    SlowBody,
    /// The journal has no room for what an app says, or is stopping.
    NotKept,
    /// Nothing is kept, so there is nothing to read.
    NothingKept,
    /// What was acknowledged is not settled in time.
    NotSettled,
    /// The indexes that lists are read through are being made.
    NotIndexed,
    /// Every connection is taken.
    Busy,
    /// The answer took too long to find.
    TooSlow,
    /// Nothing is answered any more.
    Stopping,
    /// The state could not be read; the log says why.
    Failed,
}

/// What no official client can find here, in words for whoever pointed one at us to send.
const NO_ROUTE: &str = "There is nothing at this path; ask GET /v2/notifications, \
    GET /v2/notifications/{id} or GET /v2/received-text-messages. receiptd does not send: send through \
    the platform's own API";

const NO_PATH: &str = "There is nothing at this path; ask GET /v1/notifications, \
    GET /v1/notifications/{id}, GET /v1/notifications/{id}/receipts or GET /v1/events, or say \
    POST /v1/expected. GET /v1/openapi.json describes them";

/// Of what may be known later, and may never be.
const NOT_HEARD_OF: &str = "Nothing is known of a notification with this id; if it was sent just now, ask \
    again, or wait for it: wait=10s";

/// Of a token that is not like those in GOV.UK Notify's documentation.
const GENERAL: &str = "Invalid token: make sure your API token matches the example at \
    https://docs.notifications.service.gov.uk/rest-api.html#authorisation-header";

/// Seconds after which another try is worth it.
const RETRY_AFTER_S: &str = "1";

impl Fault {
    /// The answer, in that voice.
    pub(super) fn answer(&self, voice: Voice) -> Response<Full<Bytes>> {
        let (status, body) = self.says(voice);
        let mut answer = json_answer(status, body.to_string());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        let allowed = match self {
            Self::Method => Some("GET, HEAD"),
            Self::OnlyPost => Some("POST"),
            _ => None,
        };
        if let Some(allowed) = allowed {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        }
        answer
    }

    fn says(&self, voice: Voice) -> (StatusCode, Value) {
        let gc = voice == Voice::Gc;
        let auth = |status, message: &'static str| errors(status, "AuthError", &[message.into()]);
        let (unauthorized, forbidden) = (StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN);
        match self {
            Self::NoToken => {
                auth(unauthorized, "Unauthorized: authentication token must be provided")
            }
            Self::OtherScheme => {
                auth(unauthorized, "Unauthorized: authentication bearer scheme must be used")
            }
            Self::Malformed => auth(forbidden, GENERAL),
            Self::Algorithm => auth(forbidden, "Invalid token: algorithm used is not HS256"),
            Self::NoIssuer => auth(forbidden, "Invalid token: iss field not provided"),
            Self::UnknownKey if gc => {
                auth(forbidden, "Invalid token: signature, api token not found")
            }
            Self::UnknownKey => auth(forbidden, "Invalid token: API key not found"),
            Self::OldClock => {
                auth(forbidden, "Error: Your system clock must be accurate to within 30 seconds")
            }
            Self::Invalid(mistakes) => {
                let mistakes: Vec<Cow<'static, str>> =
                    mistakes.iter().map(|mistake| Cow::Owned(mistake.clone())).collect();
                errors(StatusCode::BAD_REQUEST, "ValidationError", &mistakes)
            }
            Self::NotFound if gc => (
                StatusCode::NOT_FOUND,
                json!({"result": "error", "message": "Notification not found in database"}),
            ),
            Self::NotFound => {
                errors(StatusCode::NOT_FOUND, "NoResultFound", &["No result found".into()])
            }
            other => other.says_of_us(),
        }
    }

    /// What no platform would say.
    fn says_of_us(&self) -> (StatusCode, Value) {
        let (status, error, message) = match self {
            Self::NoPath => (StatusCode::NOT_FOUND, "NotFound", NO_PATH),
            Self::NotHeardOf => (StatusCode::NOT_FOUND, "NoResultFound", NOT_HEARD_OF),
            Self::Method => {
                (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "This path is read with GET")
            }
            Self::OnlyPost => {
                (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "This path is told with POST")
            }
            Self::LongBody => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "PayloadTooLarge",
                "The body is too long; say it in several requests",
            ),
            Self::SlowBody => (
                StatusCode::REQUEST_TIMEOUT,
                "RequestTimeout",
                "The body was not there in time; say it again",
            ),
            Self::NotKept => (
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                "Not all of it could be kept; say it again",
            ),
            Self::NothingKept => (
                StatusCode::NOT_FOUND,
                "NotFound",
                "Nothing is kept here, so there is nothing to read: store.kind is \"none\"",
            ),
            Self::NotSettled => (
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                "What has been received is not settled yet; ask again",
            ),
            Self::NotIndexed => (
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                "The indexes for lists are being made; ask again",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                "Too much is asked at once; ask again",
            ),
            Self::Stopping => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "Stopping; ask again")
            }
            Self::TooSlow => (
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                "The answer took too long to find; ask again",
            ),
            Self::Failed => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalServerError",
                "The state could not be read; see the receiver's log",
            ),
            // The others have sentences of the platforms.
            _ => (StatusCode::NOT_FOUND, "NotFound", NO_ROUTE),
        };
        errors(status, error, &[message.into()])
    }
}

fn errors(status: StatusCode, error: &str, messages: &[Cow<'static, str>]) -> (StatusCode, Value) {
    let all: Vec<Value> =
        messages.iter().map(|message| json!({"error": error, "message": message})).collect();
    (status, json!({"status_code": status.as_u16(), "errors": all}))
}

/// An answer of that JSON.
pub(super) fn json_answer(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
