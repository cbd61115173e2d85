//! Asking platforms for what never came, against an imitation of their read API on real sockets.

mod platform;
#[path = "../support/mod.rs"]
mod support;

mod by_hand;
mod expected;
mod healing;
mod lists;
mod parts;
mod pruned;
mod reload;
mod silence;
mod troubles;
mod unreadable;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use platform::{Kind, Platform, key};
use rcgen::{CertificateParams, KeyPair};
use support::{PATH, Receiptd, SOURCE, Setup, TOKEN, eventually, metric, open, post, rows, source};

/// A receiver whose one source has that platform, asked every second.
pub fn setup(platform: &Platform, kind: Kind) -> Setup {
    setup_with(platform, kind, "")
}

/// The same with these lines in the upstream.
pub fn setup_with(platform: &Platform, kind: Kind, lines: &str) -> Setup {
    let provider = match kind {
        Kind::Govuk => "govuk-notify",
        Kind::Gc => "gc-notify",
        Kind::Us => "us-notify",
    };
    let mut setup = Setup::with_sources(&source(SOURCE, provider, &[("live", TOKEN)]));
    setup.sources.push_str(&upstream(&setup, platform, lines));
    setup
}

/// The section of an upstream at that platform.
pub fn upstream(setup: &Setup, platform: &Platform, lines: &str) -> String {
    let file = setup.path("api-key");
    fs::write(&file, key()).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let every = if lines.contains("every") { "" } else { "every = \"1s\"\n" };
    let scheme = if lines.contains("cert_file") { "https" } else { "http" };
    let requests = if lines.contains("requests") { "" } else { "requests_per_minute_max = 6000\n" };
    format!(
        "[source.upstream]\nbase_url = \"{scheme}://{}\"\napi_key_file = {file:?}\n{every}{requests}{lines}\n",
        platform.address
    )
}

/// The lines of an upstream over TLS with a certificate and a key that is not its own.
pub fn no_identity(setup: &Setup) -> String {
    let certificate = CertificateParams::default().self_signed(&KeyPair::generate().unwrap());
    let files = [
        ("cert_file", "client.pem", certificate.unwrap().pem()),
        ("key_file", "client.key", KeyPair::generate().unwrap().serialize_pem()),
    ];
    let line = |(name, file, pem): (&str, &str, String)| {
        let path = setup.path(file);
        fs::write(&path, pem).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        format!("{name} = {path:?}\n")
    };
    files.map(line).concat()
}

/// When the platform was last asked for everything.
pub fn last_success(server: &Receiptd) -> f64 {
    let series =
        format!("receiptd_reconcile_last_success_timestamp_seconds{{source=\"{SOURCE}\"}}");
    metric(&server.metrics(), &series).unwrap()
}

/// Waits until a round has succeeded that began after this call.
pub fn round(server: &Receiptd) {
    for _ in 0..2 {
        let before = last_success(server);
        eventually("another round", || last_success(server) > before);
    }
    server.settled();
}

/// The number of that series, by its labels behind the source.
pub fn counted(server: &Receiptd, name: &str, label: &str) -> f64 {
    let series = format!("receiptd_reconcile_{name}_total{{source=\"{SOURCE}\",{label}}}");
    metric(&server.metrics(), &series).unwrap_or_else(|| panic!("no {series}"))
}

/// Status and where it was reached, of each notification.
pub fn statuses(setup: &Setup) -> Vec<String> {
    rows(&open(&setup.state()), "SELECT id, status FROM notification ORDER BY id")
}

/// Entries of the journal by how they came.
pub fn entries(setup: &Setup, origin: i64) -> i64 {
    let sql = format!("SELECT count(*) FROM callback WHERE origin = {origin}");
    open(&setup.journal()).query_row(&sql, [], |row| row.get(0)).unwrap()
}

/// Posts a callback; it must be taken.
pub fn call_back(server: &Receiptd, body: &str) {
    assert_eq!(server.ask(post(PATH, TOKEN, body)).status, 204);
    server.settled();
}
