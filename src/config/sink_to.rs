//! What a sink is, and where: one word for its type, and the keys that only some types have.
//!
//! A key of another type is told apart from one that nobody knows, and a type that this build was
//! made without from one that does not exist.

use super::check::one_of;
use super::report::{Checked, Report};
use super::section::{Section, quoted};
use super::settings::To;
use super::sink::{Known, by_default};
#[cfg(any(feature = "sink-nats", feature = "sink-amqp", feature = "sink-redis"))]
use super::sink_broker;
#[cfg(feature = "sink-postgres")]
use super::sink_postgres;
#[cfg(feature = "sink-sqs")]
use super::sink_sqs;
use super::{sink_file, sink_http};

/// A type of sink.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Http,
    File,
    Stdout,
    Nats,
    Amqp,
    Redis,
    Sqs,
    Postgres,
}

impl Type {
    const ALL: [Self; 8] = [
        Self::Http,
        Self::File,
        Self::Stdout,
        Self::Nats,
        Self::Amqp,
        Self::Redis,
        Self::Sqs,
        Self::Postgres,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::File => "file",
            Self::Stdout => "stdout",
            Self::Nats => "nats",
            Self::Amqp => "amqp",
            Self::Redis => "redis",
            Self::Sqs => "sqs",
            Self::Postgres => "postgres",
        }
    }

    fn is_built_in(self) -> bool {
        match self {
            Self::Http | Self::File | Self::Stdout => true,
            Self::Nats => cfg!(feature = "sink-nats"),
            Self::Amqp => cfg!(feature = "sink-amqp"),
            Self::Redis => cfg!(feature = "sink-redis"),
            Self::Sqs => cfg!(feature = "sink-sqs"),
            Self::Postgres => cfg!(feature = "sink-postgres"),
        }
    }
}

/// The keys that not every type has, and the types that have them.
const KEYS: [(&str, &[Type]); 27] = {
    use Type::{Amqp, File, Http, Nats, Postgres, Redis, Sqs};
    const HOSTS: &[Type] = &[Http, Nats, Amqp, Redis, Postgres];
    const LOGINS: &[Type] = &[Nats, Amqp, Redis, Postgres];
    [
        ("url", HOSTS),
        ("ca_file", HOSTS),
        ("cert_file", HOSTS),
        ("key_file", HOSTS),
        ("format", &[Http]),
        ("secret_files", &[Http]),
        ("bearer_file", &[Http]),
        ("headers", &[Http]),
        ("path", &[File]),
        ("file_bytes_max", &[File]),
        ("files_max", &[File]),
        ("user", LOGINS),
        ("password_file", LOGINS),
        ("token_file", &[Nats]),
        ("subject", &[Nats]),
        ("stream", &[Nats, Redis]),
        ("exchange", &[Amqp]),
        ("routing_key", &[Amqp]),
        ("entries_max", &[Redis]),
        ("queue_url", &[Sqs]),
        ("region", &[Sqs]),
        ("endpoint_url", &[Sqs]),
        ("access_key_id", &[Sqs]),
        ("secret_access_key_file", &[Sqs]),
        ("tls", &[Postgres]),
        ("schema", &[Postgres]),
        ("create_tables", &[Postgres]),
    ]
};

/// Reads the type of a sink and whatever that type needs.
pub(super) fn read(section: &mut Section<'_>, known: &Known, report: &mut Report) -> Checked<To> {
    let words = Type::ALL.map(|kind| (kind.word(), kind));
    let kind =
        one_of(section, "type", &words, report).and_then(|kind| built_in(kind, section, report));
    let to = kind.and_then(|kind| {
        let to = of_type(kind, section, report);
        durable(kind, section, known, report)?;
        to
    });
    misplaced(kind.ok(), section, report);
    to
}

/// Refuses a type whose client was left out when this binary was built.
fn built_in(kind: Type, section: &Section<'_>, report: &mut Report) -> Checked<Type> {
    if kind.is_built_in() {
        return Ok(kind);
    }
    let word = kind.word();
    let all = Type::ALL.into_iter().filter(|kind| kind.is_built_in()).map(Type::word);
    let found = format!("{}; this build has no {word}", quoted(word));
    let expected = format!("a type this build has: {}", all.collect::<Vec<_>>().join(", "));
    let hint = Some(format!("build with --features sink-{word}"));
    Err(report.problem_hinted(&section.at_key("type"), found, expected, hint))
}

fn of_type(kind: Type, section: &mut Section<'_>, report: &mut Report) -> Checked<To> {
    match kind {
        Type::Http => sink_http::read(section, report).map(To::Http),
        Type::File => sink_file::read(section, report).map(To::File),
        Type::Stdout => Ok(To::Stdout),
        #[cfg(feature = "sink-nats")]
        Type::Nats => sink_broker::nats(section, report).map(To::Nats),
        #[cfg(feature = "sink-amqp")]
        Type::Amqp => sink_broker::amqp(section, report).map(To::Amqp),
        #[cfg(feature = "sink-redis")]
        Type::Redis => sink_broker::redis(section, report).map(To::Redis),
        #[cfg(feature = "sink-sqs")]
        Type::Sqs => sink_sqs::read(section, report).map(To::Sqs),
        #[cfg(feature = "sink-postgres")]
        Type::Postgres => sink_postgres::read(section, report).map(To::Postgres),
        #[cfg(not(all(
            feature = "sink-nats",
            feature = "sink-amqp",
            feature = "sink-redis",
            feature = "sink-sqs",
            feature = "sink-postgres"
        )))]
        other => built_in(other, section, report).and(Ok(To::Stdout)),
    }
}

/// Where nothing is kept, a sink that may lose what it accepted loses it for good.
fn durable(kind: Type, section: &Section<'_>, known: &Known, report: &mut Report) -> Checked<()> {
    if kind != Type::Stdout || known.no_store.is_none() {
        return Ok(());
    }
    let expected = "a sink that keeps what it accepts, because store.kind is \"none\"";
    Err(report.problem(&section.at_key("type"), "\"stdout\", which keeps nothing", expected))
}

/// Refuses the keys of other types; says nothing of them while the type itself is in doubt.
fn misplaced(kind: Option<Type>, section: &mut Section<'_>, report: &mut Report) {
    for (name, at) in section.out_of_place(KEYS.map(|(name, _)| name)) {
        let Some(kind) = kind else { continue };
        let (_, types) = KEYS.iter().find(|(key, _)| *key == name).expect("it is one of them");
        let words: Vec<&str> = types.iter().map(|kind| kind.word()).collect();
        let expected = format!("only where type is {}", words.join(" or "));
        report.problem(&at, format!("type is {}", kind.word()), expected);
    }
}

/// A number, or what is in force where there is none.
pub(super) fn number_or(
    section: &mut Section<'_>,
    (name, range): (&'static str, (u64, u64)),
    default: u64,
    report: &mut Report,
) -> Checked<u64> {
    Ok(match section.number(name, range, report)? {
        Some(found) => found.value,
        None => {
            by_default(section, name, default, report);
            default
        }
    })
}
