//! Upstreams: where a source's platform is asked for what it never called back about, and how often.
//!
//! The bounds stand once, in `[reconcile]`; a `[source.upstream]` may set each of them for itself. An
//! API key comes from a file that not every user may read, is taken apart here, and is never quoted.
//! It goes over https or stays on this machine.

use std::net::IpAddr;
use std::time::Duration;

use super::report::{At, Checked, Found, Report, Reported};
use super::section::{Section, quoted};
use super::settings::{ClientTls, Secret};
use super::sink_secret::{from_file, tls};
use super::sink_url::{Scheme, endpoint};
use super::source::only_for;
use crate::client::Target;
use crate::forward::address::is_forbidden_literal;
use crate::provider::Provider;
use crate::provider::polled::{UUID_CHARS, is_uuid};

const SCHEMES: [Scheme; 2] = [
    Scheme { word: "https", is_tls: true, port: 443 },
    Scheme { word: "http", is_tls: false, port: 80 },
];

/// Those that can be asked: the Notify family.
const PROVIDERS: [Provider; 6] = [
    Provider::Notify,
    Provider::GcNotify,
    Provider::GovukNotify,
    Provider::UsNotify,
    Provider::VaNotify,
    Provider::NotifyNl,
];

/// The time between two rounds, in seconds: from one second to a week.
const EVERY_S: (u64, u64) = (1, 7 * 86_400);

/// How far back a platform is asked, in seconds: from a minute to a year.
const HORIZON_S: (u64, u64) = (60, 366 * 86_400);

/// What a path that was copied from a platform's documentation may end in, and is not part of the base.
const ASKED: [&str; 3] = ["/v2", "/notifications", "/received-text-messages"];

const REQUESTS_PER_MINUTE: (u64, u64) = (1, 60_000);

const ANSWER_MS: (u64, u64) = (1, 600_000);

/// A platform's read API, and how often it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Before what is asked for; its path is empty or a prefix that does not end in `/`.
    pub base: Target,
    /// Who we are.
    pub api_key: ApiKey,
    /// Of https.
    pub tls: ClientTls,
    /// From the start of a round to that of the next.
    pub every: Duration,
    /// What was created longer ago is not asked for.
    pub horizon: Duration,
    /// Requests in any minute.
    pub requests_per_minute_max: u32,
    /// For one request: its connection, with name, TCP and TLS, if there is none yet, and its whole answer.
    pub answer_ms_max: Duration,
}

/// An API key of the Notify family, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// As the platform shows it.
    pub whole: Secret,
    /// Whose it is.
    pub service_id: String,
    /// What signs.
    pub secret: Secret,
}

/// What `[reconcile]` sets for all upstreams.
#[derive(Clone)]
pub(super) struct Bounds {
    every: Found<Duration>,
    horizon: Found<Duration>,
    requests_per_minute_max: Found<u64>,
    answer_ms_max: Found<u64>,
}

/// Reads `[reconcile]`.
pub(super) fn bounds(section: &mut Section<'_>, report: &mut Report) -> Checked<Bounds> {
    let missing = "every bound has a default";
    let every = span(section, "every", EVERY_S, report);
    let horizon = span(section, "horizon", HORIZON_S, report);
    let requests = section.number("requests_per_minute_max", REQUESTS_PER_MINUTE, report);
    let answer = section.number("answer_ms_max", ANSWER_MS, report);
    Ok(Bounds {
        every: every?.expect(missing),
        horizon: horizon?.expect(missing),
        requests_per_minute_max: requests?.expect(missing),
        answer_ms_max: answer?.expect(missing),
    })
}

/// Reads `[source.upstream]`, if it is there. `no_store` says where it is said that nothing is kept.
pub(super) fn read(
    source: &mut Section<'_>,
    provider: Option<Provider>,
    bounds: &Checked<Bounds>,
    no_store: Option<&At>,
    report: &mut Report,
) -> Checked<Option<Upstream>> {
    let at = source.at_key("upstream");
    let Some(mut section) = source.section("upstream", report)? else { return Ok(None) };
    let allowed = only_for(&at, provider, &PROVIDERS, report);
    let kept = is_kept(&at, no_store, report);
    let base = base_url(&mut section, report);
    let api_key = api_key(&mut section, report);
    let is_tls = base.as_ref().ok().map(|base| base.is_https);
    let tls = tls(&mut section, is_tls, "`base_url` begins with https://", report);
    let own = own_bounds(&mut section, bounds, report);
    section.finish(report);
    allowed?;
    kept?;
    let Bounds { every, horizon, requests_per_minute_max, answer_ms_max } = own?;
    let requests = u32::try_from(requests_per_minute_max.value);
    Ok(Some(Upstream {
        base: base?,
        api_key: api_key?,
        tls: tls?,
        every: every.value,
        horizon: horizon.value,
        requests_per_minute_max: requests.expect("the upper bound fits"),
        answer_ms_max: Duration::from_millis(answer_ms_max.value),
    }))
}

fn is_kept(at: &At, no_store: Option<&At>, report: &mut Report) -> Checked<()> {
    if no_store.is_none() {
        return Ok(());
    }
    let hint = "without a store nobody knows what never came";
    let expected = "no upstream, because store.kind is \"none\"";
    Err(report.problem_hinted(at, "an upstream", expected, Some(hint.into())))
}

/// The bounds of one upstream: its own, else those of `[reconcile]`.
fn own_bounds(
    section: &mut Section<'_>,
    bounds: &Checked<Bounds>,
    report: &mut Report,
) -> Checked<Bounds> {
    let every = span(section, "every", EVERY_S, report);
    let horizon = span(section, "horizon", HORIZON_S, report);
    let requests = section.number("requests_per_minute_max", REQUESTS_PER_MINUTE, report);
    let answer = section.number("answer_ms_max", ANSWER_MS, report);
    let of_all = bounds.as_ref().map_err(|reported| *reported)?;
    let own = Bounds {
        every: or(section, "every", every?, &of_all.every, in_words, report),
        horizon: or(section, "horizon", horizon?, &of_all.horizon, in_words, report),
        requests_per_minute_max: or(
            section,
            "requests_per_minute_max",
            requests?,
            &of_all.requests_per_minute_max,
            serde_json::Value::from,
            report,
        ),
        answer_ms_max: or(
            section,
            "answer_ms_max",
            answer?,
            &of_all.answer_ms_max,
            serde_json::Value::from,
            report,
        ),
    };
    if own.every.value > own.horizon.value {
        let expected = "at most the horizon: what is older is not asked for";
        let found = in_words(own.every.value);
        return Err(report.problem(&own.every.at, found.to_string(), expected));
    }
    Ok(own)
}

/// What the section says, or what holds for all, which is then in force here too.
fn or<T: Copy>(
    section: &Section<'_>,
    name: &str,
    own: Option<Found<T>>,
    of_all: &Found<T>,
    shown: impl Fn(T) -> serde_json::Value,
    report: &mut Report,
) -> Found<T> {
    own.unwrap_or_else(|| {
        let at = At { key: section.at_key(name).key, origin: of_all.at.origin.clone() };
        report.effective(&at, shown(of_all.value));
        Found { value: of_all.value, at }
    })
}

/// A number and a unit.
fn span(
    section: &mut Section<'_>,
    name: &'static str,
    (least_s, most_s): (u64, u64),
    report: &mut Report,
) -> Checked<Option<Found<Duration>>> {
    let Some(Found { value: text, at }) = section.text(name, report)? else { return Ok(None) };
    let seconds = seconds(&text).filter(|seconds| (least_s..=most_s).contains(seconds));
    match seconds {
        Some(seconds) => Ok(Some(Found { value: Duration::from_secs(seconds), at })),
        None => {
            let [least, most] = [least_s, most_s].map(|s| in_words(Duration::from_secs(s)));
            let expected = format!("a number and s, m, h or d, from {least} to {most}");
            Err(report.problem(&at, quoted(&text), expected))
        }
    }
}

fn seconds(text: &str) -> Option<u64> {
    let unit = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3_600,
        b'd' => 86_400,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    if is_number { number.parse::<u64>().ok()?.checked_mul(unit) } else { None }
}

/// As it would be written.
fn in_words(span: Duration) -> serde_json::Value {
    let seconds = span.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    let (unit, word) = unit.unwrap_or((1, "s"));
    format!("{}{word}", seconds / unit).into()
}

fn base_url(section: &mut Section<'_>, report: &mut Report) -> Checked<Target> {
    let expected = "a URL, such as \"https://api.notification.canada.ca\"";
    let at = section.at_key("base_url");
    let Some(url) = section.quiet_text("base_url", report)? else {
        return Err(report.problem(&at, "nothing", expected));
    };
    let login = "the key belongs in api_key_file";
    let endpoint = endpoint(&url, &SCHEMES, expected, login, report)?;
    if !endpoint.is_tls && !is_here(&endpoint.host) {
        let hint = "over http anybody on the way could read the key and what the platform says";
        let expected = "https, or a loopback address";
        return Err(report.problem_hinted(&at, quoted(&url.value), expected, Some(hint.into())));
    }
    if is_forbidden_literal(&endpoint.host) {
        let hint = "it is an address of the link, of many hosts, or of none, or a cloud's own";
        let expected = "a host at which a platform may be";
        return Err(report.problem_hinted(&at, quoted(&url.value), expected, Some(hint.into())));
    }
    let Ok(mut base) = Target::parse(&url.value) else {
        return Err(report.problem(&at, quoted(&url.value), expected));
    };
    // What is asked for begins with a slash.
    base.path.truncate(base.path.trim_end_matches('/').len());
    if let Some(asked) = ASKED.iter().find(|asked| base.path.ends_with(**asked)) {
        let expected = "the host and, behind a gateway, the prefix before what is asked for";
        let hint = format!("leave out {asked}: it is put behind base_url");
        return Err(report.problem_hinted(&at, quoted(&url.value), expected, Some(hint)));
    }
    report.effective(&at, url.value.as_str());
    Ok(base)
}

/// Whether what is sent there stays on this machine. No name says so but `localhost`: any other leads where
/// its DNS says.
fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn api_key(section: &mut Section<'_>, report: &mut Report) -> Checked<ApiKey> {
    let expected = "a file with the API key";
    let at = section.at_key("api_key_file");
    let Some(file) = section.quiet_text("api_key_file", report)? else {
        return Err(report.problem(&at, "nothing", expected));
    };
    if take_apart(file.value.trim()).is_some() {
        let hint = "write it into a file that only this user may read, and name that file";
        let found = "an API key where the name of its file belongs";
        return Err(report.problem_hinted(&at, found, expected, Some(hint.into())));
    }
    let Secret(bytes) = from_file(&file, report)?;
    let key = std::str::from_utf8(&bytes).ok().and_then(take_apart);
    let Some(key) = key else { return Err(no_key(&file, report)) };
    report.effective(&at, file.value.as_str());
    Ok(key)
}

fn no_key(file: &Found<String>, report: &mut Report) -> Reported {
    let found = format!("{}: it holds something else", quoted(&file.value));
    let expected = "an API key as the platform shows it once, on one line: its name, the id of the \
                    service and the secret, with - between them";
    report.problem(&file.at, found, expected)
}

/// `{name}-{service_id}-{secret}`; the latter two are UUIDs, and the name may hold anything that a
/// header can.
fn take_apart(text: &str) -> Option<ApiKey> {
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let (rest, secret) = text.split_at_checked(text.len().checked_sub(UUID_CHARS)?)?;
    let rest = rest.strip_suffix('-')?;
    let (name, service_id) = rest.split_at_checked(rest.len().checked_sub(UUID_CHARS)?)?;
    let is_key = is_uuid(secret) && is_uuid(service_id) && is_plain(name) && name.ends_with('-');
    is_key.then(|| ApiKey {
        whole: Secret(text.as_bytes().to_vec()),
        service_id: service_id.to_owned(),
        secret: Secret(secret.as_bytes().to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "26785a09-ab16-4eb0-8407-a37497a57506";
    const SECRET: &str = "3d844edf-8d35-48ac-975b-e847b4f122b0";

    #[test]
    fn a_key_is_taken_apart_from_its_end() {
        for name in ["live", "gcntfy-a name-with-dashes", ID] {
            let key = take_apart(&format!("{name}-{ID}-{SECRET}")).unwrap();
            assert_eq!((key.service_id.as_str(), &*key.secret.0), (ID, SECRET.as_bytes()));
        }
        for wrong in ["", "key", SECRET, &format!("{ID}-{SECRET}"), &format!("a{ID}-{SECRET}")] {
            assert!(take_apart(wrong).is_none(), "{wrong}");
        }
        assert!(take_apart(&format!("a\nb-{ID}-{SECRET}")).is_none());
        assert!(take_apart(&format!("é-{ID}-{SECRET}")).is_none());
    }

    #[test]
    fn a_span_is_a_number_and_a_unit_and_is_written_back() {
        for (text, expected) in [("90s", 90), ("15m", 900), ("1h", 3_600), ("7d", 604_800)] {
            assert_eq!(seconds(text), Some(expected));
            assert_eq!(in_words(Duration::from_secs(expected)), text);
        }
        for wrong in ["", "m", "15", "-1m", "+1m", "1.5h", "1 h", "1w", "99999999999999999999d"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_an_address_of_loopback_is_here() {
        assert!(["127.0.0.1", "127.9.9.9", "::1", "localhost"].into_iter().all(is_here));
        assert!(!["10.0.0.1", "::2", "localhost.example", "0.0.0.0"].into_iter().any(is_here));
    }
}
