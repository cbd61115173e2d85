//! The HTTP client of the commands, and `healthcheck` on top of it.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use receiptd::cli::{Failure, healthcheck};
use receiptd::client::{ANSWER_BYTES_MAX, Client, ClientError, Options, Target};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

type Answer = Response<Full<Bytes>>;

/// A server whose answer depends on the path, and how many connections it was asked for.
struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let tls = tls.clone();
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    let service = service_fn(|request| async move { answer(&request).await });
                    match tls {
                        None => http.serve_connection(TokioIo::new(socket), service).await.ok(),
                        Some(tls) => match tls.accept(socket).await {
                            Ok(socket) => {
                                http.serve_connection(TokioIo::new(socket), service).await.ok()
                            }
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { port, connections }
    }

    fn client(&self, path: &str, options: Options) -> Client {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        Client::new(Target::parse(&url).unwrap(), options).unwrap()
    }
}

async fn answer(request: &Request<Incoming>) -> Result<Answer, std::convert::Infallible> {
    let answer = Response::builder();
    let body = |text: &'static str| Full::new(Bytes::from_static(text.as_bytes()));
    Ok(match request.uri().path() {
        "/readyz" => answer.body(body("")),
        "/elsewhere" => answer.status(302).header("location", "/readyz").body(body("go there")),
        "/large" => answer.body(Full::new(vec![b'x'; ANSWER_BYTES_MAX + 1].into())),
        "/draining" => answer.status(503).body(body("dra\x1bining\nand more")),
        "/silent" => std::future::pending().await,
        _ => answer.status(404).body(body("")),
    }
    .unwrap())
}

#[tokio::test]
async fn one_connection_serves_several_requests_unless_told_otherwise() {
    for (keep_alive, expected) in [(true, 1), (false, 3)] {
        let server = Server::start(None).await;
        let mut client = server.client("/readyz", Options { keep_alive, ..Options::default() });
        for _ in 0..3 {
            assert_eq!(client.get().await.unwrap().code, 200);
        }
        let connections = server.connections.load(Ordering::SeqCst);
        assert_eq!(connections, expected, "keep_alive {keep_alive}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let server = Server::start(None).await;
    let mut client = server.client("/elsewhere", Options::default());
    let answer = client.post(HeaderMap::new(), Bytes::from_static(b"{}")).await.unwrap();
    assert_eq!((answer.code, &*answer.body), (302, &b"go there"[..]));
}

#[tokio::test]
async fn a_long_body_is_cut_and_costs_the_connection() {
    let server = Server::start(None).await;
    let mut client = server.client("/large", Options::default());
    for connections in 1..=2 {
        assert_eq!(client.get().await.unwrap().body.len(), ANSWER_BYTES_MAX);
        assert_eq!(server.connections.load(Ordering::SeqCst), connections);
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let server = Server::start(None).await;
    let answer_ms_max = Duration::from_millis(50);
    let mut client = server.client("/silent", Options { answer_ms_max, ..Options::default() });
    let error = client.get().await.unwrap_err();
    assert!(matches!(error, ClientError::Answer { .. }), "{error}");
}

#[tokio::test]
async fn a_certificate_is_trusted_by_its_authority_only() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let server = Server::start(Some(TlsAcceptor::from(Arc::new(config)))).await;
    let folder = tempfile::tempdir().unwrap();
    let (ca, other_ca) = (folder.path().join("ca.pem"), folder.path().join("other.pem"));
    std::fs::write(&ca, made.cert.pem()).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&other_ca, other.cert.pem()).unwrap();
    let client = |host: &str, ca_file| {
        let url = format!("https://{host}:{}/readyz", server.port);
        let options = Options { ca_file: Some(ca_file), ..Options::default() };
        Client::new(Target::parse(&url).unwrap(), options).unwrap()
    };
    assert_eq!(client("localhost", ca.clone()).get().await.unwrap().code, 200);
    for (host, ca_file) in [("localhost", other_ca), ("127.0.0.1", ca)] {
        let error = client(host, ca_file).get().await.unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }), "{host}: {error}");
    }
}

#[test]
fn a_file_without_certificates_is_no_authority() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, "nothing").unwrap();
    let target = Target::parse("https://localhost/").unwrap();
    let options = Options { ca_file: Some(ca_file), ..Options::default() };
    assert!(matches!(Client::new(target, options), Err(ClientError::Trust(_))));
}

#[test]
fn a_url_says_where_to_connect_and_what_to_ask_for() {
    for (url, expected) in [
        ("http://localhost", (false, "localhost", 80, "/")),
        ("https://example.gc.ca/a/b?c=d", (true, "example.gc.ca", 443, "/a/b?c=d")),
        ("http://[::1]:9090/readyz", (false, "::1", 9090, "/readyz")),
    ] {
        let target = Target::parse(url).unwrap();
        let got = (target.is_https, &*target.host, target.port, &*target.path);
        assert_eq!(got, expected, "{url}");
    }
    for url in ["", "localhost", "/readyz", "ftp://localhost/", "http://a:b@localhost/", "http://"]
    {
        assert!(matches!(Target::parse(url), Err(ClientError::Url(_))), "{url}");
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: healthcheck::Args,
}

/// On a thread of its own, as a command is: it makes its own runtime.
async fn check(env: Vec<(String, String)>, arguments: Vec<String>) -> (ExitCode, String) {
    tokio::task::spawn_blocking(move || {
        let arguments = std::iter::once("healthcheck".to_owned()).chain(arguments);
        let line = Line::try_parse_from(arguments).unwrap();
        let mut out = Vec::new();
        let code = healthcheck::run(&line.args, &env, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    })
    .await
    .unwrap()
}

fn no() -> ExitCode {
    ExitCode::from(Failure::NO)
}

#[tokio::test]
async fn a_receiver_is_asked_at_its_configured_address() {
    let server = Server::start(None).await;
    let admin = ("RECEIPTD_ADMIN_LISTEN".to_owned(), format!("0.0.0.0:{}", server.port));
    assert_eq!(check(vec![admin], vec![]).await, (ExitCode::SUCCESS, "ready\n".to_owned()));
}

#[tokio::test]
async fn whatever_is_not_ready_is_one_line_and_a_1() {
    let server = Server::start(None).await;
    let url =
        |path: &str| vec!["--url".to_owned(), format!("http://127.0.0.1:{}{path}", server.port)];
    let said = |text: &str| (no(), format!("not ready: {text}\n"));
    assert_eq!(check(vec![], url("/draining")).await, said("draining"));
    assert_eq!(check(vec![], url("/nowhere")).await, said("it answers 404"));
    assert_eq!(check(vec![], url("/elsewhere")).await.0, no());
    let (code, line) = check(vec![], vec!["--url".to_owned(), "nonsense".to_owned()]).await;
    assert!(code == no() && line.lines().count() == 1, "{line}");
    let wrong = ("RECEIPTD_ADMIN_LISTEN".to_owned(), "nonsense".to_owned());
    let (code, line) = check(vec![wrong], vec![]).await;
    assert!(code == no() && line.lines().count() == 1, "{line}");
}

#[tokio::test]
async fn a_receiver_that_hangs_is_not_ready_within_two_seconds() {
    let server = Server::start(None).await;
    let url = format!("http://127.0.0.1:{}/silent", server.port);
    let started = Instant::now();
    let (code, line) = check(vec![], vec!["--url".to_owned(), url]).await;
    assert_eq!(code, no(), "{line}");
    assert!(started.elapsed() < Duration::from_secs(2));
}
