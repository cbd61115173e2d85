//! What an app says it sent: `POST /v1/expected`, one notification or many at once.
//!
//! Promises: it is answered 204 only once all of it is durable in the journal, from where it is settled
//! as callbacks are, so it does not matter which of the two came first; saying it again changes nothing.
//! A reader says it of its own source. Any other answer means that some of it may be kept, and that
//! saying all of it again does no harm.
//!
//! Bounded: [`EXPECTED_MAX`] notifications and [`BODY_BYTES_MAX`] at once, within [`BODY_MS_MAX`], from
//! [`SAYING_MAX`] callers; of these few entries wait for the journal at a time, and what finds its queue
//! full is refused, so that callbacks keep their room. What is wrong is told by the name of the field,
//! never by its value.

use std::error::Error;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use serde_json::{Map, Value};
use tokio::time::timeout;
use uuid::Uuid;

use super::Ask;
use super::fault::Fault;
use super::readers::Reader;
use super::v1::{invalid, only};
use crate::clock::Timestamp;
use crate::provider::Provider;
use crate::settle::{EXPECTED_MAX, Expected, expect};

/// Callers whose bodies are read, or wait for the journal, at once: bounds the memory they take.
pub(super) const SAYING_MAX: usize = 8;

/// The longest body: a thousand ids, references and deadlines of the usual length are a third of it.
const BODY_BYTES_MAX: usize = 512 << 10;

/// How long a body may take to arrive.
const BODY_MS_MAX: Duration = Duration::from_secs(10);

/// The longest id or reference, in characters.
const TEXT_CHARS_MAX: usize = 1_000;

/// Mistakes that are told of one body; whoever makes more has a mistake in its code, not in its data.
const MISTAKES_MAX: usize = 20;

/// The answer to a POST by this reader.
pub(super) async fn answer(
    ask: &Ask,
    reader: &Reader,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Fault> {
    only(request.uri().query(), &[])?;
    let _place = ask.place(&ask.saying, reader)?;
    let body = read(request.into_body(), BODY_MS_MAX).await?;
    let mut said = parse(&body)?;
    drop(body);
    if reader.provider != Provider::Ajo {
        said.iter_mut().for_each(|expected| expected.id = usual(&expected.id));
    }
    let kept = expect(&ask.journal, &reader.source, ask.clock.now(), &said).await;
    kept.map_err(|_| Fault::NotKept)?;
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    Ok(answer)
}

/// The body, if it is there within `time`.
async fn read<B>(body: B, time: Duration) -> Result<Bytes, Fault>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let whole = Limited::new(body, BODY_BYTES_MAX).collect();
    match timeout(time, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Fault::LongBody),
        Ok(Err(_)) => Err(invalid("the body ended early".to_owned())),
        Err(_) => Err(Fault::SlowBody),
    }
}

/// A UUID in the form in which platforms write it, which is the one that callbacks bring.
fn usual(id: &str) -> String {
    Uuid::try_parse(id).map_or_else(|_| id.to_owned(), |id| id.hyphenated().to_string())
}

/// What is said, or everything that is wrong with it.
fn parse(body: &[u8]) -> Result<Vec<Expected>, Fault> {
    let body: Value =
        serde_json::from_slice(body).map_err(|_| invalid("the body is not JSON".to_owned()))?;
    let mut mistakes = Vec::new();
    let said: Vec<Option<Expected>> = match body {
        Value::Array(all) if all.len() > EXPECTED_MAX => {
            return Err(invalid(format!("the body has more than {EXPECTED_MAX} items")));
        }
        Value::Array(all) => {
            let one = |(place, one)| parse_one(one, &format!("[{place}]"), &mut mistakes);
            all.into_iter().enumerate().map(one).collect()
        }
        one => vec![parse_one(one, "", &mut mistakes)],
    };
    if mistakes.is_empty() {
        return Ok(said.into_iter().flatten().collect());
    }
    mistakes.truncate(MISTAKES_MAX);
    Err(Fault::Invalid(mistakes))
}

/// One notification; `at` is its place in the body. What is wrong goes to `mistakes`.
fn parse_one(one: Value, at: &str, mistakes: &mut Vec<String>) -> Option<Expected> {
    let Value::Object(mut one) = one else {
        let what = if at.is_empty() { "the body" } else { at };
        mistakes.push(format!("{what} is not of type object"));
        return None;
    };
    let dot = if at.is_empty() { "" } else { "." };
    let mut field = |key: &str| {
        let found = text(&mut one, key);
        found.unwrap_or_else(|wrong| {
            mistakes.push(format!("{at}{dot}{key} {wrong}"));
            None
        })
    };
    let (id, reference, deadline) = (field("id"), field("reference"), field("deadline"));
    let deadline = deadline.map(|deadline| deadline.parse::<Timestamp>());
    if matches!(deadline, Some(Err(_))) {
        mistakes.push(format!("{at}{dot}deadline is not a date-time like 2026-11-22T10:00:00Z"));
    }
    if !one.is_empty() {
        let what = if at.is_empty() { "the body" } else { at };
        mistakes.push(format!("{what} has a key other than id, reference and deadline"));
    }
    Some(Expected { id: id?, reference, deadline: deadline.and_then(Result::ok) })
}

/// Takes the text of that key out; null counts as nothing where it may.
fn text(one: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match one.remove(key) {
        None if key == "id" => Err("is a required property".to_owned()),
        Some(Value::Null) if key != "id" => Ok(None),
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Err("is empty".to_owned()),
        Some(Value::String(text)) if text.chars().count() > TEXT_CHARS_MAX => {
            Err(format!("has more than {TEXT_CHARS_MAX} characters"))
        }
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err("is not of type string".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;

    use super::super::fault::Voice;
    use super::*;

    /// The body of a client that sends no more of it.
    struct Stalled;

    impl Body for Stalled {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    #[test]
    fn a_body_that_is_not_there_in_time_is_answered_408_and_one_that_is_there_is_read() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let slow = runtime.block_on(read(Stalled, Duration::ZERO)).unwrap_err();
        let answer = slow.answer(Voice::Govuk);
        assert_eq!((slow, answer.status()), (Fault::SlowBody, StatusCode::REQUEST_TIMEOUT));
        let there = runtime.block_on(read(Full::new(Bytes::from("[]")), Duration::ZERO));
        assert_eq!(there, Ok(Bytes::from("[]")));
    }

    fn mistakes(body: &str) -> Vec<String> {
        match parse(body.as_bytes()) {
            Err(Fault::Invalid(mistakes)) => mistakes,
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn one_is_said_as_an_object_and_many_as_an_array() {
        let one = Expected { id: "a".into(), reference: None, deadline: None };
        assert_eq!(parse(br#"{"id": "a"}"#), Ok(vec![one.clone()]));
        assert_eq!(parse(br#"[{"id": "a", "reference": null}]"#), Ok(vec![one.clone()]));
        assert_eq!(parse(b"[]"), Ok(vec![]));
        let whole = br#"[{"id": "a"}, {"id": "b", "reference": "r", "deadline": "1970-01-01T01:00:00+01:00"}]"#;
        let deadline = Some(Timestamp::from_unix_micros(0));
        let other = Expected { id: "b".into(), reference: Some("r".into()), deadline };
        assert_eq!(parse(whole), Ok(vec![one, other]));
    }

    #[test]
    fn what_is_wrong_is_told_by_the_name_of_the_field_and_never_by_its_value() {
        for (body, told) in [
            ("{", "the body is not JSON"),
            ("7", "the body is not of type object"),
            ("{}", "id is a required property"),
            (r#"{"id": null}"#, "id is not of type string"),
            (r#"{"id": ""}"#, "id is empty"),
            (r#"{"id": "a", "reference": 7}"#, "reference is not of type string"),
            (r#"[{"id": "a"}, {"id": []}]"#, "[1].id is not of type string"),
            ("[7]", "[0] is not of type object"),
            (
                r#"{"id": "a", "secret": 1}"#,
                "the body has a key other than id, reference and deadline",
            ),
        ] {
            assert_eq!(mistakes(body), [told], "{body}");
        }
        let soon = mistakes(r#"{"id": "a", "deadline": "secret"}"#);
        assert_eq!(soon, ["deadline is not a date-time like 2026-11-22T10:00:00Z"]);
        let both = mistakes(r#"{"reference": 1, "deadline": "secret"}"#);
        assert_eq!(both.len(), 3, "all of it at once: {both:?}");
    }

    #[test]
    fn what_is_said_and_what_is_told_of_it_is_bounded() {
        let many = |count| serde_json::to_string(&vec![serde_json::json!({"id": "a"}); count]);
        assert_eq!(parse(many(EXPECTED_MAX).unwrap().as_bytes()).unwrap().len(), EXPECTED_MAX);
        assert_eq!(
            mistakes(&many(EXPECTED_MAX + 1).unwrap()),
            ["the body has more than 1000 items"]
        );
        let long = format!(r#"{{"id": "{}"}}"#, "ä".repeat(TEXT_CHARS_MAX));
        assert!(parse(long.as_bytes()).is_ok());
        let longer = format!(r#"{{"id": "{}"}}"#, "ä".repeat(TEXT_CHARS_MAX + 1));
        assert_eq!(mistakes(&longer), ["id has more than 1000 characters"]);
        assert_eq!(mistakes(&format!("[{}7]", "7,".repeat(99))).len(), MISTAKES_MAX);
    }

    #[test]
    fn a_uuid_is_kept_in_the_form_of_the_platforms() {
        let id = "740e5834-3a29-46b4-9a6f-16142fde533a";
        for form in [id.to_uppercase(), id.replace('-', ""), id.to_owned()] {
            assert_eq!(usual(&form), id);
        }
        assert_eq!(usual("no-UUID"), "no-UUID");
    }
}
