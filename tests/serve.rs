//! `receiptd serve` from its first start to its last: tokens, reload, signals, kill -9, TLS, and
//! files that are missing, damaged, older or newer than they should be.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rusqlite::Connection;
use rustix::process::Signal;
use support::{
    Chance, Client, PATH, Receiptd, SOURCE, Setup, TOKEN, count, dump, eventually, open, post,
    receipt, receiptd, rows, run, source,
};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

mod start {
    use super::*;

    const ANY_PORTS: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

    fn start_unconfigured(folder: &Path, more: &[&str]) -> Receiptd {
        Receiptd::start(folder, |command| {
            command.args(ANY_PORTS).args(more);
        })
    }

    /// The token in what was printed: a line of its own, set in by four.
    fn token(printed: &str) -> Option<&str> {
        printed.lines().find_map(|line| line.strip_prefix("    "))
    }

    #[test]
    fn without_any_configuration_a_token_is_shown_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let first = start_unconfigured(folder.path(), &["--print-token"]);
        let bearer = token(&first.printed).expect("a token is shown").to_owned();
        let ask = |server: &Receiptd, bearer: &str, id: &str| {
            server.ask(post("/callbacks/default", bearer, receipt(id))).status
        };
        assert_eq!(ask(&first, &bearer, "a"), 204);
        assert_eq!(ask(&first, "another-token", "b"), 401);
        assert!(!first.stderr().contains(&bearer), "the token was logged");
        first.stop();
        let second = start_unconfigured(folder.path(), &[]);
        assert_eq!(token(&second.printed), None, "{}", second.printed);
        assert_eq!(ask(&second, &bearer, "c"), 204);
        second.stop();
        for file in fs::read_dir(folder.path()).unwrap() {
            let bytes = fs::read(file.unwrap().path()).unwrap();
            let found = bytes.windows(bearer.len()).any(|window| window == bearer.as_bytes());
            assert!(!found, "only the hash is kept");
        }
    }

    #[test]
    fn a_token_is_not_made_where_only_a_log_would_see_it() {
        let folder = tempfile::tempdir().unwrap();
        let ended = run(receiptd(folder.path(), &["serve"]).args(ANY_PORTS));
        assert_eq!((ended.code, &*ended.stdout), (Some(78), ""), "{ended:?}");
        for expected in ["no terminal", "receiptd token new", "--token-sha256", "--print-token"] {
            assert!(ended.stderr.contains(expected), "{expected}:\n{}", ended.stderr);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no file is made");
    }

    #[test]
    fn flags_and_environment_are_enough_for_a_container_with_one_source() {
        let folder = tempfile::tempdir().unwrap();
        let server = Receiptd::start(folder.path(), |command| {
            let hash = support::sha256_hex(TOKEN.as_bytes());
            command.args(["--source", "passport=gc-notify", "--db", "state.db"]);
            command.args(["--token-sha256", &format!("2026-11={hash}")]);
            command.env("RECEIPTD_LISTEN", "127.0.0.1:0");
            command.env("RECEIPTD_ADMIN_LISTEN", "127.0.0.1:0");
        });
        assert_eq!(server.post(receipt("a")), 204);
        server.settled();
        assert_eq!(count(&folder.path().join("state.db"), "notification"), 1);
        assert_eq!(count(&folder.path().join("state.callbacks.db"), "callback"), 1);
    }

    #[test]
    fn a_wrong_configuration_is_exit_78_with_every_problem_and_no_file() {
        let setup = Setup::with_sources(
            "[[source]]\nname = \"Pass Port\"\nprovider = \"gc-notfy\"\n\
             [[source.token]]\nlabel = \"a\"\nsha256 = \"abc\"\n\
             [[source]]\nname = \"b\"\nprovider = \"ajo\"\n",
        )
        .limits("body_bytes_mx = 7\nconnections_max = 0");
        let config = setup.write();
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        let ended = run(&mut receiptd(setup.folder.path(), &arguments));
        assert_eq!(ended.code, Some(78));
        for expected in
            ["Pass Port", "gc-notify", "sha256", "body_bytes_max", "connections_max", "source.b"]
        {
            assert!(ended.stderr.contains(expected), "{expected}:\n{}", ended.stderr);
        }
        assert!(!setup.journal().exists() && !setup.state().exists());
    }

    #[test]
    fn a_second_process_on_the_database_is_refused_and_the_first_goes_on() {
        let setup = Setup::new();
        let server = setup.start();
        let config = setup.path("receiptd.toml");
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        let ended = run(&mut receiptd(setup.folder.path(), &arguments));
        assert_eq!(ended.code, Some(69), "{ended:?}");
        for expected in ["pid ", "only one process may write a database"] {
            assert!(ended.stderr.contains(expected), "{}", ended.stderr);
        }
        assert_eq!(server.post(receipt("a")), 204);
        server.stop();
        // A lock left behind is none.
        assert_eq!(setup.start().post(receipt("b")), 204);
    }

    #[test]
    fn a_folder_that_is_not_there_is_exit_74_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let hash = support::sha256_hex(TOKEN.as_bytes());
        let arguments =
            ["serve", "--db", "missing/x.db", "--source", "a=notify", "--token-sha256", &hash];
        let ended = run(&mut receiptd(folder.path(), &arguments));
        assert_eq!(ended.code, Some(74), "{ended:?}");
        assert!(ended.stderr.contains("does the folder exist"), "{}", ended.stderr);
    }

    #[test]
    fn a_taken_address_is_exit_69_with_what_to_do() {
        let setup = Setup::new();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let config = setup.write();
        let arguments = ["serve", "--config", config.to_str().unwrap(), "--listen", &address];
        let ended = run(&mut receiptd(setup.folder.path(), &arguments));
        assert_eq!(ended.code, Some(69));
        assert!(ended.stderr.contains(&address) && ended.stderr.contains("--listen"), "{ended:?}");
    }
}

mod reload {
    use super::*;

    fn status(server: &Receiptd, bearer: &str) -> u16 {
        server.ask(post(PATH, bearer, receipt("a"))).status
    }

    #[test]
    fn a_token_is_rotated_without_refusing_anyone_or_dropping_a_connection() {
        let tokens = |tokens: &[(&str, &str)]| source(SOURCE, "gc-notify", tokens);
        let (old, new) = (("old", "the-old-token"), ("new", "the-new-token"));
        let mut setup = Setup::with_sources(&tokens(&[old]));
        let server = setup.start();
        let mut open = server.connect();
        assert_eq!(open.ask(post(PATH, old.1, receipt("a"))).status, 204);
        setup.sources = tokens(&[old, new]);
        setup.write();
        server.signal(Signal::HUP);
        eventually("the new token is live", || status(&server, new.1) == 204);
        assert_eq!(status(&server, old.1), 204, "callbacks of before the rotation still come");
        setup.sources = tokens(&[new]);
        setup.write();
        server.signal(Signal::HUP);
        eventually("the old token is gone", || status(&server, old.1) == 401);
        assert_eq!(status(&server, new.1), 204);
        // One connection saw it all.
        assert_eq!(open.ask(post(PATH, new.1, receipt("b"))).status, 204);
        assert_eq!(open.ask(post(PATH, old.1, receipt("b"))).status, 401);
    }

    #[test]
    fn a_new_source_is_served_and_its_callbacks_are_understood() {
        let mut setup = Setup::new();
        let server = setup.start();
        setup.sources.push_str(&source("permits", "govuk-notify", &[("a", "the-second-token")]));
        setup.write();
        server.signal(Signal::HUP);
        let ask = || server.ask(post("/callbacks/permits", "the-second-token", receipt("p")));
        eventually("the new source is there", || ask().status == 204);
        server.settled();
        let settled = rows(&open(&setup.state()), "SELECT source, id, status FROM notification");
        assert_eq!(settled, ["permits|p|delivered"]);
    }

    #[test]
    fn a_bad_file_keeps_the_old_settings_and_says_so() {
        let setup = Setup::new();
        let server = setup.start();
        let good = fs::read_to_string(setup.path("receiptd.toml")).unwrap();
        let bad_hash = good.replace("sha256 = \"", "sha256 = \"zz");
        let unknown = format!("{good}not_a_setting = 1\n");
        for (number, bad) in ["not toml at all [", &bad_hash, &unknown, ""].iter().enumerate() {
            fs::write(setup.path("receiptd.toml"), bad).unwrap();
            server.signal(Signal::HUP);
            let told = || server.stderr().matches("the old").count();
            eventually("it says so", || told() > number);
            assert_eq!(server.post(receipt("a")), 204, "{bad}");
        }
        fs::remove_file(setup.path("receiptd.toml")).unwrap();
        server.signal(Signal::HUP);
        eventually("it says so", || server.stderr().matches("the old").count() > 4);
        assert_eq!(server.post(receipt("a")), 204);
        assert!(!server.stderr().contains(TOKEN));
    }
}

mod stop {
    use super::*;

    /// Posts, one after the other, until an answer says that the connection ends; what was
    /// acknowledged.
    fn send_until_told(server: &Receiptd, sender: usize, answered: &AtomicUsize) -> Vec<String> {
        let keeps_open = sender.is_multiple_of(2);
        let mut client = server.connect();
        let mut acknowledged = Vec::new();
        for index in 0.. {
            if !keeps_open && index > 0 {
                let Ok(_) = TcpStream::connect(server.callbacks) else { break };
                client = server.connect();
            }
            let id = format!("{sender}-{index}");
            let since = Instant::now();
            let answer = client.ask(post(PATH, TOKEN, receipt(&id)));
            assert_eq!(answer.status, 204, "{id} after {:?}", since.elapsed());
            acknowledged.push(id);
            answered.fetch_add(1, Ordering::Relaxed);
            if answer.header("connection") == Some("close") {
                break;
            }
        }
        acknowledged
    }

    #[test]
    fn sigterm_under_load_refuses_and_loses_nothing() {
        let setup = Setup::new();
        let mut server = setup.start();
        let answered = AtomicUsize::new(0);
        let acknowledged: Vec<String> = std::thread::scope(|scope| {
            let senders: Vec<_> = (0..8)
                .map(|sender| {
                    scope.spawn({
                        let (server, answered) = (&server, &answered);
                        move || send_until_told(server, sender, answered)
                    })
                })
                .collect();
            eventually("there is load", || answered.load(Ordering::Relaxed) > 300);
            server.signal(Signal::TERM);
            senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
        });
        let since = Instant::now();
        assert_eq!(server.wait(Duration::from_secs(10)), Some(0), "{}", server.stderr());
        assert!(since.elapsed() < Duration::from_secs(10));
        let settled: BTreeSet<_> =
            rows(&open(&setup.state()), "SELECT id FROM notification").into_iter().collect();
        assert_eq!(settled, acknowledged.into_iter().collect());
        assert_eq!(count(&setup.journal(), "callback"), i64::try_from(settled.len()).unwrap());
    }

    #[test]
    fn a_body_that_is_still_on_its_way_is_waited_for() {
        let setup = Setup::new();
        let mut server = setup.start();
        let whole = post(PATH, TOKEN, receipt("a"));
        let mut slow = server.connect();
        slow.send(&whole[..whole.len() - 10]);
        let mut idle = server.connect();
        assert_eq!(idle.ask(post(PATH, TOKEN, receipt("b"))).status, 204);
        server.signal(Signal::TERM);
        eventually("it is not ready any more", || {
            let ready = server.admin("/readyz");
            (ready.status, ready.text().as_str()) == (503, "stopping\n")
        });
        assert!(idle.ends_within(Duration::from_secs(5)), "an idle connection is closed");
        slow.send(&whole[whole.len() - 10..]);
        let answer = slow.answer();
        assert_eq!((answer.status, answer.header("connection")), (204, Some("close")));
        assert_eq!(server.wait(Duration::from_secs(10)), Some(0));
        assert_eq!(count(&setup.state(), "notification"), 2);
    }

    #[test]
    fn a_caller_that_never_finishes_cannot_hold_up_the_end() {
        let setup = Setup::new().limits("drain_ms_max = 1000\nack_wait_ms_max = 500");
        let mut server = setup.start();
        let whole = post(PATH, TOKEN, receipt("a"));
        let mut slow = server.connect();
        slow.send(&whole[..whole.len() - 10]);
        let _silent = server.connect();
        server.signal(Signal::INT);
        assert_eq!(server.wait(Duration::from_secs(5)), Some(0));
        assert_eq!(setup.callbacks(), 0);
    }

    #[test]
    fn a_stopped_receiver_leaves_two_whole_files_and_no_logs_beside_them() {
        let setup = Setup::new();
        let server = setup.start();
        assert_eq!(server.post(receipt("a")), 204);
        server.stop();
        let names: BTreeSet<_> = fs::read_dir(setup.folder.path())
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with("-wal") || name.ends_with(".control"))
            .collect();
        assert_eq!(names, BTreeSet::new());
        for path in [setup.journal(), setup.state()] {
            let verdict = rows(&open(&path), "PRAGMA integrity_check");
            assert_eq!(verdict, ["ok"]);
        }
    }
}

mod crash {
    use super::*;

    const ROUNDS: usize = 20;

    /// What the rounds have acknowledged so far.
    type Acknowledged = Arc<Mutex<Vec<String>>>;

    /// Posts until the connection breaks.
    fn send_until_broken(address: std::net::SocketAddr, name: &str, acknowledged: &Acknowledged) {
        let Ok(_) = TcpStream::connect(address) else { return };
        let Ok(mut client) = std::panic::catch_unwind(|| Client::connect(address)) else { return };
        for index in 0.. {
            let id = format!("{name}-{index}");
            if client.try_send(post(PATH, TOKEN, receipt(&id))).is_err() {
                return;
            }
            let Ok(Some(answer)) = client.try_answer() else { return };
            assert_eq!(answer.status, 204);
            acknowledged.lock().unwrap().push(id);
        }
    }

    #[test]
    fn kill_9_at_any_moment_loses_nothing_acknowledged() {
        let mut chance = Chance::new();
        let setup = Setup::new();
        let acknowledged = Acknowledged::default();
        for round in 0..ROUNDS {
            if round % 4 == 3 {
                kill_while_starting(&setup, Duration::from_micros(chance.next() % 60_000));
            }
            let mut server = setup.start();
            let address = server.callbacks;
            let senders: Vec<_> = (0..3)
                .map(|sender| {
                    let acknowledged = Arc::clone(&acknowledged);
                    let name = format!("{round}-{sender}");
                    std::thread::spawn(move || send_until_broken(address, &name, &acknowledged))
                })
                .collect();
            // The moment is what is tested: chance, not a wait for something.
            std::thread::sleep(Duration::from_micros(chance.next() % 150_000));
            server.kill();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        }
        let server = setup.start();
        server.settled();
        let settled: BTreeSet<_> =
            rows(&open(&setup.state()), "SELECT id FROM notification").into_iter().collect();
        let acknowledged = acknowledged.lock().unwrap();
        let lost: Vec<_> = acknowledged.iter().filter(|id| !settled.contains(*id)).collect();
        assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());
        assert!(acknowledged.len() > ROUNDS, "hardly anything was tested");
        server.stop();
        assert_state_is_what_the_journal_says(&setup);
    }

    fn kill_while_starting(setup: &Setup, after: Duration) {
        let config = setup.write();
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        let mut command = receiptd(setup.folder.path(), &arguments);
        let (stdout, stderr) = (Stdio::null(), Stdio::null());
        let mut child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Both files are whole, and settling the journal from its start gives the same state.
fn assert_state_is_what_the_journal_says(setup: &Setup) {
    for path in [setup.journal(), setup.state()] {
        assert_eq!(rows(&open(&path), "PRAGMA integrity_check"), ["ok"]);
    }
    let before = dump(&open(&setup.state()));
    receiptd::settle::rebuild(&setup.state(), &setup.journal(), 100, &[], |_, _| {}).unwrap();
    assert_eq!(dump(&open(&setup.state())), before);
}

#[test]
fn however_many_wait_until_everything_is_settled_probes_are_answered() {
    let setup = Setup::new();
    let server = setup.start();
    // Nothing is settled while somebody else writes into the state.
    let state = Connection::open(setup.state()).unwrap();
    state.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(server.post(receipt("a")), 204);
    // As many as there are connections.
    let wait = || {
        let mut client = Client::connect(server.admin);
        client.send("GET /settled?wait=60s HTTP/1.1\r\nhost: admin\r\n\r\n");
        client
    };
    let mut waiting: Vec<Client> = (0..256).map(|_| wait()).collect();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(server.admin(path).status, 200, "{path}");
    }
    // Who finds no place is told how it is; who has one waits.
    assert_eq!(waiting.pop().unwrap().answer().status, 503);
    state.execute_batch("ROLLBACK").unwrap();
    assert_eq!(waiting[0].answer().status, 204);
    server.stop();
}

mod tls {
    use super::*;

    /// A certificate and its key, in PEM.
    struct Identity {
        cert: String,
        key: String,
    }

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

        fn issue(&self, usage: ExtendedKeyUsagePurpose) -> Identity {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
            Identity { cert, key: key.serialize_pem() }
        }
    }

    fn install(setup: &Setup, identity: &Identity) {
        fs::write(setup.path("tls.crt"), &identity.cert).unwrap();
        fs::write(setup.path("tls.key"), &identity.key).unwrap();
    }

    fn with_tls(identity: &Identity) -> Setup {
        let setup = Setup::new().with("tls", "cert_file = \"tls.crt\"\nkey_file = \"tls.key\"");
        install(&setup, identity);
        setup
    }

    /// A client that trusts this authority, and shows a certificate if it has one.
    fn connect(server: &Receiptd, trusts: &Authority, shows: Option<&Identity>) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusts.cert.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shows {
            None => builder.with_no_client_auth(),
            Some(Identity { cert, key }) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        server.connect().through(|socket| StreamOwned::new(connection, socket))
    }

    /// Whether a callback gets through to this server for a client that trusts `authority`.
    fn is_served(server: &Receiptd, authority: &Authority, shows: Option<&Identity>) -> bool {
        let mut client = connect(server, authority, shows);
        client.try_send(post(PATH, TOKEN, receipt("a"))).is_ok()
            && client.try_answer().ok().flatten().is_some_and(|answer| answer.status == 204)
    }

    #[test]
    fn callbacks_are_received_over_tls_and_over_nothing_else() {
        let authority = Authority::new();
        let setup = with_tls(&authority.issue(ExtendedKeyUsagePurpose::ServerAuth));
        let server = setup.start();
        assert!(server.printed.contains("callbacks=https://"), "{}", server.printed);
        let mut client = connect(&server, &authority, None);
        for id in ["a", "b"] {
            assert_eq!(client.ask(post(PATH, TOKEN, receipt(id))).status, 204);
        }
        assert_eq!(client.ask(post(PATH, "wrong-token", receipt("c"))).status, 401);
        let mut plain = server.connect();
        plain.send(post(PATH, TOKEN, receipt("d")));
        assert!(!matches!(plain.try_answer(), Ok(Some(_))), "no answer without TLS");
        assert_eq!(setup.callbacks(), 2);
    }

    #[test]
    fn new_files_are_in_force_without_dropping_a_connection() {
        let (old, new) = (Authority::new(), Authority::new());
        let setup = with_tls(&old.issue(ExtendedKeyUsagePurpose::ServerAuth));
        let server = setup.start();
        let mut open = connect(&server, &old, None);
        assert_eq!(open.ask(post(PATH, TOKEN, receipt("a"))).status, 204);
        install(&setup, &new.issue(ExtendedKeyUsagePurpose::ServerAuth));
        server.signal(Signal::HUP);
        // At once, and not when the files are looked at anyway.
        let is_shown = || is_served(&server, &new, None);
        assert!(support::holds_within(Duration::from_secs(3), is_shown));
        assert!(!is_served(&server, &old, None));
        assert_eq!(open.ask(post(PATH, TOKEN, receipt("b"))).status, 204);
    }

    #[test]
    fn a_bad_certificate_keeps_the_old_one_and_says_so() {
        let authority = Authority::new();
        let setup = with_tls(&authority.issue(ExtendedKeyUsagePurpose::ServerAuth));
        let server = setup.start();
        fs::write(setup.path("tls.crt"), "nothing of the kind").unwrap();
        server.signal(Signal::HUP);
        eventually("it says so", || server.stderr().contains("tls.cert_file"));
        assert!(is_served(&server, &authority, None));
    }

    #[test]
    fn with_a_client_authority_only_its_clients_get_in() {
        let (authority, other) = (Authority::new(), Authority::new());
        let setup = with_tls(&authority.issue(ExtendedKeyUsagePurpose::ServerAuth))
            .with("tls", "client_ca_file = \"ca.crt\"");
        fs::write(setup.path("ca.crt"), &authority.cert).unwrap();
        let server = setup.start();
        let ours = authority.issue(ExtendedKeyUsagePurpose::ClientAuth);
        let theirs = other.issue(ExtendedKeyUsagePurpose::ClientAuth);
        assert!(is_served(&server, &authority, Some(&ours)));
        assert!(!is_served(&server, &authority, Some(&theirs)));
        assert!(!is_served(&server, &authority, None));
        // A certificate does not stand in for the token.
        let mut client = connect(&server, &authority, Some(&ours));
        assert_eq!(client.ask(post(PATH, "wrong-token", receipt("a"))).status, 401);
        assert_eq!(setup.callbacks(), 1);
    }

    #[test]
    fn a_handshake_that_never_ends_is_ended() {
        let authority = Authority::new();
        let setup = with_tls(&authority.issue(ExtendedKeyUsagePurpose::ServerAuth))
            .limits("handshake_ms_max = 300");
        let server = setup.start();
        let mut silent = server.connect();
        assert!(silent.ends_within(Duration::from_secs(5)));
        let mut strange = server.connect();
        strange.send(b"\x16\x03\x01\x02\x00\x01");
        assert!(strange.ends_within(Duration::from_secs(5)));
        assert!(is_served(&server, &authority, None));
    }
}

mod files {
    use super::*;

    /// Several lives of notifications, so that every table has rows.
    fn fill(server: &Receiptd, from: usize, through: usize) {
        for index in from..=through {
            let id = format!("n{index}");
            assert_eq!(server.post(receipt(&id)), 204);
            assert_eq!(server.post(receipt(&id)), 204);
            let text = format!(r#"{{"id": "m{index}", "source_number": "1", "message": "hi"}}"#);
            assert_eq!(server.post(text), 204);
            assert_eq!(server.post("not understood"), 204);
        }
        server.settled();
    }

    /// A receiver that was filled and stopped, and its state.
    fn filled() -> (Setup, Vec<String>) {
        let setup = Setup::new();
        let server = setup.start();
        fill(&server, 1, 5);
        server.stop();
        let state = dump(&open(&setup.state()));
        assert_eq!(state.len(), 5 + 5 + 15 + 5);
        (setup, state)
    }

    fn names_beside(setup: &Setup, part: &str) -> usize {
        let files = fs::read_dir(setup.folder.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let is_log = |name: &str| name.ends_with("-wal") || name.ends_with("-shm");
        names.filter(|name| name.contains(part) && !is_log(name)).count()
    }

    #[test]
    fn a_missing_state_is_settled_again_with_a_warning() {
        let (setup, state) = filled();
        fs::remove_file(setup.state()).unwrap();
        let server = setup.start();
        // The barrier holds for what was acknowledged before this start, too.
        server.settled();
        assert_eq!(dump(&open(&setup.state())), state);
        let said = server.stderr();
        assert!(said.contains("WARN") && said.contains("settled from the journal"), "{said}");
    }

    #[test]
    fn a_state_that_is_no_database_is_set_aside_and_settled_again() {
        let (setup, state) = filled();
        fs::write(setup.state(), "this is not a database, and was never one".repeat(500)).unwrap();
        let server = setup.start();
        server.settled();
        assert_eq!(dump(&open(&setup.state())), state);
        assert!(server.stderr().contains("the state file is damaged"), "{}", server.stderr());
        assert_eq!(names_beside(&setup, "damaged"), 1, "it is kept for whoever wants to look");
    }

    #[test]
    fn a_state_damaged_in_its_middle_is_found_out_and_settled_again() {
        let (setup, state) = filled();
        let mut bytes = fs::read(setup.state()).unwrap();
        bytes[4096..].fill(0xff);
        fs::write(setup.state(), bytes).unwrap();
        let server = setup.start();
        // Receiving is not held up by it.
        assert_eq!(server.post(receipt("n1")), 204);
        server.settled();
        let now = dump(&open(&setup.state()));
        assert_eq!(now.len(), state.len() + 1);
        assert_eq!(names_beside(&setup, "damaged"), 1);
        assert!(server.stderr().contains("the state file is damaged"), "{}", server.stderr());
    }

    #[test]
    fn the_state_of_another_journal_is_set_aside() {
        let ((setup, state), (other, _)) = (filled(), filled());
        fs::copy(other.state(), setup.state()).unwrap();
        let server = setup.start();
        server.settled();
        assert_eq!(dump(&open(&setup.state())), state);
        assert_eq!(names_beside(&setup, "of-another-journal"), 1);
    }

    /// What holds whenever the journal has lost what the state knows.
    fn assert_nothing_known_is_lost(setup: &Setup, state: &[String]) {
        let server = setup.start();
        assert!(server.stderr().contains("what the state knows is kept"), "{}", server.stderr());
        assert_eq!(dump(&open(&setup.state())), state);
        // A repeat is still known to be one, and what is new settles.
        assert_eq!(server.post(receipt("n1")), 204);
        assert_eq!(server.post(receipt("new")), 204);
        server.settled();
        let known = "SELECT id, receipts, duplicates FROM notification
                     WHERE id IN ('n1', 'new') ORDER BY id";
        assert_eq!(rows(&open(&setup.state()), known), ["n1|1|2", "new|1|0"]);
        let state = dump(&open(&setup.state()));
        server.stop();
        // From now on the journal alone gives the state back.
        fs::remove_file(setup.state()).unwrap();
        let server = setup.start();
        server.settled();
        assert_eq!(dump(&open(&setup.state())), state);
        server.stop();
        assert_state_is_what_the_journal_says(setup);
    }

    #[test]
    fn a_missing_journal_beside_a_state_costs_no_state() {
        let (setup, state) = filled();
        fs::remove_file(setup.journal()).unwrap();
        assert_nothing_known_is_lost(&setup, &state);
    }

    #[test]
    fn a_journal_restored_from_an_older_copy_costs_no_state() {
        let (setup, _) = filled();
        let copy = setup.path("older-copy");
        fs::copy(setup.journal(), &copy).unwrap();
        let server = setup.start();
        fill(&server, 6, 8);
        server.stop();
        let state = dump(&open(&setup.state()));
        fs::copy(&copy, setup.journal()).unwrap();
        assert_nothing_known_is_lost(&setup, &state);
    }

    #[test]
    fn a_damaged_journal_is_copied_with_its_wal_before_anything_is_moved() {
        let (setup, _) = filled();
        fs::write(setup.journal(), "this is not a database".repeat(500)).unwrap();
        let config = setup.path("receiptd.toml");
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        let ended = run(&mut receiptd(setup.folder.path(), &arguments));
        assert_eq!(ended.code, Some(74), "{ended:?}");
        let told = ["copy both files and their -wal", "receiptd check-db", "backup", "move the"];
        let places = told.map(|step| ended.stderr.find(step).expect(step));
        assert!(places.is_sorted(), "{}", ended.stderr);
    }

    #[test]
    fn a_file_of_a_newer_version_is_refused_untouched() {
        let (setup, _) = filled();
        let bytes = || (fs::read(setup.state()).unwrap(), fs::read(setup.journal()).unwrap());
        for path in [setup.state(), setup.journal()] {
            let set = |version: i64| {
                let connection = Connection::open(&path).unwrap();
                connection.pragma_update(None, "user_version", version).unwrap();
            };
            let version: i64 = Connection::open(&path)
                .unwrap()
                .pragma_query_value(None, "user_version", |row| row.get(0))
                .unwrap();
            set(99);
            let before = bytes();
            let config = setup.path("receiptd.toml");
            let arguments = ["serve", "--config", config.to_str().unwrap()];
            let ended = run(&mut receiptd(setup.folder.path(), &arguments));
            assert_eq!(ended.code, Some(74), "{ended:?}");
            assert!(ended.stderr.contains("written by a newer receiptd"), "{}", ended.stderr);
            assert!(!ended.stderr.contains("does the folder exist"), "{}", ended.stderr);
            assert!(bytes() == before, "{} was touched", path.display());
            set(version);
        }
        assert_eq!(setup.start().post(receipt("a")), 204);
    }

    #[test]
    fn a_file_of_something_else_is_refused_untouched() {
        let setup = Setup::new();
        let app = Connection::open(setup.state()).unwrap();
        app.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)").unwrap();
        drop(app);
        let before = fs::read(setup.state()).unwrap();
        let config = setup.write();
        let arguments = ["serve", "--config", config.to_str().unwrap()];
        let ended = run(&mut receiptd(setup.folder.path(), &arguments));
        assert_eq!(ended.code, Some(74));
        assert!(ended.stderr.contains("is not a receiptd state file"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("does the folder exist"), "{}", ended.stderr);
        assert!(fs::read(setup.state()).unwrap() == before);
    }
}

#[test]
fn a_source_that_was_configured_as_another_providers_is_mended_by_a_rebuild() {
    let mut setup = Setup::with_sources(&source("passport", "ajo", &[("live", TOKEN)]));
    let server = setup.start();
    assert_eq!(server.post(receipt("a")), 204);
    server.settled();
    server.stop();
    assert_eq!(count(&setup.state(), "unrecognised"), 1);
    setup.sources = source("passport", "gc-notify", &[("live", TOKEN)]);
    let config = setup.write();
    let arguments = ["rebuild", "--config", config.to_str().unwrap()];
    let ended = run(&mut receiptd(setup.folder.path(), &arguments));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(count(&setup.state(), "unrecognised"), 0);
    assert_eq!(count(&setup.state(), "notification"), 1);
}
