//! From the merged document to [`Settings`]: everything but sources and sinks.
//!
//! Every section is read to its end before any result is used, so that a problem in one does not
//! hide those of another.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::document::Table;
use super::files;
use super::report::{Checked, Found, Report, Reported, did_you_mean};
use super::section::{Section, quoted};
use super::settings::{Limits, Log, LogFormat, Settings, Store, StoreKind, Tls};
use super::sink_file::folder_of;
use super::{sink, source, upstream};
use crate::clock::Timestamp;

/// Bytes of a PEM file with certificates or a key.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Reads the whole document.
pub(super) fn settings(
    document: &Table,
    default_paths: &[String],
    now: Timestamp,
    report: &mut Report,
) -> Checked<Settings> {
    let mut root = Section::root(document, default_paths);
    let listen = address(&mut root, "listen", report);
    let admin_listen = address(&mut root, "admin_listen", report);
    if let (Ok(listen), Ok(admin_listen)) = (&listen, &admin_listen) {
        two_listeners(listen, admin_listen, report);
    }
    let store = within(&mut root, "store", report, store);
    let forward = within(&mut root, "forward", report, sink::bounds);
    let reconcile = within(&mut root, "reconcile", report, upstream::bounds);
    let limits = within(&mut root, "limits", report, limits);
    let log = within(&mut root, "log", report, log);
    let tls = match root.section("tls", report) {
        Ok(section) => section.map(|section| tls(section, report)).transpose(),
        Err(reported) => Err(reported),
    };
    let known = sink::Known::of(document);
    let asked = (&reconcile, known.no_store.as_ref());
    let sources = source::sources(&mut root, now.date(), asked, report);
    let sinks = sink::sinks(&mut root, &forward, &known, report);
    root.finish(report);
    reconcile?;
    Ok(Settings {
        listen: listen?.value,
        admin_listen: admin_listen?.value,
        store: store?,
        sources: sources?,
        limits: limits?,
        tls: tls?,
        log: log?,
        sinks: sinks?,
    })
}

/// Reads a section of the defaults to its end.
fn within<T>(
    root: &mut Section<'_>,
    name: &'static str,
    report: &mut Report,
    read: fn(&mut Section<'_>, &mut Report) -> Checked<T>,
) -> Checked<T> {
    let mut section = root.section(name, report)?.expect("a section of the defaults is there");
    let value = read(&mut section, report);
    section.finish(report);
    value
}

fn address(
    root: &mut Section<'_>,
    name: &'static str,
    report: &mut Report,
) -> Checked<Found<SocketAddr>> {
    let expected = "an IP address and a port, such as 127.0.0.1:8080";
    let Found { value: text, at } = root.required_text(name, expected, report)?;
    text.parse().map(|value| Found { value, at: at.clone() }).map_err(|_| {
        let port = text.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        let hint = match port {
            Some(port) if text.starts_with("localhost:") => Some(format!("write 127.0.0.1:{port}")),
            Some(port) => Some(format!("0.0.0.0:{port} listens on every IPv4 address")),
            None => None,
        };
        report.problem_hinted(&at, quoted(&text), expected, hint)
    })
}

/// Two listeners cannot share a port on one address, nor on an address and all addresses.
fn two_listeners(listen: &Found<SocketAddr>, admin: &Found<SocketAddr>, report: &mut Report) {
    let (a, b) = (listen.value, admin.value);
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    if a.port() == b.port() && a.port() != 0 && overlap {
        let found =
            format!("{}, and `listen` is {}", quoted(&b.to_string()), quoted(&a.to_string()));
        report.problem(&admin.at, found, "a port of its own");
    }
}

fn store(section: &mut Section<'_>, report: &mut Report) -> Checked<Store> {
    let kinds = [("sqlite", StoreKind::Sqlite), (sink::NO_STORE, StoreKind::None)];
    let kind = one_of(section, "kind", &kinds, report);
    let is_used = matches!(kind, Ok(StoreKind::Sqlite));
    let path = store_path(section, is_used, report);
    let free_bytes_min = bound(section, "free_bytes_min", (0, 1 << 50), report);
    let reserve_bytes = bound(section, "reserve_bytes", (0, 1 << 40), report);
    let network_file_system = section.truth("network_file_system", report);
    Ok(Store {
        kind: kind?,
        path: path?,
        free_bytes_min: free_bytes_min?,
        reserve_bytes: reserve_bytes?,
        network_file_system: network_file_system?,
    })
}

/// The journal's name is made from this one, so it must end in a way that leaves room for that.
/// `is_used`: whether there is a store, whose folder must be there.
fn store_path(section: &mut Section<'_>, is_used: bool, report: &mut Report) -> Checked<PathBuf> {
    let expected = "a path ending in .db";
    let Found { value: text, at } = section.required_text("path", expected, report)?;
    let path = PathBuf::from(&text);
    let hint = if text.ends_with(".callbacks.db") {
        "that is the name of a journal; name the state file, without \".callbacks\""
    } else if path.extension().is_none_or(|extension| extension != "db") || text.ends_with('/') {
        "the journal stands beside it, with .db replaced by .callbacks.db"
    } else {
        let folder = folder_of(&path);
        let is_missing =
            fs::metadata(folder).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if is_used && is_missing {
            // A service manager may make it at the start.
            report.warning(
                &at,
                format!(
                    "there is no folder {}: it must be there when a receiver starts",
                    folder.display()
                ),
            );
        }
        return Ok(path);
    };
    Err(report.problem_hinted(&at, quoted(&text), expected, Some(hint.into())))
}

/// A number of the defaults, so it is always there.
pub(super) fn bound(
    section: &mut Section<'_>,
    name: &'static str,
    range: (u64, u64),
    report: &mut Report,
) -> Checked<u64> {
    section.number(name, range, report).map(|found| found.expect("it has a default").value)
}

/// A count or a number of bytes that something of ours is held to.
fn size(
    section: &mut Section<'_>,
    name: &'static str,
    range: (u64, u64),
    report: &mut Report,
) -> Checked<usize> {
    let number = bound(section, name, range, report)?;
    Ok(usize::try_from(number).expect("the upper bounds fit into memory"))
}

/// A time limit.
fn ms(section: &mut Section<'_>, name: &'static str, report: &mut Report) -> Checked<Duration> {
    /// Ten minutes: longer than anyone here waits for anything.
    const MS_MAX: u64 = 600_000;
    bound(section, name, (1, MS_MAX), report).map(Duration::from_millis)
}

fn limits(section: &mut Section<'_>, report: &mut Report) -> Checked<Limits> {
    // hyper panics when told to make do with less than 8192 bytes of head.
    let connections_max = size(section, "connections_max", (1, 1_000_000), report);
    let header_bytes_max = size(section, "header_bytes_max", (8_192, 1 << 20), report);
    let body_bytes_max = size(section, "body_bytes_max", (1, 64 << 20), report);
    let handshake_ms_max = ms(section, "handshake_ms_max", report);
    let header_ms_max = ms(section, "header_ms_max", report);
    let body_ms_max = ms(section, "body_ms_max", report);
    let idle_ms_max = ms(section, "idle_ms_max", report);
    let queue_callbacks_max = size(section, "queue_callbacks_max", (1, 1 << 24), report);
    let queue_bytes_max = size(section, "queue_bytes_max", (1, 1 << 30), report);
    let batch_callbacks_max = size(section, "batch_callbacks_max", (1, 1 << 20), report);
    let ack_wait_ms_max = ms(section, "ack_wait_ms_max", report);
    let settle_callbacks_max = size(section, "settle_callbacks_max", (1, 1 << 20), report);
    let drain_ms_max = ms(section, "drain_ms_max", report);
    let limits = Limits {
        connections_max: connections_max?,
        header_bytes_max: header_bytes_max?,
        body_bytes_max: body_bytes_max?,
        handshake_ms_max: handshake_ms_max?,
        header_ms_max: header_ms_max?,
        body_ms_max: body_ms_max?,
        idle_ms_max: idle_ms_max?,
        queue_callbacks_max: queue_callbacks_max?,
        queue_bytes_max: queue_bytes_max?,
        batch_callbacks_max: batch_callbacks_max?,
        ack_wait_ms_max: ack_wait_ms_max?,
        settle_callbacks_max: settle_callbacks_max?,
        drain_ms_max: drain_ms_max?,
    };
    together(section, &limits, report);
    Ok(limits)
}

/// What no bound can say alone.
fn together(section: &Section<'_>, limits: &Limits, report: &mut Report) {
    if limits.ack_wait_ms_max >= limits.drain_ms_max {
        let found = limits.ack_wait_ms_max.as_millis().to_string();
        let drain = limits.drain_ms_max.as_millis();
        let expected = format!("less than limits.drain_ms_max, which is {drain}");
        let hint = "otherwise stopping cuts off requests that still wait for their commit";
        let at = section.at_key("ack_wait_ms_max");
        report.problem_hinted(&at, found, expected, Some(hint.into()));
    }
    if limits.queue_bytes_max < limits.body_bytes_max {
        let found = limits.queue_bytes_max.to_string();
        let body = limits.body_bytes_max;
        let expected = format!("at least limits.body_bytes_max, which is {body}");
        let hint = "otherwise a body of the allowed size never fits and is answered 503 for ever";
        let at = section.at_key("queue_bytes_max");
        report.problem_hinted(&at, found, expected, Some(hint.into()));
    }
}

fn log(section: &mut Section<'_>, report: &mut Report) -> Checked<Log> {
    use tracing::Level;
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    let format = one_of(section, "format", &formats, report);
    let level = one_of(section, "level", &levels, report);
    Ok(Log { format: format?, level: level? })
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(
    section: &mut Section<'_>,
    name: &'static str,
    words: &[(&str, T)],
    report: &mut Report,
) -> Checked<T> {
    let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let expected = format!("one of {}", list.join(", "));
    let Found { value: text, at } = section.required_text(name, &expected, report)?;
    let meant = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
    meant.ok_or_else(|| {
        let hint = did_you_mean(&text.to_lowercase(), list);
        report.problem_hinted(&at, quoted(&text), expected, hint)
    })
}

fn tls(mut section: Section<'_>, report: &mut Report) -> Checked<Tls> {
    let cert_file = section.required_text("cert_file", CERTIFICATES, report);
    let key_file = section.required_text("key_file", KEY, report);
    let client_ca_file = section.text("client_ca_file", report);
    section.finish(report);
    let cert_file = cert_file.and_then(|found| pem(&found, CERTIFICATES, report));
    let key_file = key_file.and_then(|found| pem(&found, KEY, report));
    let client_ca_file = client_ca_file
        .and_then(|found| found.map(|found| pem(&found, CERTIFICATES, report)).transpose());
    Ok(Tls { cert_file: cert_file?, key_file: key_file?, client_ca_file: client_ca_file? })
}

pub(super) const CERTIFICATES: &str = "a readable PEM file with certificates";
pub(super) const KEY: &str = "a readable PEM file with a private key";

/// A PEM file that holds what it is configured for. Read only to find mistakes early:
/// `receive::tls` reads it itself, again whenever it changes.
pub(super) fn pem(found: &Found<String>, expected: &str, report: &mut Report) -> Checked<PathBuf> {
    let path = PathBuf::from(&found.value);
    let holds = |bytes: Vec<u8>| match expected {
        KEY => PrivateKeyDer::from_pem_slice(&bytes).map(drop),
        _ => CertificateDer::from_pem_slice(&bytes).map(drop),
    };
    let read = files::read(&path, PEM_BYTES_MAX).map_err(|fault| fault.to_string());
    match read.and_then(|bytes| holds(bytes).map_err(|_| "there is none in it".into())) {
        Ok(()) => Ok(path),
        Err(fault) => Err(unusable_file(found, &fault, expected, report)),
    }
}

/// The problem of a file that cannot be used.
pub(super) fn unusable_file(
    file: &Found<String>,
    fault: &str,
    expected: &str,
    report: &mut Report,
) -> Reported {
    report.problem(&file.at, format!("{}: {fault}", quoted(&file.value)), expected)
}
