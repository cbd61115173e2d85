//! URLs of sinks: a scheme we speak, a host, perhaps a port and a path, and nothing that may be secret.
//!
//! A user, a password or a query may hold a secret, so a URL with one is refused without being
//! quoted, and so is any that cannot be read but looks as if it held one.

use hyper::Uri;
use tokio_rustls::rustls::pki_types::ServerName;

use super::report::{Checked, Found, Report};
use super::section::quoted;
use super::settings::Endpoint;
use crate::client::{NotAPort, port};

/// What a URL may begin with.
pub(super) struct Scheme {
    /// Before `://`.
    pub(super) word: &'static str,
    /// Whether it means TLS.
    pub(super) is_tls: bool,
    /// The port where the URL names none.
    pub(super) port: u16,
}

/// Why a text is not a URL to connect to.
#[derive(Debug)]
struct Fault {
    /// Never what may be secret.
    found: String,
    hint: Option<String>,
}

/// Reads a URL. `expected` is what would be right; `login` says where a user and a password belong.
pub(super) fn endpoint(
    url: &Found<String>,
    schemes: &[Scheme],
    expected: &str,
    login: &str,
    report: &mut Report,
) -> Checked<Endpoint> {
    parse(&url.value, schemes, login)
        .map_err(|fault| report.problem_hinted(&url.at, fault.found, expected, fault.hint))
}

fn parse(text: &str, schemes: &[Scheme], login: &str) -> Result<Endpoint, Fault> {
    let fault = |found: &str, hint: &str| Fault { found: found.into(), hint: Some(hint.into()) };
    if text.contains('@') {
        return Err(fault("a URL with a user or a password in it", login));
    }
    if text.contains(['?', '#']) {
        let hint = "leave out what follows the path; each setting has a key of its own";
        return Err(fault("a URL with a query or a fragment", hint));
    }
    let Some((word, _)) = text.split_once("://") else {
        return Err(fault(&quoted(text), &format!("put {}:// in front", schemes[0].word)));
    };
    let Some(scheme) = schemes.iter().find(|scheme| scheme.word == word) else {
        let words: Vec<String> = schemes.iter().map(|s| format!("{}://", s.word)).collect();
        return Err(fault(&quoted(text), &format!("it must begin with {}", words.join(" or "))));
    };
    let whole = || Fault { found: quoted(text), hint: hint(text) };
    let uri: Uri = text.parse().map_err(|_| whole())?;
    let authority = uri.authority().ok_or_else(whole)?;
    let host = authority.host();
    let port = port(authority).map_err(|NotAPort| whole())?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || ServerName::try_from(host).is_err() {
        return Err(whole());
    }
    Ok(Endpoint {
        is_tls: scheme.is_tls,
        host: host.to_owned(),
        port: port.unwrap_or(scheme.port),
        path: decoded(uri.path().strip_prefix('/').unwrap_or("")).ok_or_else(whole)?,
    })
}

/// What is wrong with host and port, as far as it can be told.
fn hint(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty() || authority.starts_with(':') {
        return Some("there is no host".into());
    }
    // The colons of an IPv6 address are before its bracket.
    let (_, port) = authority.rsplit_once(':').filter(|(_, port)| !port.contains(']'))?;
    let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
    (!is_port).then(|| "a port is a number from 1 to 65535".into())
}

/// Text with `%` and two hex digits read as the byte they stand for.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or("").as_bytes().to_vec();
    for part in parts {
        let (hex, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMES: [Scheme; 2] = [
        Scheme { word: "amqp", is_tls: false, port: 5672 },
        Scheme { word: "amqps", is_tls: true, port: 5671 },
    ];

    fn read(text: &str) -> Result<Endpoint, Fault> {
        parse(text, &SCHEMES, "they belong elsewhere")
    }

    #[test]
    fn host_port_and_path_are_read_and_the_usual_port_is_filled_in() {
        for (text, is_tls, host, port, path) in [
            ("amqp://broker", false, "broker", 5672, ""),
            ("amqps://broker.example/", true, "broker.example", 5671, ""),
            ("amqp://10.0.0.1:1/%2f", false, "10.0.0.1", 1, "/"),
            ("amqp://[::1]:5673/a%20b", false, "::1", 5673, "a b"),
        ] {
            let path = path.to_owned();
            let expected = Endpoint { is_tls, host: host.to_owned(), port, path };
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_connected_to_is_refused() {
        for text in [
            "broker",
            "broker:5672",
            "http://broker",
            "amqp://",
            "amqp://:5672",
            "amqp://broker:",
            "amqp://broker:0",
            "amqp://broker:99999",
            "amqp://bro ker",
            "amqp://broker/%2",
            "amqp://broker/%zz",
            "amqp://broker/%00",
            "amqp://broker/%ff",
            "AMQP://broker",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_url_that_may_hold_a_secret_is_not_quoted() {
        for text in [
            "amqp://guest:canary@broker",
            "amqp:/guest:canary@broker",
            "amqp://guest:cana/canary@broker",
            "amqp://broker/?password=canary",
            "amqp://broker#canary",
        ] {
            let fault = read(text).unwrap_err();
            assert!(!format!("{fault:?}").contains("canary"), "{fault:?}");
        }
    }
}
