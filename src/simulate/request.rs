//! A callback as the senders write it: Python's `requests`, header by header.

use std::fmt;
use std::io::Write as _;

use crate::client::Target;
use crate::provider::notify::sign;

/// The senders are Python programs; some proxies treat those in their own way.
pub const USER_AGENT: &str = "python-requests/2.32.3";

/// How a callback says whom it is from. Does not print.
#[derive(Clone)]
pub enum Credential {
    /// `Authorization: Bearer …`
    Bearer(Vec<u8>),
    /// `x-enp-signature`, made with this secret over each body: VA Notify's callbacks asked for with
    /// one notification.
    Signature(Vec<u8>),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer(_) => "Bearer(…)",
            Self::Signature(_) => "Signature(…)",
        })
    }
}

/// A credential that no header can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token holds bytes that no header can, such as a newline")]
pub struct NotAHeader;

/// Everything of a request but its body.
#[derive(Clone, Debug)]
pub struct Request {
    head: Head,
    signing: Option<Credential>,
}

/// Up to what depends on the body. Holds the bearer, so it does not print.
#[derive(Clone)]
struct Head(Vec<u8>);

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Head(…)")
    }
}

impl Request {
    /// Requests to this target from whoever holds this credential.
    ///
    /// # Errors
    /// If a bearer could end its header.
    pub fn new(target: &Target, credential: Credential) -> Result<Self, NotAHeader> {
        // The order is that of `requests`: its own headers, those of the call, the length.
        let mut head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {USER_AGENT}\r\n\
             Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n\
             Content-Type: application/json\r\n",
            target.path, target.authority
        )
        .into_bytes();
        let signing = match credential {
            Credential::Bearer(token) => {
                let is_visible = |byte: &u8| !byte.is_ascii_control() || *byte == b'\t';
                if !token.iter().all(is_visible) {
                    return Err(NotAHeader);
                }
                head.extend_from_slice(b"Authorization: Bearer ");
                head.extend_from_slice(&token);
                head.extend_from_slice(b"\r\n");
                None
            }
            signature @ Credential::Signature(_) => Some(signature),
        };
        Ok(Self { head: Head(head), signing })
    }

    /// Writes the request with this body in place of what `out` holds.
    pub fn write(&self, body: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.head.0);
        if let Some(Credential::Signature(secret)) = &self.signing
            && let Some(signature) = sign(secret, body)
        {
            // Writing into a `Vec` cannot fail.
            let _ = write!(out, "x-enp-signature: {signature}\r\n");
        }
        let _ = write!(out, "Content-Length: {}\r\n\r\n", body.len());
        out.extend_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(credential: Credential, body: &str) -> String {
        let target = Target::parse("https://receiver.example:8443/callbacks/x?y=1").unwrap();
        let mut out = b"what was there before".to_vec();
        Request::new(&target, credential).unwrap().write(body.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_is_what_the_senders_library_writes() {
        assert_eq!(
            written(Credential::Bearer(b"a-token".to_vec()), r#"{"id": "1"}"#),
            "POST /callbacks/x?y=1 HTTP/1.1\r\n\
             Host: receiver.example:8443\r\n\
             User-Agent: python-requests/2.32.3\r\n\
             Accept-Encoding: gzip, deflate\r\n\
             Accept: */*\r\n\
             Connection: keep-alive\r\n\
             Content-Type: application/json\r\n\
             Authorization: Bearer a-token\r\n\
             Content-Length: 11\r\n\r\n{\"id\": \"1\"}"
        );
    }

    #[test]
    fn a_signed_request_has_no_bearer_and_the_signature_of_its_body() {
        let body = r#"{"notification_id": "1", "reference": null}"#;
        let request = written(Credential::Signature(b"secret".to_vec()), body);
        let signature = sign(b"secret", body.as_bytes()).unwrap();
        assert!(request.contains(&format!("\r\nx-enp-signature: {signature}\r\n")), "{request}");
        assert!(!request.contains("Authorization"), "{request}");
    }

    #[test]
    fn a_bearer_cannot_end_its_header_and_nothing_secret_prints() {
        let target = Target::parse("http://localhost/").unwrap();
        for token in ["a\r\nb: c", "a\nb", "a\0b"] {
            let made = Request::new(&target, Credential::Bearer(token.into()));
            assert_eq!(made.map(drop), Err(NotAHeader), "{token:?}");
        }
        for credential in
            [Credential::Bearer(b"canary".to_vec()), Credential::Signature(b"canary".to_vec())]
        {
            let request = Request::new(&target, credential.clone()).unwrap();
            assert!(!format!("{request:?}{credential:?}").contains("canary"));
            let bytes = format!("{:?}", b"canary");
            assert!(!format!("{request:?}{credential:?}").contains(&bytes[1..bytes.len() - 1]));
        }
    }
}
