//! The http sink on real sockets: what a request is, and what follows from each answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use receiptd::callback::Fingerprint;
use receiptd::change::{Change, ChangeId, What};
use receiptd::client::Target;
use receiptd::clock::Clock;
use receiptd::config::settings::{ClientTls, HttpFormat, HttpSink, Secret};
use receiptd::forward::event::Event;
use receiptd::forward::fault::Fault;
use receiptd::forward::http::Http;
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::app::{App, Reply, nobody};

/// What the provider sent, with spaces that nobody may touch.
const BODY: &[u8] = b"{ \"id\":  \"n-1\", \"status\":\"delivered\" }";

/// A change of that notification.
pub fn event(subject: &str) -> Event {
    let data = format!(r#"{{"source":"passport","id":{subject:?},"status":"delivered"}}"#);
    let change = Change {
        key: 7,
        id: ChangeId::of(What::Status, "passport", subject, Fingerprint::of(BODY)),
        what: What::Status,
        source: "passport".into(),
        subject: 7,
        subject_id: Some(subject.to_owned()),
        status: Some("delivered".to_owned()),
        precedence: None,
        received_at: "2026-11-22T10:00:00Z".parse().unwrap(),
        data,
    };
    Event::of(change, Some(Bytes::from_static(BODY)), false)
}

/// A sink at that URL, in the usual form, unsigned.
pub fn sink(url: &str) -> HttpSink {
    HttpSink {
        url: Target::parse(url).unwrap(),
        format: HttpFormat::CloudEvents,
        secrets: Vec::new(),
        bearer: None,
        headers: Vec::new(),
        tls: ClientTls::default(),
    }
}

fn at(app: &App) -> HttpSink {
    sink(&format!("http://{}/receipts?of=all", app.address))
}

fn passing(sent: Result<(), Fault>) -> String {
    match sent {
        Err(Fault::Passing { why, retry_after: None }) => why,
        other => panic!("{other:?}"),
    }
}

mod requests {
    use super::*;

    #[tokio::test]
    async fn a_structured_event_is_the_whole_body() {
        let app = App::start(Reply::status(204));
        let event = event("n-1");
        Http::open(&at(&app)).unwrap().send(&event).await.unwrap();
        let request = app.only();
        assert_eq!(request.line, "POST /receipts?of=all HTTP/1.1");
        assert_eq!(request.header("host"), Some(&*app.address.to_string()));
        let media_type = "application/cloudevents+json; charset=utf-8";
        assert_eq!(request.header("content-type"), Some(media_type));
        assert_eq!(request.header("webhook-id"), Some(&*event.id()));
        assert_eq!(request.header("webhook-signature"), None, "there is no secret");
        assert_eq!(
            request.header("user-agent"),
            Some(concat!("receiptd/", env!("CARGO_PKG_VERSION")))
        );
        assert_eq!(request.body, event.structured());
    }

    #[tokio::test]
    async fn a_binary_event_is_the_data_with_its_attributes_as_headers() {
        let app = App::start(Reply::status(204));
        let to = HttpSink { format: HttpFormat::CloudEventsBinary, ..at(&app) };
        let event = event("50 % \"é\" ~");
        Http::open(&to).unwrap().send(&event).await.unwrap();
        let request = app.only();
        for (name, expected) in [
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", &*event.id()),
            ("ce-source", "/receiptd/passport"),
            ("ce-type", "receiptd.status"),
            ("ce-subject", "50%20%25%20%22%C3%A9%22%20~"),
            ("ce-time", "2026-11-22T10:00:00.000000Z"),
        ] {
            assert_eq!(request.header(name), Some(expected), "{name}");
        }
        assert_eq!(request.body, event.data().as_bytes());
    }

    #[tokio::test]
    async fn raw_is_what_the_provider_sent_or_nothing() {
        let app = App::start(Reply::status(204));
        let to = HttpSink { format: HttpFormat::Raw, ..at(&app) };
        let sink = Http::open(&to).unwrap();
        sink.send(&event("n-1")).await.unwrap();
        assert_eq!(app.only().body, BODY);
        assert_eq!(app.only().header("content-type"), Some("application/json"));
        let mut without = event("n-2");
        without.body = None;
        let refused = sink.send(&without).await;
        assert_eq!(refused, Err(Fault::refused("its callback is not kept here")));
        assert_eq!(app.received().len(), 1);
    }

    #[tokio::test]
    async fn bearer_and_headers_are_sent_and_never_printed() {
        let app = App::start(Reply::status(204));
        let to = HttpSink {
            bearer: Some(Secret(b"b-canary".to_vec())),
            headers: vec![("X-Api-Key".to_owned(), Secret(b"h-canary".to_vec()))],
            secrets: vec![Secret(b"s-canary".to_vec())],
            ..at(&app)
        };
        let sink = Http::open(&to).unwrap();
        sink.send(&event("n-1")).await.unwrap();
        assert_eq!(app.only().header("authorization"), Some("Bearer b-canary"));
        assert_eq!(app.only().header("x-api-key"), Some("h-canary"));
        let shown = format!("{sink:?} {to:?}");
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_refused_at_the_start() {
        let app = App::start(Reply::status(204));
        let with = |name: &str, value: &[u8]| HttpSink {
            headers: vec![(name.to_owned(), Secret(value.to_vec()))],
            ..at(&app)
        };
        for (to, expected) in [
            (with("Content-Length", b"7"), "is set by receiptd"),
            (with("webhook-id", b"7"), "is set by receiptd"),
            (with("ce-id", b"7"), "is set by receiptd"),
            (with("a b", b"7"), "is no header name"),
            (with("a", b"7\r\nb: 8"), "has a value that no header can hold"),
            (HttpSink { bearer: Some(Secret(b"\n".to_vec())), ..at(&app) }, "bearer"),
            (
                HttpSink { bearer: Some(Secret(b"a".to_vec())), ..with("authorization", b"b") },
                "a bearer and a header",
            ),
            (sink("http://169.254.169.254/latest"), "no sink may be at 169.254.169.254"),
            (sink("http://[fe80::1]/"), "no sink may be at fe80::1"),
        ] {
            let problem = Http::open(&to).unwrap_err();
            assert!(problem.contains(expected), "{expected}: {problem}");
        }
    }
}

mod answers {
    use super::*;

    /// All of them go over one connection: none costs more than itself.
    #[tokio::test]
    async fn each_status_means_what_the_table_says() {
        let app = App::start(Reply::status(204));
        let sink = Http::open(&at(&app)).unwrap();
        for status in 200..=599 {
            app.set(Reply::status(status));
            let why = format!("answered {status}");
            let expected = match status {
                200..=299 => Ok(()),
                408 | 425 | 429 | 500.. => Err(Fault::passing(why)),
                410 => Err(Fault::Gone { why }),
                300..=399 => Err(Fault::refused(format!("{why}: redirects are not followed"))),
                _ => Err(Fault::refused(why)),
            };
            assert_eq!(sink.send(&event("n-1")).await, expected, "{status}");
        }
        assert_eq!((app.received().len(), app.connections()), (400, 1));
    }

    #[tokio::test]
    async fn retry_after_is_honoured_in_seconds_and_as_a_date() {
        let clock = Clock::by_hand("2026-11-22T10:00:00Z".parse().unwrap());
        let app = App::start(Reply::status(204));
        let sink = Http::open_at(&at(&app), clock).unwrap();
        for (value, expected) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("Sun, 22 Nov 2026 10:02:00 GMT", Some(120)),
            ("Sun, 22 Nov 2026 09:00:00 GMT", Some(0)),
            ("90000", Some(86_400)),
            ("99999999999999999999999", Some(86_400)),
            ("Fri, 01 Jan 2100 00:00:00 GMT", Some(86_400)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            for status in [429, 503] {
                app.set(Reply::with(status, &format!("retry-after: {value}\r\n")));
                let expected = Fault::Passing {
                    why: format!("answered {status}"),
                    retry_after: expected.map(Duration::from_secs),
                };
                assert_eq!(sink.send(&event("n-1")).await, Err(expected), "{value}");
            }
        }
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let (app, elsewhere) = (App::start(Reply::status(204)), App::start(Reply::status(204)));
        let location = format!("location: http://{}/\r\n", elsewhere.address);
        let sink = Http::open(&at(&app)).unwrap();
        for status in [301, 302, 303, 307, 308] {
            app.set(Reply::with(status, &location));
            assert!(matches!(sink.send(&event("n-1")).await, Err(Fault::Refused { .. })));
        }
        assert_eq!((app.received().len(), elsewhere.connections()), (5, 0));
    }

    #[tokio::test]
    async fn a_short_body_is_read_and_an_endless_one_is_not() {
        let short = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_vec();
        let app = App::start(Reply::Bytes(short.clone()));
        let sink = Http::open(&at(&app)).unwrap();
        for _ in 0..3 {
            sink.send(&event("n-1")).await.unwrap();
        }
        assert_eq!(app.connections(), 1);
        let mut long = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n".to_vec();
        long.resize(1 << 20, b'x');
        app.set(Reply::Endless(long));
        let began = Instant::now();
        sink.send(&event("n-1")).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "it read on: {:?}", began.elapsed());
        app.set(Reply::Bytes(short));
        sink.send(&event("n-1")).await.unwrap();
        assert_eq!(app.connections(), 2, "the connection that went on is gone");
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_does_not_undo_the_answer() {
        let head = b"HTTP/1.1 503 No\r\nretry-after: 9\r\ncontent-length: 10\r\n\r\nhalf".to_vec();
        let app = App::start(Reply::Bytes(head));
        let sink = Http::open(&at(&app)).unwrap();
        let retry_after = Some(Duration::from_secs(9));
        let expected = Fault::Passing { why: "answered 503".to_owned(), retry_after };
        assert_eq!(sink.send(&event("n-1")).await, Err(expected));
    }

    #[tokio::test]
    async fn what_is_no_http_passes() {
        for (bytes, expected) in [
            (&b"hello\r\n\r\n"[..], "the answer is no HTTP"),
            (b"", "the connection ended before the answer"),
            (b"HTTP/1.1 200 OK\r\ncontent-le", "the connection ended before the answer"),
        ] {
            let app = App::start(Reply::Last(bytes.to_vec()));
            let sink = Http::open(&at(&app)).unwrap();
            assert_eq!(passing(sink.send(&event("n-1")).await), expected);
        }
    }
}

mod connections {
    use super::*;

    #[tokio::test]
    async fn an_attempt_that_is_given_up_leaves_the_sink_usable() {
        let app = App::start(Reply::Nothing);
        let sink = Http::open(&at(&app)).unwrap();
        let event = event("n-1");
        for _ in 0..5 {
            let limit = Duration::from_millis(50);
            assert!(tokio::time::timeout(limit, sink.send(&event)).await.is_err());
        }
        app.set(Reply::status(204));
        sink.send(&event).await.unwrap();
        assert_eq!(app.received().len(), 6);
    }

    /// A server may tire of a kept connection at the very moment it is used again.
    #[tokio::test]
    async fn a_connection_that_was_closed_meanwhile_costs_an_attempt_at_most() {
        let app = App::start(Reply::last(204));
        let sink = Http::open(&at(&app)).unwrap();
        let mut taken = 0;
        for _ in 0..200 {
            match sink.send(&event("n-1")).await {
                Ok(()) => taken += 1,
                other => {
                    let why = passing(other);
                    let is_known = ["the connection ended before the answer", "connection reset"];
                    assert!(is_known.contains(&&*why), "{why}");
                }
            }
        }
        assert!(taken > 0 && app.received().len() >= taken);
    }

    #[tokio::test]
    async fn many_at_once_each_have_a_connection_and_keep_it() {
        let app = App::start(Reply::status(204));
        let sink = Arc::new(Http::open(&at(&app)).unwrap());
        for _ in 0..3 {
            let tasks: Vec<_> = (0..20)
                .map(|n| {
                    let sink = Arc::clone(&sink);
                    tokio::spawn(async move { sink.send(&event(&format!("n-{n}"))).await })
                })
                .collect();
            for task in tasks {
                task.await.unwrap().unwrap();
            }
        }
        assert_eq!(app.received().len(), 60);
        assert!(app.connections() <= 20, "{}", app.connections());
    }

    #[tokio::test]
    async fn nobody_there_passes() {
        for (url, expected) in [
            (format!("http://{}/", nobody()), "failed to connect: connection refused"),
            ("http://nobody.invalid/".to_owned(), "failed to connect: its name has no address"),
            // The system's resolver takes that for 0.0.0.0, which would be this machine.
            (
                "http://0/".to_owned(),
                "failed to connect: its name leads to no address that is allowed",
            ),
        ] {
            let sink = Http::open(&sink(&url)).unwrap();
            assert_eq!(passing(sink.send(&event("n-1")).await), expected, "{url}");
        }
    }
}

mod tls {
    use super::*;

    struct Authority {
        cert: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let cert = params.self_signed(&key).unwrap().pem();
            Self { cert, issuer: Issuer::new(params, key) }
        }

        /// Certificate and key in PEM.
        fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
        }

        /// A server of that name; with `clients`, for those whom that authority vouches for.
        fn server(&self, name: &str, clients: Option<&Self>) -> ServerConfig {
            let (cert, key) = self.issue(name, ExtendedKeyUsagePurpose::ServerAuth);
            let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            let builder = ServerConfig::builder();
            let builder = match clients {
                None => builder.with_no_client_auth(),
                Some(clients) => {
                    let mut roots = RootCertStore::empty();
                    let root = CertificateDer::from_pem_slice(clients.cert.as_bytes()).unwrap();
                    roots.add(root).unwrap();
                    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
                    builder.with_client_cert_verifier(verifier.unwrap())
                }
            };
            builder.with_single_cert(vec![cert], key).unwrap()
        }
    }

    fn write(folder: &TempDir, name: &str, pem: &str) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    }

    fn https(app: &App, tls: ClientTls) -> HttpSink {
        let url = format!("https://localhost:{}/receipts", app.address.port());
        HttpSink { tls, ..sink(&url) }
    }

    #[tokio::test]
    async fn only_a_server_that_is_vouched_for_and_named_so_is_sent_anything() {
        let (ours, other) = (Authority::new(), Authority::new());
        let folder = tempfile::tempdir().unwrap();
        let tls = ClientTls { ca_file: Some(write(&folder, "ca", &ours.cert)), identity: None };
        for (server, expected) in [
            (ours.server("localhost", None), None),
            (other.server("localhost", None), Some("the certificate is of an unknown issuer")),
            (ours.server("elsewhere", None), Some("the certificate is for another name")),
        ] {
            let app = App::start_tls(Reply::status(204), server);
            let sent = Http::open(&https(&app, tls.clone())).unwrap().send(&event("n-1")).await;
            match expected {
                None => assert_eq!(sent, Ok(())),
                Some(why) => assert_eq!(passing(sent), format!("failed to connect: {why}")),
            }
            assert_eq!(app.received().len(), usize::from(expected.is_none()));
        }
    }

    #[tokio::test]
    async fn a_server_that_asks_for_a_certificate_is_shown_ours() {
        let (ours, clients) = (Authority::new(), Authority::new());
        let app = App::start_tls(Reply::status(204), ours.server("localhost", Some(&clients)));
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = clients.issue("receiptd", ExtendedKeyUsagePurpose::ClientAuth);
        let identity = (write(&folder, "crt", &cert), write(&folder, "key", &key));
        let nobody = ClientTls { ca_file: Some(write(&folder, "ca", &ours.cert)), identity: None };
        let somebody = ClientTls { identity: Some(identity), ..nobody.clone() };
        let why = passing(Http::open(&https(&app, nobody)).unwrap().send(&event("n-1")).await);
        assert!(why.contains("CertificateRequired") || why.contains("connection"), "{why}");
        assert_eq!(app.received().len(), 0);
        let sink = Http::open(&https(&app, somebody)).unwrap();
        for _ in 0..3 {
            sink.send(&event("n-1")).await.unwrap();
        }
        assert_eq!((app.received().len(), app.connections()), (3, 2));
    }
}
