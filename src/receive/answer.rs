//! The answer table: the one place that turns what happened into what the sender hears.
//!
//! A sender never repeats what was answered 4xx, so nothing that is our fault or might pass is ever
//! answered so: that is 503. Nothing is redirected: the platforms would follow as a GET without the
//! body. A 401 does not say what was wrong.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONNECTION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};

/// What happened to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// In the journal, durable; or every sink has it, where nothing is kept.
    Kept,
    /// A reachability probe, which is not kept: the same to its sender, and no sign of life of the source,
    /// because a stranger may send one.
    Probed,
    /// Not who it says, or does not say; with the challenge.
    Unauthenticated(HeaderValue),
    /// No source has this path.
    UnknownPath,
    /// Anything but POST.
    WrongMethod,
    /// The body is larger than allowed.
    TooLarge,
    /// The body did not arrive in time.
    TooSlow,
    /// Not HTTP as we accept it.
    Malformed,
    /// Our fault, or it will pass: the sender keeps it and comes again.
    Unavailable,
}

/// Seconds after which a refused sender may come again. The platforms do not look at it; proxies do.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("5");

impl Answer {
    /// The codes that a request for a source's path can be answered with.
    pub const CODES_AT_A_SOURCE: [u16; 7] = [204, 401, 405, 413, 408, 400, 503];

    /// The codes of one for any other path, and of a head that was no request, or never came whole.
    pub const CODES_ELSEWHERE: [u16; 5] = [404, 400, 408, 431, 503];

    /// Its code.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Kept | Self::Probed => StatusCode::NO_CONTENT,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What happened, for the log.
    pub fn reason(&self) -> &'static str {
        self.text().trim_end()
    }

    fn text(&self) -> &'static str {
        match self {
            Self::Kept | Self::Probed => "",
            Self::Unauthenticated(_) => "unauthenticated\n",
            Self::UnknownPath => "no source has this path\n",
            Self::WrongMethod => "callbacks are posted\n",
            Self::TooLarge => "the body is too large\n",
            Self::TooSlow => "the request took too long\n",
            Self::Malformed => "malformed request\n",
            Self::Unavailable => "not kept; send it again\n",
        }
    }

    /// Whether nothing more can be read from this connection.
    fn ends_connection(&self) -> bool {
        matches!(self, Self::TooLarge | Self::TooSlow | Self::Malformed)
    }

    /// The response. `closing`: the connection ends after it whatever the answer.
    pub fn respond(&self, closing: bool) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from_static(self.text().as_bytes())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        match self {
            Self::Unauthenticated(challenge) => {
                headers.insert(WWW_AUTHENTICATE, challenge.clone());
            }
            Self::WrongMethod => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            Self::Unavailable => {
                headers.insert(RETRY_AFTER, RETRY_AFTER_S);
            }
            _ => {}
        }
        if closing || self.ends_connection() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_might_pass_is_never_a_4xx_nothing_is_a_redirect_or_429_and_every_code_is_listed() {
        let all = [
            Answer::Kept,
            Answer::Probed,
            Answer::Unauthenticated(HeaderValue::from_static("Bearer")),
            Answer::UnknownPath,
            Answer::WrongMethod,
            Answer::TooLarge,
            Answer::TooSlow,
            Answer::Malformed,
            Answer::Unavailable,
        ];
        for answer in all {
            let response = answer.respond(false);
            let (code, is_elsewhere) = (response.status().as_u16(), answer == Answer::UnknownPath);
            assert_eq!(Answer::CODES_AT_A_SOURCE.contains(&code), !is_elsewhere, "{code}");
            assert!(!is_elsewhere || Answer::CODES_ELSEWHERE.contains(&code));
            assert!(!response.status().is_redirection() && response.status() != 429);
            let is_503 = response.status() == 503;
            assert_eq!(is_503, answer == Answer::Unavailable);
            assert_eq!(is_503, response.headers().contains_key(RETRY_AFTER));
        }
    }

    #[test]
    fn a_204_has_no_body() {
        use http_body_util::BodyExt as _;
        use hyper::body::Body as _;
        for answer in [Answer::Kept, Answer::Probed] {
            let body = answer.respond(false).into_body().boxed();
            assert!(body.is_end_stream());
        }
    }

    /// The whole table, as the sender sees it: code, body, the headers beside it, and whether the
    /// connection ends.
    #[tokio::test]
    async fn every_answer_has_its_code_its_body_and_its_headers() {
        use http_body_util::BodyExt as _;
        let bearer = HeaderValue::from_static("Bearer");
        for (answer, status, text, header, is_last) in [
            (Answer::Kept, 204, "", None, false),
            (Answer::Probed, 204, "", None, false),
            (
                Answer::Unauthenticated(bearer),
                401,
                "unauthenticated\n",
                Some((WWW_AUTHENTICATE, "Bearer")),
                false,
            ),
            (Answer::UnknownPath, 404, "no source has this path\n", None, false),
            (Answer::WrongMethod, 405, "callbacks are posted\n", Some((ALLOW, "POST")), false),
            (Answer::TooLarge, 413, "the body is too large\n", None, true),
            (Answer::TooSlow, 408, "the request took too long\n", None, true),
            (Answer::Malformed, 400, "malformed request\n", None, true),
            (
                Answer::Unavailable,
                503,
                "not kept; send it again\n",
                Some((RETRY_AFTER, "5")),
                false,
            ),
        ] {
            assert_eq!(answer.reason(), text.trim_end());
            for closing in [false, true] {
                let response = answer.respond(closing);
                assert_eq!(response.status(), status, "{answer:?}");
                let close = (closing || is_last).then_some((CONNECTION, "close"));
                let expected: Vec<_> = header.clone().into_iter().chain(close).collect();
                let headers: Vec<_> = response
                    .headers()
                    .iter()
                    .map(|(name, value)| (name.clone(), value.to_str().unwrap()))
                    .collect();
                assert_eq!(headers, expected, "{answer:?}");
                let body = response.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(body, text, "{answer:?}");
            }
        }
    }
}
