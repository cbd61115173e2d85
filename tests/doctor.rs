//! `receiptd doctor` against our own receiver, which it must find safe, and against a zoo of
//! hand-written ones with one fault each, in which it must find that fault and no other.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::Value;
use support::{PATH, Receiptd, Setup, TOKEN, receiptd, rows, source};

/// What the doctor says of a receiver.
struct Verdict {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    /// Severity, and the finding, by the name of the check.
    findings: BTreeMap<String, (String, Value)>,
    written: Vec<Value>,
}

/// What is not as it should be.
impl std::fmt::Debug for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, stdout, stderr, findings, .. } = self;
        let bad = findings.values().filter(|(severity, _)| severity != "ok");
        write!(f, "exit {code:?}\n{stderr}")?;
        if findings.is_empty() {
            return f.write_str(stdout);
        }
        bad.into_iter().try_for_each(|(severity, finding)| {
            writeln!(f, "{} {severity}: {}", finding["check"], finding["came_back"])
        })
    }
}

impl Verdict {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        for said in [&stdout, &stderr] {
            assert!(!said.contains(TOKEN), "the token was printed: {said}");
        }
        let document: Value = serde_json::from_str(&stdout).unwrap_or_default();
        let list = |key: &str| document[key].as_array().cloned().unwrap_or_default();
        let findings = list("findings").into_iter().map(|finding| {
            let word = |key: &str| finding[key].as_str().unwrap().to_owned();
            (word("check"), (word("severity"), finding))
        });
        let (findings, written) = (findings.collect(), list("written"));
        Self { code: output.status.code(), stdout, stderr, findings, written }
    }

    /// The checks with that severity.
    fn with(&self, severity: &str) -> BTreeSet<&str> {
        let found = self.findings.iter().filter(|(_, (found, _))| found == severity);
        found.map(|(name, _)| name.as_str()).collect()
    }

    /// Exactly these checks fail or warn, and the exit code is that of the worst.
    fn assert_finds(&self, expected: &[(&str, &str)]) {
        assert_eq!(self.findings.len(), receiptd::doctor::CHECKS.len(), "{self:?}");
        for severity in ["lost", "unsafe", "warn"] {
            let of_it = expected.iter().filter(|(_, of)| *of == severity);
            let expected: BTreeSet<&str> = of_it.map(|(check, _)| *check).collect();
            assert_eq!(self.with(severity), expected, "{severity}: {self:#?}");
        }
        let is_bad = expected.iter().any(|(_, severity)| *severity != "warn");
        assert_eq!(self.code, Some(i32::from(is_bad)), "{self:#?}");
        for (severity, finding) in self.findings.values() {
            let is_said = |key: &str| finding[key].as_str().is_some_and(|said| !said.is_empty());
            if severity != "ok" && severity != "skipped" {
                for key in ["sent", "came_back", "sender_would", "why", "mend"] {
                    assert!(is_said(key), "{key}: {finding}");
                }
            }
        }
    }

    fn said(&self, check: &str, key: &str) -> &str {
        self.findings[check].1[key].as_str().unwrap()
    }
}

/// `receiptd doctor`, with the token, not yet run.
fn doctor(url: &str, provider: &str, more: &[&str]) -> Command {
    let mut command = receiptd(&std::env::temp_dir(), &["doctor", url, "--provider", provider]);
    command.args(more).env("RECEIPTD_TOKEN", TOKEN).stdin(Stdio::null());
    command
}

/// Its findings; nothing waits for longer than a second.
fn examine(url: &str, provider: &str, more: &[&str]) -> Verdict {
    examine_for(1, url, provider, more)
}

/// The same with that patience, in seconds.
fn examine_for(patience: u32, url: &str, provider: &str, more: &[&str]) -> Verdict {
    let patience = patience.to_string();
    let mut command = doctor(url, provider, &["--format", "json", "--patience", &patience]);
    Verdict::of(command.args(more).output().unwrap())
}

/// What a receiver does instead of the right thing, if it does.
type Fault = dyn Fn(&Post, &Memory) -> Option<Reply> + Send + Sync;

/// A receiver written by hand.
#[derive(Clone)]
struct Animal {
    /// What is wrong with it.
    fault: Arc<Fault>,
    /// What it allows between two bytes of a body; what it says then, or nothing.
    body_pause_max: (Duration, Option<u16>),
    /// How long it keeps an idle connection.
    idle_max: Duration,
}

/// What it has heard so far.
#[derive(Default)]
struct Memory {
    bodies: Mutex<Vec<Vec<u8>>>,
    last: Mutex<HashMap<String, String>>,
}

/// A request.
struct Post {
    method: String,
    path: String,
    authorization: Option<String>,
    signature: Option<String>,
    body: Vec<u8>,
    json: Option<Value>,
}

impl Post {
    fn word(&self, key: &str) -> &str {
        self.json.as_ref().and_then(|json| json[key].as_str()).unwrap_or("")
    }

    fn has(&self, key: &str) -> bool {
        self.json.as_ref().is_some_and(|json| json.get(key).is_some())
    }

    fn is_authentic(&self) -> bool {
        let shown = self.authorization.as_deref().unwrap_or("");
        shown
            .split_once(' ')
            .is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && token == TOKEN)
    }
}

/// An answer.
#[derive(Clone)]
struct Reply {
    code: u16,
    lines: &'static str,
    body: String,
    after: Duration,
}

fn reply(code: u16) -> Option<Reply> {
    Some(Reply { code, lines: "", body: String::new(), after: Duration::ZERO })
}

impl Animal {
    fn with(fault: impl Fn(&Post, &Memory) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let long = Duration::from_secs(60);
        Self { fault: Arc::new(fault), body_pause_max: (long, None), idle_max: long }
    }

    /// Does everything right.
    fn sane() -> Self {
        Self::with(|_, _| None)
    }

    /// Serves until the test ends; returns its URL.
    fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let memory = Arc::new(Memory::default());
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (animal, memory) = (self.clone(), Arc::clone(&memory));
                std::thread::spawn(move || animal.serve(&socket, &memory));
            }
        });
        format!("http://{address}/notify/callback")
    }

    fn examined_as(self, provider: &str) -> Verdict {
        examine(&self.start(), provider, &[])
    }

    fn examined(self) -> Verdict {
        self.examined_as("gc-notify")
    }

    fn serve(&self, socket: &TcpStream, memory: &Memory) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let mut reader = BufReader::new(socket);
        let mut is_first = true;
        loop {
            let patience = if is_first { support::PATIENCE } else { self.idle_max };
            is_first = false;
            socket.set_read_timeout(Some(patience))?;
            let Some(mut post) = head(&mut reader)? else { return Ok(()) };
            socket.set_read_timeout(Some(self.body_pause_max.0))?;
            if reader.read_exact(&mut post.body).is_err() {
                let code = self.body_pause_max.1.and_then(reply);
                return code.map_or(Ok(()), |reply| say(socket, &reply));
            }
            post.json = serde_json::from_slice(&post.body).ok();
            let right = reply(if post.is_authentic() { 204 } else { 401 });
            let reply = (self.fault)(&post, memory).or(right).unwrap();
            std::thread::sleep(reply.after);
            memory.bodies.lock().unwrap().push(post.body.clone());
            let (id, status) = (post.word("id").to_owned(), post.word("status").to_owned());
            memory.last.lock().unwrap().insert(id, status);
            say(socket, &reply)?;
            if reply.lines.contains("close") || self.idle_max.is_zero() {
                return Ok(());
            }
        }
    }
}

/// The head of a request, with room for its body.
fn head(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Post>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    drop(words);
    let (mut authorization, mut signature, mut length) = (None, None, 0);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = Some(value.trim_start().to_owned()),
            "x-enp-signature" => signature = Some(value.trim_start().to_owned()),
            "content-length" => length = value.trim().parse().unwrap(),
            _ => {}
        }
    }
    Ok(Some(Post { method, path, authorization, signature, body: vec![0; length], json: None }))
}

fn say(mut socket: &TcpStream, reply: &Reply) -> io::Result<()> {
    let Reply { code, lines, body, .. } = reply;
    let length =
        if *code == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    socket.write_all(format!("HTTP/1.1 {code} Word\r\n{length}{lines}\r\n{body}").as_bytes())
}

mod ours {
    use super::*;

    fn url(server: &Receiptd) -> String {
        format!("http://{}{PATH}", server.callbacks)
    }

    #[test]
    fn our_own_receiver_is_safe_for_every_platform() {
        let platforms = ["gc-notify", "govuk-notify", "us-notify", "va-notify", "notify-nl", "ajo"];
        for platform in platforms {
            let setup = Setup::with_sources(&source("passport", platform, &[("live", TOKEN)]));
            let server = setup.start();
            let verdict = examine(&url(&server), platform, &[]);
            verdict.assert_finds(&[]);
            let skipped = match platform {
                "gc-notify" => 5,
                "govuk-notify" | "notify-nl" => 6,
                _ => 7,
            };
            assert_eq!(verdict.with("skipped").len(), skipped, "{platform}: {verdict:#?}");
        }
    }

    /// One that looks at nothing but whether a signature is there, and one that knows none at all.
    #[test]
    fn a_signature_is_held_to_what_a_token_is() {
        let setup = Setup::new();
        let secret = setup.path("secret");
        fs::write(&secret, TOKEN).unwrap();
        let sources = format!(
            "[[source]]\nname = \"passport\"\nprovider = \"va-notify\"\n\
             signature = {{ secret_file = {secret:?} }}\n"
        );
        let server = Setup { sources, ..setup };
        let server = server.start();
        let verdict = examine(&url(&server), "va-notify-signed", &[]);
        verdict.assert_finds(&[]);
        assert_eq!(verdict.with("skipped").len(), 10, "{verdict:#?}");
        assert!(verdict.said("wrong-token", "sent").contains("signature"), "{verdict:#?}");
        assert!(verdict.said("wrong-token", "came_back").matches("401").count() == 2);
        let mut with_another = doctor(&url(&server), "va-notify-signed", &["--format", "json"]);
        let verdict =
            Verdict::of(with_another.env("RECEIPTD_TOKEN", "another-secret").output().unwrap());
        verdict.assert_finds(&[("right-token", "lost")]);
        assert!(verdict.said("right-token", "mend").contains("urlencode"), "{verdict:#?}");

        let careless = |is_looked_for: bool| {
            Animal::with(move |post, _| {
                reply(if is_looked_for && post.signature.is_none() { 401 } else { 204 })
            })
        };
        let let_in = [("no-token", "unsafe"), ("wrong-token", "unsafe")];
        careless(false).examined_as("va-notify-signed").assert_finds(&let_in);
        careless(true).examined_as("va-notify-signed").assert_finds(&let_in[1..]);
    }

    /// What the report says a right receiver holds is what ours does.
    #[test]
    fn every_id_in_the_report_stands_in_the_state_as_it_says() {
        for platform in ["gc-notify", "govuk-notify", "ajo"] {
            let setup = Setup::with_sources(&source("passport", platform, &[("live", TOKEN)]));
            let server = setup.start();
            let verdict = examine(&url(&server), platform, &[]);
            server.settled();
            let sql = "SELECT id, coalesce(status, 'none') FROM notification ORDER BY 1";
            let held = rows(&support::open(&setup.state()), sql);
            let word = |written: &Value, key: &str| written[key].as_str().unwrap().to_owned();
            let mut told: Vec<String> = verdict
                .written
                .iter()
                .map(|written| format!("{}|{}", word(written, "id"), word(written, "expected")))
                .filter(|told| !told.contains("|nothing") && !told.ends_with("|none"))
                .collect();
            told.sort();
            let held: Vec<String> =
                held.into_iter().filter(|row| !row.ends_with("|none")).collect();
            assert_eq!(held, told, "{platform}");
            assert!(held.len() >= 11 && held.iter().all(|row| row.starts_with("d0c70000-")));
        }
    }

    #[test]
    fn the_same_seed_names_the_same_ids() {
        let server = Setup::new();
        let server = server.start();
        let ids = |seed: &str| -> Vec<String> {
            let verdict = examine(&url(&server), "gc-notify", &["--seed", seed]);
            verdict.written.iter().map(|written| written["id"].to_string()).collect()
        };
        let (one, again, other) = (ids("7"), ids("7"), ids("8"));
        assert_eq!(one, again);
        assert!(one.len() > 12 && one.iter().all(|id| !other.contains(id)));
    }
}

mod tls {
    use super::*;

    /// Days from 2026-11-22 do not matter: what is tested lies far from any today.
    struct Validity {
        host: &'static str,
        from: (i32, u8, u8),
        until: (i32, u8, u8),
    }

    const GOOD: Validity = Validity { host: "localhost", from: (2020, 1, 1), until: (2120, 1, 1) };

    /// Our receiver with such a certificate, examined by somebody who trusts its authority.
    fn examined(validity: &Validity, is_trusted: bool) -> Verdict {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![validity.host.to_owned()]).unwrap();
        let ((y, m, d), (year, month, day)) = (validity.from, validity.until);
        params.not_before = rcgen::date_time_ymd(y, m, d);
        params.not_after = rcgen::date_time_ymd(year, month, day);
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        let setup = Setup::new().with("tls", "cert_file = \"tls.crt\"\nkey_file = \"tls.key\"");
        fs::write(setup.path("tls.crt"), certificate).unwrap();
        fs::write(setup.path("tls.key"), key.serialize_pem()).unwrap();
        let other = CertificateParams::new(vec![]).unwrap();
        let other = other.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        fs::write(setup.path("ca.crt"), if is_trusted { authority } else { other }).unwrap();
        let server = setup.start();
        let url = format!("https://localhost:{}{PATH}", server.callbacks.port());
        let verdict =
            examine(&url, "govuk-notify", &["--ca-file", setup.path("ca.crt").to_str().unwrap()]);
        if verdict.code != Some(0) {
            assert_eq!(setup.callbacks(), 0, "nothing goes to whom nobody vouches for");
            assert!(verdict.written.is_empty(), "{verdict:#?}");
        }
        verdict
    }

    #[test]
    fn a_good_certificate_is_good_and_everything_else_is_found_out_over_it() {
        let verdict = examined(&GOOD, true);
        verdict.assert_finds(&[]);
        assert_eq!(verdict.with("skipped"), BTreeSet::from(["probe-boolean", "probe-string"]));
        assert!(verdict.said("tls-expiry", "came_back").contains("2120-01-01"), "{verdict:#?}");
        assert_eq!(verdict.said("tls-version", "came_back"), "TLS 1.3");
    }

    #[test]
    fn an_expired_certificate_is_found() {
        let verdict = examined(&Validity { until: (2021, 1, 1), ..GOOD }, true);
        verdict.assert_finds(&[("tls-expiry", "lost")]);
        assert!(verdict.said("tls-expiry", "came_back").contains("2021-01-01"));
    }

    #[test]
    fn a_certificate_for_another_host_is_found() {
        let verdict = examined(&Validity { host: "other.example", ..GOOD }, true);
        verdict.assert_finds(&[("tls-host", "lost")]);
    }

    #[test]
    fn a_certificate_nobody_vouches_for_is_found() {
        examined(&GOOD, false).assert_finds(&[("tls-chain", "lost")]);
    }

    #[test]
    fn a_server_that_speaks_no_tls_is_found() {
        let url = Animal::sane().start().replace("http:", "https:");
        examine(&url, "gc-notify", &[]).assert_finds(&[("tls-chain", "lost")]);
    }
}

mod zoo {
    use super::*;

    const LET_IN: [(&str, &str); 3] =
        [("no-token", "unsafe"), ("wrong-token", "unsafe"), ("other-scheme", "unsafe")];

    #[test]
    fn one_that_does_everything_right_is_safe() {
        let verdict = Animal::sane().examined();
        verdict.assert_finds(&[]);
        Animal::sane().examined_as("govuk-notify").assert_finds(&[]);
    }

    #[test]
    fn one_that_knows_only_one_form_of_the_probe_is_caught() {
        for (known, check) in [
            (r#"{"health_check": "true"}"#, "probe-boolean"),
            (r#"{"health_check": true}"#, "probe-string"),
        ] {
            let animal = Animal::with(move |post, _| {
                (post.has("health_check") && post.body != known.as_bytes()).then(|| reply(400))?
            });
            animal.examined().assert_finds(&[(check, "lost")]);
        }
    }

    #[test]
    fn one_that_compares_the_token_only_for_the_probe_is_caught() {
        let animal =
            Animal::with(|post, _| if post.has("health_check") { None } else { reply(200) });
        animal.examined().assert_finds(&LET_IN);
    }

    #[test]
    fn one_that_accepts_any_token_is_caught() {
        Animal::with(|_, _| reply(200)).examined().assert_finds(&LET_IN);
    }

    #[test]
    fn one_that_only_looks_for_a_header_is_caught() {
        let animal = Animal::with(|post, _| post.authorization.as_ref().and_then(|_| reply(200)));
        animal.examined().assert_finds(&LET_IN[1..]);
    }

    #[test]
    fn one_to_which_an_empty_token_is_a_token_is_caught() {
        let animal = Animal::with(|post, _| {
            let shown = post.authorization.as_deref()?;
            let token = shown.strip_prefix("Bearer")?.trim();
            TOKEN.starts_with(token).then(|| reply(200))?
        });
        animal.examined().assert_finds(&LET_IN[1..2]);
    }

    #[test]
    fn one_that_refuses_the_token_it_was_given_is_caught_and_the_rest_skipped() {
        let verdict = Animal::with(|_, _| reply(401)).examined();
        verdict.assert_finds(&[("right-token", "lost")]);
        assert!(verdict.with("skipped").contains("nulls"), "{verdict:#?}");
    }

    #[test]
    fn one_that_refuses_the_scheme_in_lower_case_is_warned() {
        let animal = Animal::with(|post, _| {
            post.authorization.as_deref()?.starts_with("bearer ").then(|| reply(401))?
        });
        animal.examined().assert_finds(&[("lower-case-scheme", "warn")]);
    }

    #[test]
    fn one_that_refuses_strangers_with_another_code_is_warned() {
        let animal = Animal::with(|post, _| if post.is_authentic() { None } else { reply(404) });
        animal.examined().assert_finds(&LET_IN.map(|(check, _)| (check, "warn")));
    }

    /// One that refuses, with that code, authentic bodies of which this is so.
    fn refusing(code: u16, is_so: impl Fn(&Post) -> bool + Send + Sync + 'static) -> Animal {
        Animal::with(move |post, _| (post.is_authentic() && is_so(post)).then(|| reply(code))?)
    }

    #[test]
    fn one_that_cannot_take_a_null_is_caught() {
        let is_null = |post: &Post| post.has("reference") && post.word("reference").is_empty();
        let verdict = refusing(400, is_null).examined();
        verdict.assert_finds(&[("nulls", "lost")]);
        let would = verdict.said("nulls", "sender_would");
        assert!(would.contains("400 is never sent again"), "{would}");
    }

    #[test]
    fn one_that_lists_the_statuses_is_caught() {
        let known = ["", "delivered", "sending", "permanent-failure"];
        let verdict = refusing(422, move |post| !known.contains(&post.word("status"))).examined();
        verdict.assert_finds(&[("unknown-status", "lost")]);
    }

    #[test]
    fn one_that_forbids_other_keys_is_caught() {
        let verdict = refusing(422, |post| post.has("receiptd_doctor_text")).examined();
        verdict.assert_finds(&[("unknown-keys", "lost")]);
    }

    #[test]
    fn one_that_takes_a_duplicate_for_a_conflict_is_caught() {
        let animal = Animal::with(|post, memory| {
            memory.bodies.lock().unwrap().contains(&post.body).then(|| reply(409))?
        });
        // What strangers send comes twice too.
        let found = animal.examined();
        found.assert_finds(&[("duplicate", "lost"), ("wrong-token", "warn")]);
    }

    #[test]
    fn one_that_refuses_what_comes_out_of_order_is_caught() {
        for (status, check) in
            [("sending", "reversed-order"), ("permanent-failure", "bounce-after-delivered")]
        {
            let animal = Animal::with(move |post, memory| {
                let last = memory.last.lock().unwrap().get(post.word("id")).cloned();
                let is_final = last.as_deref() == Some("delivered");
                (is_final && post.word("status") == status).then(|| reply(409))?
            });
            animal.examined().assert_finds(&[(check, "lost")]);
        }
    }

    #[test]
    fn one_that_does_not_know_the_id_is_caught_and_named_as_the_cause_of_the_rest() {
        let verdict = refusing(404, |post| post.has("status")).examined();
        assert_eq!(verdict.code, Some(1));
        assert_eq!(verdict.findings["unknown-id"].0, "lost");
        for check in ["duplicate", "nulls", "large-body", "slow-body"] {
            let (severity, finding) = &verdict.findings[check];
            assert_eq!(
                (severity.as_str(), finding["because_of"].as_str()),
                ("lost", Some("unknown-id"))
            );
        }
        assert!(verdict.with("ok").contains("probe-boolean"), "{verdict:#?}");
    }

    #[test]
    fn one_with_a_small_limit_for_bodies_is_caught() {
        let verdict = refusing(413, |post| post.body.len() > 16 << 10).examined();
        verdict.assert_finds(&[("large-body", "lost")]);
    }

    #[test]
    fn one_that_fails_over_broken_json_is_caught_and_would_be_suspended() {
        for (provider, is_suspended) in [("gc-notify", true), ("govuk-notify", false)] {
            let verdict = refusing(500, |post| post.json.is_none()).examined_as(provider);
            verdict.assert_finds(&[("unreadable-body", "lost")]);
            let would = verdict.said("unreadable-body", "sender_would");
            assert!(would.contains("5 times"), "{would}");
            assert_eq!(would.contains("suspended"), is_suspended, "{would}");
        }
    }

    #[test]
    fn one_that_refuses_broken_json_is_caught() {
        let verdict = refusing(400, |post| post.json.is_none()).examined();
        verdict.assert_finds(&[("unreadable-body", "lost")]);
    }

    #[test]
    fn one_that_redirects_is_caught_and_not_followed() {
        let followed = Arc::new(Mutex::new(0));
        let count = Arc::clone(&followed);
        let verdict = Animal::with(move |post, _| {
            *count.lock().unwrap() += i32::from(post.method != "POST");
            Some(Reply { lines: "location: /notify/callback/\r\n", ..reply(301)? })
        })
        .examined();
        verdict.assert_finds(&[("redirect", "lost")]);
        assert_eq!(*followed.lock().unwrap(), 0);
    }

    /// What FastAPI does with a slash too many or too few.
    #[test]
    fn one_that_redirects_with_the_body_is_warned_and_examined_where_it_leads() {
        let at = |paths: &'static [&'static str], to: &'static str, code| {
            Animal::with(move |post, _| {
                let is_there = !paths.contains(&&*post.path);
                if is_there { None } else { Some(Reply { lines: to, ..reply(code)? }) }
            })
        };
        let here = &["/notify/callback"];
        let within = at(here, "location: /notify/callback/\r\n", 307);
        within.examined().assert_finds(&[("redirect", "warn")]);
        let elsewhere = at(here, "location: http://127.0.0.1:1/notify/callback\r\n", 308);
        let verdict = elsewhere.examined();
        verdict.assert_finds(&[("redirect", "lost")]);
        assert!(verdict.said("redirect", "sender_would").contains("without the token"));
        let in_a_circle = at(&["/notify/callback", "/2"], "location: /2\r\n", 307).examined();
        assert_eq!(in_a_circle.code, Some(1), "{in_a_circle:#?}");
    }

    #[test]
    fn one_that_answers_late_is_refused_by_the_set_up_form() {
        let slow = Duration::from_millis(1_100);
        let animal = Animal::with(move |post, _| {
            let code = if post.is_authentic() { 204 } else { 401 };
            Some(Reply { after: slow, ..reply(code)? })
        });
        animal.examined().assert_finds(&[
            ("probe-boolean", "lost"),
            ("probe-string", "lost"),
            ("answer-time", "warn"),
        ]);
    }

    #[test]
    fn one_that_closes_connections_at_once_without_a_word_is_caught() {
        let animal = Animal { idle_max: Duration::ZERO, ..Animal::sane() };
        animal.clone().examined_as("gc-notify").assert_finds(&[]);
        animal.examined_as("govuk-notify").assert_finds(&[("keep-alive", "lost")]);
    }

    #[test]
    fn one_that_closes_idle_connections_soon_is_warned() {
        let animal = Animal { idle_max: Duration::from_millis(600), ..Animal::sane() };
        animal.examined_as("notify-nl").assert_finds(&[("keep-alive", "warn")]);
    }

    #[test]
    fn one_that_says_that_it_closes_is_safe() {
        let animal = Animal::with(|post, _| {
            let code = if post.is_authentic() { 204 } else { 401 };
            Some(Reply { lines: "connection: close\r\n", ..reply(code)? })
        });
        animal.examined_as("govuk-notify").assert_finds(&[]);
    }

    /// Less than the 570 ms between two pieces, and more than a busy machine takes in the middle of
    /// another body.
    #[test]
    fn one_that_has_no_patience_with_a_slow_body_is_caught_or_warned() {
        for (says, severity) in [(Some(408), "lost"), (None, "warn")] {
            let pause_max = (Duration::from_millis(300), says);
            let animal = Animal { body_pause_max: pause_max, ..Animal::sane() };
            let verdict = examine_for(4, &animal.start(), "gc-notify", &[]);
            verdict.assert_finds(&[("slow-body", severity)]);
        }
    }

    #[test]
    fn one_that_repeats_the_token_has_its_answer_not_shown() {
        let animal = Animal::with(|post, _| {
            let body = format!("wrong: {}", post.authorization.as_deref().unwrap_or(""));
            Some(Reply { body, ..reply(422)? })
        });
        let verdict = animal.examined();
        assert_eq!(verdict.code, Some(1));
        assert!(verdict.said("unknown-id", "came_back").contains("not shown"), "{verdict:#?}");
    }
}

mod manners {
    use super::*;

    #[test]
    fn another_machine_is_not_touched_unless_somebody_says_yes() {
        for url in ["http://receiver.example/x", "https://192.0.2.1/x", "http://localhost.example/"]
        {
            let verdict = Verdict::of(doctor(url, "gc-notify", &[]).output().unwrap());
            assert_eq!(verdict.code, Some(2), "{verdict:?}");
            assert!(verdict.stderr.contains("--yes"), "{verdict:?}");
        }
    }

    #[test]
    fn who_cannot_be_reached_is_exit_69() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for scheme in ["http", "https"] {
            let verdict = examine(&format!("{scheme}://{address}/x"), "gc-notify", &["--yes"]);
            assert_eq!(verdict.code, Some(69), "{verdict:?}");
        }
    }

    #[test]
    fn wrong_usage_is_exit_2() {
        let mut without_a_token = doctor("http://127.0.0.1:1/x", "gc-notify", &[]);
        let verdict = Verdict::of(without_a_token.env_remove("RECEIPTD_TOKEN").output().unwrap());
        assert_eq!(verdict.code, Some(2), "{verdict:?}");
        assert!(verdict.stderr.contains("--token-file"), "{verdict:?}");
        for (url, provider) in
            [("ftp://127.0.0.1/x", "gc-notify"), ("http://127.0.0.1:1/x", "nobody")]
        {
            let verdict = Verdict::of(doctor(url, provider, &[]).output().unwrap());
            assert_eq!(verdict.code, Some(2), "{verdict:?}");
        }
    }

    /// Stops this process, and lets it go on after that long.
    fn freeze(process: u32, time: Duration) {
        let send = move |signal: &str| {
            let done = Command::new("kill").args([signal, &process.to_string()]).status();
            assert!(done.unwrap().success());
        };
        send("-STOP");
        std::thread::spawn(move || {
            std::thread::sleep(time);
            send("-CONT");
        });
    }

    /// The receiver answers at once, and the doctor hears it 2 s and 7 s later: in the probe, which
    /// must be answered within 1 s, and in a receipt, for which a sender waits 5 s.
    #[test]
    fn a_doctor_that_stood_still_itself_does_not_blame_the_receiver() {
        let doctor_id = Arc::new(Mutex::new(None));
        let frozen = Arc::new(Mutex::new(BTreeSet::new()));
        let (id, seen) = (Arc::clone(&doctor_id), Arc::clone(&frozen));
        let animal = Animal::with(move |post, _| {
            let (what, seconds) = match post.word("status") {
                _ if post.has("health_check") => ("probe", 2),
                "permanent-failure" => ("bounce", 7),
                _ => return None,
            };
            if seen.lock().unwrap().insert(what) {
                freeze(id.lock().unwrap().unwrap(), Duration::from_secs(seconds));
            }
            None
        });
        let more = ["--format", "json", "--patience", "1"];
        let mut command = doctor(&animal.start(), "gc-notify", &more);
        let mut held = doctor_id.lock().unwrap();
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        *held = Some(child.id());
        drop(held);
        Verdict::of(child.wait_with_output().unwrap()).assert_finds(&[]);
        assert_eq!(frozen.lock().unwrap().len(), 2);
    }

    #[test]
    fn the_table_says_what_was_sent_what_came_back_what_would_follow_and_how_to_mend_it() {
        let animal = Animal::with(|post, _| post.json.is_none().then(|| reply(400))?);
        let url = format!("{}?key=secret", animal.start());
        let more = ["--patience", "0", "--seed", "7"];
        let verdict = Verdict::of(doctor(&url, "gc-notify", &more).output().unwrap());
        assert_eq!(verdict.code, Some(1), "{verdict:?}");
        for expected in [
            "seed 7.",
            "unreadable-body         lost",
            "unreadable-body: lost\nsent          the first half",
            "\ncame back     400 in ",
            "\nsender would  drop it for ever: 400 is never sent again",
            "\nmend          Store the bytes",
            "d0c70000-",
            "Not safe for gc-notify. Lost: 1. Unsafe: 0.",
        ] {
            assert!(verdict.stdout.contains(expected), "{expected}\n{}", verdict.stdout);
        }
        assert!(!verdict.stdout.contains("secret"), "{}", verdict.stdout);
    }

    #[test]
    fn junit_has_a_case_for_each_check_that_was_made() {
        let animal = Animal::with(|post, _| post.json.is_none().then(|| reply(400))?);
        let more = ["--patience", "0", "--format", "junit"];
        let verdict = Verdict::of(doctor(&animal.start(), "gc-notify", &more).output().unwrap());
        assert_eq!(verdict.code, Some(1), "{verdict:?}");
        let xml = &verdict.stdout;
        assert!(xml.contains(r#"tests="20" failures="1""#), "{xml}");
        assert_eq!(xml.matches("<testcase").count(), 20, "{xml}");
        assert!(xml.contains(r#"name="unreadable-body""#) && xml.contains("never sent again"));
    }
}
