//! Why a connection to another host failed, in words of ours, and how long making one may take.
//!
//! What the other side says (a certificate's names, a reason phrase) never becomes part of it.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::client::legacy;
use tokio::time::timeout;
use tokio_rustls::rustls::{self, CertificateError};
use tower_service::Service;

use super::address::LookupError;

/// A connector whose connections, name lookup and TLS handshake included, are there in time or not
/// at all. The HTTP client goes on connecting after its request has found another connection, and
/// would do so for ever where a handshake never ends.
#[derive(Clone, Debug)]
pub struct InTime<C> {
    /// The connector.
    pub connector: C,
    /// For all of it.
    pub connect_ms_max: Duration,
}

type BoxError = Box<dyn Error + Send + Sync>;

impl<C> Service<Uri> for InTime<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = timeout(self.connect_ms_max, self.connector.call(to));
        Box::pin(async move {
            match connecting.await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}

/// What kept a request from being answered: a fragment without any value.
pub fn describe(error: &legacy::Error) -> String {
    let cause = cause(error);
    if error.is_connect() { format!("failed to connect: {cause}") } else { cause }
}

fn cause(error: &(dyn Error + 'static)) -> String {
    let mut known = None;
    let mut next = Some(error);
    // The innermost cause that we know is the closest to the truth.
    while let Some(error) = next {
        known = name(error).or(known);
        // What an `io::Error` was made from is no source of it.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    known.unwrap_or_else(|| "the request could not be sent".to_owned())
}

fn name(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(name_of_tls(error));
    }
    if let Some(error) = error.downcast_ref::<LookupError>() {
        return Some(error.to_string());
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        let text = if error.is_parse() {
            "the answer is no HTTP"
        } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
            "the connection ended before the answer"
        } else {
            return None;
        };
        return Some(text.to_owned());
    }
    let kind = error.downcast_ref::<io::Error>()?.kind();
    (kind != io::ErrorKind::Other).then(|| kind.to_string())
}

fn name_of_tls(error: &rustls::Error) -> String {
    let text = match error {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the certificate has expired"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the certificate is for another name"
            }
            // The latter of an issuer that is known by its name alone.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the certificate is of an unknown issuer"
            }
            _ => "the certificate is not valid",
        },
        rustls::Error::AlertReceived(alert) => return format!("TLS alert {alert:?}"),
        rustls::Error::InvalidMessage(_) => "the other side does not speak TLS",
        _ => "the TLS handshake failed",
    };
    text.to_owned()
}
