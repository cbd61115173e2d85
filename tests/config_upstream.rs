//! Upstreams in the configuration: what is accepted, what is refused and in which words, and that no
//! key shows.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use receiptd::clock::Timestamp;
use receiptd::config::settings::{Secret, Upstream};
use receiptd::config::{self, Layers, Loaded, Problem, Problems};
use tempfile::TempDir;

/// SHA-256 of `test`.
const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

const SERVICE: &str = "26785a09-ab16-4eb0-8407-a37497a57506";

/// The secret in the key, which must never come out again.
const CANARY: &str = "cafecafe-8d35-48ac-975b-e847b4f122b0";

/// A URL and a key, as the contract has them.
const LEAST: &str =
    "base_url = \"https://api.notification.canada.ca\"\napi_key_file = \"DIR/key\"\n";

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

fn key() -> String {
    format!("gcntfy-live-{SERVICE}-{CANARY}")
}

/// A folder with a configuration and a key.
struct Case {
    folder: TempDir,
    layers: Layers,
}

impl Case {
    /// A source `passport` with this upstream, and what comes before it.
    fn new(before: &str, provider: &str, upstream: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("receiptd.toml");
        let text = format!(
            "{before}\n[[source]]\nname = \"passport\"\nprovider = \"{provider}\"\n\
             [[source.token]]\nlabel = \"t\"\nsha256 = \"{HASH}\"\n[source.upstream]\n{upstream}\n"
        );
        fs::write(&file, text.replace("DIR", folder.path().to_str().unwrap())).unwrap();
        let case = Self { folder, layers: Layers { file: Some(file), ..Layers::default() } };
        case.with_key(&format!("{}\n", key()), 0o600)
    }

    fn with_key(self, content: &str, mode: u32) -> Self {
        let path = self.folder.path().join("key");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        self
    }

    fn load(&self) -> Result<Loaded, Problems> {
        config::load(&self.layers, now())
    }

    #[track_caller]
    fn upstream(&self) -> Upstream {
        let loaded = self.load().unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        loaded.settings.sources[0].upstream.clone().unwrap()
    }

    /// The only problem there is, if its key and these words are right and no secret is in it.
    #[track_caller]
    fn assert_only(&self, key: &str, words: &[&str]) -> Problem {
        let problems = self.load().expect_err("it should have been refused");
        assert_eq!(problems.iter().count(), 1, "{problems}");
        let problem = problems.iter().next().unwrap().clone();
        let text = problem.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(problem.key, key, "{text}");
        for word in words {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
        assert!(!format!("{text} {problem:?}").contains(CANARY), "{text}");
        problem
    }
}

fn gc(upstream: &str) -> Case {
    Case::new("", "gc-notify", upstream)
}

#[test]
fn the_shape_of_the_contract_loads() {
    let upstream = gc(&format!("{LEAST}every = \"15m\"\nhorizon = \"7d\"\n")).upstream();
    assert_eq!(
        (upstream.base.host.as_str(), upstream.base.port),
        ("api.notification.canada.ca", 443)
    );
    assert_eq!(upstream.base.path, "");
    assert_eq!(upstream.every, Duration::from_secs(900));
    assert_eq!(upstream.horizon, Duration::from_secs(7 * 86_400));
    assert_eq!(upstream.api_key.service_id, SERVICE);
    assert_eq!(upstream.api_key.secret, Secret(CANARY.into()));
    assert_eq!(upstream.api_key.whole, Secret(key().into()));
}

#[test]
fn the_bounds_of_reconcile_hold_for_every_upstream_that_does_not_set_its_own() {
    let upstream = gc(LEAST).upstream();
    assert_eq!(upstream.every, Duration::from_secs(900));
    assert_eq!(upstream.requests_per_minute_max, 60);
    assert_eq!(upstream.answer_ms_max, Duration::from_secs(10));
    let before = "[reconcile]\nevery = \"1h\"\nrequests_per_minute_max = 7\n";
    let own = format!("{LEAST}every = \"90s\"\nanswer_ms_max = 1000\n");
    let mut case = Case::new(before, "gc-notify", &own);
    case.layers.env.push(("RECEIPTD_RECONCILE_HORIZON".into(), "3d".into()));
    let upstream = case.upstream();
    assert_eq!(upstream.every, Duration::from_secs(90));
    assert_eq!(upstream.horizon, Duration::from_secs(3 * 86_400));
    assert_eq!(upstream.requests_per_minute_max, 7);
    assert_eq!(upstream.answer_ms_max, Duration::from_secs(1));
    let shown = case.load().unwrap().effective;
    let shown = |key: &str| {
        let found = shown.iter().find(|effective| effective.key == key).unwrap();
        (found.value.to_string(), found.origin.to_string())
    };
    let (value, origin) = shown("source.passport.upstream.horizon");
    assert_eq!(value, "\"3d\"");
    assert!(origin.contains("RECEIPTD_RECONCILE_HORIZON"), "{origin}");
    assert_eq!(shown("source.passport.upstream.requests_per_minute_max").0, "7");
}

#[test]
fn every_platform_of_the_family_can_be_asked_and_no_other() {
    for provider in ["notify", "gc-notify", "govuk-notify", "us-notify", "va-notify", "notify-nl"] {
        Case::new("", provider, LEAST).upstream();
    }
    Case::new("", "ajo", LEAST)
        .assert_only("source.passport.upstream", &["provider is ajo", "gc-notify"]);
}

#[test]
fn a_key_goes_over_https_or_stays_on_this_machine_and_never_to_an_address_of_the_link() {
    let at = |url: &str| gc(&LEAST.replace("https://api.notification.canada.ca", url));
    for url in ["http://127.0.0.1:6011", "http://[::1]:6011/", "http://localhost:6011/prefix/"] {
        let path = at(url).upstream().base.path;
        assert!(!path.ends_with('/'), "{path}");
    }
    for url in ["http://api.example", "http://10.0.0.1"] {
        at(url).assert_only("source.passport.upstream.base_url", &["https", "loopback"]);
    }
    for host in ["169.254.169.254", "[fe80::1]", "0.0.0.0", "[::ffff:169.254.169.254]"] {
        let words = ["a host at which a platform may be"];
        at(&format!("https://{host}")).assert_only("source.passport.upstream.base_url", &words);
    }
    for url in ["ftp://a", "api.notification.canada.ca", "https://"] {
        at(url).assert_only("source.passport.upstream.base_url", &["expected: a URL"]);
    }
    let with_login = format!("https://u:{CANARY}@a");
    at(&with_login).assert_only("source.passport.upstream.base_url", &["api_key_file"]);
}

#[test]
fn a_prefix_is_kept_and_whatever_else_a_url_can_hold_is_refused_in_a_sentence() {
    let key = "source.passport.upstream.base_url";
    let at = |url: &str| gc(&LEAST.replace("https://api.notification.canada.ca", url));
    for (url, prefix) in [
        ("https://gateway.example", ""),
        ("https://gateway.example/", ""),
        ("https://gateway.example/notify", "/notify"),
        ("https://gateway.example/notify/ca//", "/notify/ca"),
        ("https://gateway.example/v2x", "/v2x"),
    ] {
        assert_eq!(at(url).upstream().base.path, prefix, "{url}");
    }
    for part in ["?a", "/?key=CANARY", "/notify?", "#", "/notify#CANARY", "/#"] {
        let url = format!("https://gateway.example{part}").replace("CANARY", CANARY);
        at(&url).assert_only(key, &["a URL with a query or a fragment", "leave out what follows"]);
    }
    for login in ["u@", "u:CANARY@", ":CANARY@"] {
        let url = format!("https://{login}gateway.example/notify").replace("CANARY", CANARY);
        at(&url).assert_only(key, &["a user or a password", "api_key_file"]);
    }
    for asked in ["/v2", "/v2/", "/notify/v2", "/v2/notifications", "/v2/received-text-messages"] {
        let last = asked.trim_end_matches('/').rsplit('/').next().unwrap();
        let words = ["the prefix before", &format!("leave out /{last}")];
        at(&format!("https://gateway.example{asked}")).assert_only(key, &words);
    }
}

#[test]
fn a_key_that_every_user_may_read_is_refused() {
    for mode in [0o644, 0o606, 0o666] {
        let case = gc(LEAST).with_key(&key(), mode);
        case.assert_only("source.passport.upstream.api_key_file", &["every user"]);
    }
    for mode in [0o400, 0o440, 0o640] {
        gc(LEAST).with_key(&key(), mode).upstream();
    }
}

#[test]
fn what_is_no_key_is_refused_without_being_quoted() {
    for content in [CANARY, "a bearer", &key().replace("-cafe", "_cafe"), "x\ny", ""] {
        let case = gc(LEAST).with_key(content, 0o600);
        case.assert_only("source.passport.upstream.api_key_file", &["key\""]);
    }
    let pasted = LEAST.replace("DIR/key", &key());
    let words = ["an API key where the name of its file belongs"];
    gc(&pasted).assert_only("source.passport.upstream.api_key_file", &words);
    gc(&LEAST.replace("key\"", "none\""))
        .assert_only("source.passport.upstream.api_key_file", &["no such file"]);
}

#[test]
fn what_is_missing_unknown_or_out_of_bounds_is_told_all_at_once() {
    let text = "every = \"15\"\nhorizon = \"1w\"\nrequests_per_minute_max = 0\nevry = \"1m\"\n";
    let problems = gc(text).load().unwrap_err();
    let mut keys: Vec<_> = problems
        .iter()
        .map(|problem| problem.key.strip_prefix("source.passport.upstream.").unwrap().to_owned())
        .collect();
    keys.sort();
    let expected =
        ["api_key_file", "base_url", "every", "evry", "horizon", "requests_per_minute_max"];
    assert_eq!(keys, expected, "{problems}");
    assert!(problems.to_string().contains("did you mean `every`?"));
    gc(&format!("{LEAST}every = \"2d\"\nhorizon = \"1d\"\n"))
        .assert_only("source.passport.upstream.every", &["2d", "the horizon"]);
    gc(&format!("{LEAST}ca_file = \"DIR/key\"\n"))
        .assert_only("source.passport.upstream.ca_file", &["PEM"]);
}

#[test]
fn without_a_store_nothing_is_asked_for() {
    let before = "[store]\nkind = \"none\"\n[[sink]]\nname = \"app\"\ntype = \"http\"\n\
                  url = \"http://127.0.0.1:3000/\"\n";
    Case::new(before, "gc-notify", LEAST)
        .assert_only("source.passport.upstream", &["store.kind", "nobody knows"]);
}

#[test]
fn no_key_is_in_any_text_of_the_settings() {
    let loaded = gc(LEAST).load().unwrap();
    let text = format!("{:?} {:?}", loaded.settings, loaded.effective);
    assert!(text.contains(SERVICE), "the control sees the rest of the key");
    assert!(!text.contains(CANARY), "{text}");
}
