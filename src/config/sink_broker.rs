//! The sinks that are brokers: NATS JetStream, RabbitMQ, Redis streams.

use super::report::{Checked, Found, Report};
use super::section::{Section, quoted};
#[cfg(feature = "sink-amqp")]
use super::settings::AmqpSink;
use super::settings::Endpoint;
#[cfg(feature = "sink-nats")]
use super::settings::NatsSink;
#[cfg(feature = "sink-redis")]
use super::settings::RedisSink;
#[cfg(any(feature = "sink-nats", feature = "sink-redis"))]
use super::sink::by_default;
use super::sink_secret;
use super::sink_url::{Scheme, endpoint};

/// The first word of the subjects of NATS, and the stream of Redis, where a sink does not say; the
/// embedded file documents it.
#[cfg(any(feature = "sink-nats", feature = "sink-redis"))]
const NAME_DEFAULT: &str = "receiptd";

const LOGIN: &str = "they belong in `user` and `password_file`";

/// Reads a nats sink.
#[cfg(feature = "sink-nats")]
pub(super) fn nats(section: &mut Section<'_>, report: &mut Report) -> Checked<NatsSink> {
    let servers = nats_servers(section, report);
    let subject = subject(section, report);
    let stream = section.text("stream", report).and_then(|stream| {
        let stream = stream.map(|stream| stream_name(stream, report));
        stream.transpose()
    });
    let login = sink_secret::login(section, None, report);
    let token = sink_secret::secret(section, "token_file", report);
    let is_tls = servers.as_ref().ok().map(|servers| servers[0].is_tls);
    let tls = sink_secret::tls(section, is_tls, "`url` begins with tls://", report);
    let (login, token) = (login?, token?);
    if let (Some(_), Some(token)) = (&login, &token) {
        let found = "token_file beside user and password_file";
        return Err(report.problem(&token.at, found, "one way to log in"));
    }
    Ok(NatsSink {
        servers: servers?,
        subject: subject?,
        stream: stream?,
        login,
        token: token.map(|token| token.value),
        tls: tls?,
    })
}

/// One URL or several, of one cluster.
#[cfg(feature = "sink-nats")]
fn nats_servers(section: &mut Section<'_>, report: &mut Report) -> Checked<Vec<Endpoint>> {
    const SCHEMES: [Scheme; 2] = [
        Scheme { word: "nats", is_tls: false, port: 4222 },
        Scheme { word: "tls", is_tls: true, port: 4222 },
    ];
    let expected = "a URL, such as \"nats://127.0.0.1:4222\", or a list of them";
    let at = section.at_key("url");
    let urls = match section.take("url").map(|value| &value.kind) {
        Some(super::document::Kind::List(_)) => section.quiet_texts("url", report)?,
        _ => section.quiet_text("url", report)?.map(|url| vec![url]),
    };
    let Some(urls) = urls else { return Err(report.problem(&at, "nothing", expected)) };
    let read: Vec<Checked<Endpoint>> = urls
        .iter()
        .map(|url| {
            let endpoint = endpoint(url, &SCHEMES, expected, LOGIN, report)?;
            match endpoint.path.is_empty() {
                true => Ok(endpoint),
                false => Err(report.problem(&url.at, quoted(&url.value), "a URL without a path")),
            }
        })
        .collect();
    let servers: Vec<Endpoint> = read.into_iter().collect::<Checked<_>>()?;
    if servers.iter().any(|server| server.is_tls != servers[0].is_tls) {
        return Err(report.problem(&at, "nats:// and tls://", "the same for all servers"));
    }
    let names: Vec<&str> = urls.iter().map(|url| url.value.as_str()).collect();
    report.effective(&at, names);
    Ok(servers)
}

/// What subjects begin with: words of visible characters, parted by dots, without wildcards.
#[cfg(feature = "sink-nats")]
fn subject(section: &mut Section<'_>, report: &mut Report) -> Checked<String> {
    let Some(Found { value, at }) = section.text("subject", report)? else {
        by_default(section, "subject", NAME_DEFAULT, report);
        return Ok(NAME_DEFAULT.to_owned());
    };
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>')
    };
    if value.len() <= 128 && !value.starts_with('$') && value.split('.').all(is_word) {
        return Ok(value);
    }
    let expected = "words parted by dots, without spaces, * and >, such as \"receiptd\"";
    Err(report.problem(&at, quoted(&value), expected))
}

/// JetStream takes no dots, spaces or wildcards in the name of a stream.
#[cfg(feature = "sink-nats")]
fn stream_name(Found { value, at }: Found<String>, report: &mut Report) -> Checked<String> {
    let is_char = |b: u8| b.is_ascii_graphic() && !b".*>/\\".contains(&b);
    match value.bytes().all(is_char) {
        true => Ok(value),
        false => Err(report.problem(&at, quoted(&value), "the name of a stream of JetStream")),
    }
}

/// Reads an amqp sink.
#[cfg(feature = "sink-amqp")]
pub(super) fn amqp(section: &mut Section<'_>, report: &mut Report) -> Checked<AmqpSink> {
    const SCHEMES: [Scheme; 2] = [
        Scheme { word: "amqp", is_tls: false, port: 5672 },
        Scheme { word: "amqps", is_tls: true, port: 5671 },
    ];
    let expected = "a URL, such as \"amqp://127.0.0.1:5672/vhost\"";
    let to_key = section.at_key("exchange");
    let at = one_url(section, &SCHEMES, expected, report);
    let exchange = short(section, "exchange", report);
    let routing_key = short(section, "routing_key", report);
    let login = sink_secret::required_login(section, report);
    let is_tls = at.as_ref().ok().map(|at| at.is_tls);
    let tls = sink_secret::tls(section, is_tls, "`url` begins with amqps://", report);
    let (exchange, routing_key) = (exchange?, routing_key?);
    if exchange.is_none() && routing_key.is_none() {
        let hint = "without an exchange, routing_key is the name of the queue";
        let expected = "exchange or routing_key or both";
        return Err(report.problem_hinted(&to_key, "neither", expected, Some(hint.into())));
    }
    Ok(AmqpSink {
        at: at?,
        exchange: exchange.unwrap_or_default(),
        routing_key,
        login: login?,
        tls: tls?,
    })
}

/// Text of at most 255 bytes: AMQP has one byte for its length.
#[cfg(feature = "sink-amqp")]
fn short(
    section: &mut Section<'_>,
    name: &'static str,
    report: &mut Report,
) -> Checked<Option<String>> {
    let Some(Found { value, at }) = section.text(name, report)? else { return Ok(None) };
    match u8::try_from(value.len()) {
        Ok(_) => Ok(Some(value)),
        Err(_) => {
            let found = format!("{} bytes", value.len());
            Err(report.problem(&at, found, "at most 255 bytes"))
        }
    }
}

/// Reads a redis sink.
#[cfg(feature = "sink-redis")]
pub(super) fn redis(section: &mut Section<'_>, report: &mut Report) -> Checked<RedisSink> {
    const SCHEMES: [Scheme; 2] = [
        Scheme { word: "redis", is_tls: false, port: 6379 },
        Scheme { word: "rediss", is_tls: true, port: 6379 },
    ];
    let expected = "a URL, such as \"redis://127.0.0.1:6379/0\"";
    let url = section.at_key("url");
    let at = one_url(section, &SCHEMES, expected, report);
    let database = at.as_ref().map_err(|reported| *reported).and_then(|at| {
        database(&at.path).ok_or_else(|| {
            report.problem(
                &url,
                quoted(&at.path),
                "the number of a database, or nothing, after the host",
            )
        })
    });
    let stream = section.text("stream", report).map(|stream| match stream {
        Some(stream) => stream.value,
        None => {
            by_default(section, "stream", NAME_DEFAULT, report);
            NAME_DEFAULT.to_owned()
        }
    });
    let entries_max = section.number("entries_max", (1, 1 << 53), report);
    let login = sink_secret::login(section, Some("default"), report);
    let is_tls = at.as_ref().ok().map(|at| at.is_tls);
    let tls = sink_secret::tls(section, is_tls, "`url` begins with rediss://", report);
    Ok(RedisSink {
        at: at?,
        database: database?,
        stream: stream?,
        entries_max: entries_max?.map(|found| found.value),
        login: login?,
        tls: tls?,
    })
}

#[cfg(feature = "sink-redis")]
fn database(path: &str) -> Option<i64> {
    match path {
        "" => Some(0),
        digits => digits.parse::<u16>().ok().map(i64::from),
    }
}

/// The only URL there is.
#[cfg(any(feature = "sink-amqp", feature = "sink-redis"))]
fn one_url(
    section: &mut Section<'_>,
    schemes: &[Scheme],
    expected: &str,
    report: &mut Report,
) -> Checked<Endpoint> {
    let at = section.at_key("url");
    let Some(url) = section.quiet_text("url", report)? else {
        return Err(report.problem(&at, "nothing", expected));
    };
    let endpoint = endpoint(&url, schemes, expected, LOGIN, report)?;
    report.effective(&at, url.value);
    Ok(endpoint)
}
