//! Where changes go: one variant a kind of sink, one file each.
//!
//! A sink promises of [`Sink::send`]: `Ok` only once the other side has accepted the event, durably
//! where it can; whatever else happens, a [`Fault`] that says whether to try again. It may be called
//! many times at once and keeps no order between calls: the dispatcher never has two changes of one
//! notification under way. It connects when first needed and again when it must, has no queue of its
//! own without a bound, and never puts a value of an event, nor anything the other side said, into
//! an error.
//!
//! Adding one touches this list, `config::sink` and the documentation, and nothing else.

#[cfg(feature = "sink-amqp")]
use super::amqp;
use super::event::Event;
use super::fault::Fault;
#[cfg(feature = "sink-nats")]
use super::nats;
#[cfg(feature = "sink-postgres")]
use super::postgres;
#[cfg(feature = "sink-redis")]
use super::redis;
#[cfg(feature = "sink-sqs")]
use super::sqs;
use super::{file, http, stdout};
use crate::config::settings::{self, To};

/// A sink, ready to be sent to.
#[derive(Debug)]
pub enum Sink {
    /// An app, by POST.
    Http(Box<http::Http>),
    /// Lines of a file.
    File(file::File),
    /// Lines of standard output.
    Stdout(stdout::Stdout),
    /// JetStream.
    #[cfg(feature = "sink-nats")]
    Nats(Box<nats::Nats>),
    /// RabbitMQ.
    #[cfg(feature = "sink-amqp")]
    Amqp(amqp::Amqp),
    /// A Redis stream.
    #[cfg(feature = "sink-redis")]
    Redis(redis::Redis),
    /// An SQS queue.
    #[cfg(feature = "sink-sqs")]
    Sqs(sqs::Sqs),
    /// Tables in the app's PostgreSQL.
    #[cfg(feature = "sink-postgres")]
    Postgres(postgres::Postgres),
}

impl Sink {
    /// Prepares a sink; in the runtime it is sent from. Reads the files its settings name and
    /// connects to nothing.
    ///
    /// # Errors
    /// If a file cannot be used; a sentence for the operator.
    pub fn open(settings: &settings::Sink) -> Result<Self, String> {
        Ok(match &settings.to {
            To::Http(to) => Self::Http(Box::new(http::Http::open(to)?)),
            To::File(to) => Self::File(file::File::open(to)?),
            To::Stdout => Self::Stdout(stdout::Stdout::open()?),
            #[cfg(feature = "sink-nats")]
            To::Nats(to) => Self::Nats(Box::new(nats::Nats::open(to)?)),
            #[cfg(feature = "sink-amqp")]
            To::Amqp(to) => Self::Amqp(amqp::Amqp::open(to)?),
            #[cfg(feature = "sink-redis")]
            To::Redis(to) => Self::Redis(redis::Redis::open(to)?),
            #[cfg(feature = "sink-sqs")]
            To::Sqs(to) => Self::Sqs(sqs::Sqs::open(to)?),
            #[cfg(feature = "sink-postgres")]
            To::Postgres(to) => Self::Postgres(postgres::Postgres::open(to)?),
        })
    }

    /// Sends one event. The caller bounds its time.
    ///
    /// # Errors
    /// Whatever kept the other side from accepting it.
    pub async fn send(&self, event: &Event) -> Result<(), Fault> {
        match self {
            Self::Http(sink) => sink.send(event).await,
            Self::File(sink) => sink.send(event).await,
            Self::Stdout(sink) => sink.send(event).await,
            #[cfg(feature = "sink-nats")]
            Self::Nats(sink) => sink.send(event).await,
            #[cfg(feature = "sink-amqp")]
            Self::Amqp(sink) => sink.send(event).await,
            #[cfg(feature = "sink-redis")]
            Self::Redis(sink) => sink.send(event).await,
            #[cfg(feature = "sink-sqs")]
            Self::Sqs(sink) => sink.send(event).await,
            #[cfg(feature = "sink-postgres")]
            Self::Postgres(sink) => sink.send(event).await,
        }
    }

    /// Whether an accepted event survives a power cut on the other side, as far as that can be asked:
    /// where nothing is kept here, nothing less will do.
    ///
    /// # Errors
    /// Why not, or why it cannot be told; a sentence for the operator.
    pub async fn check_durable(&self) -> Result<(), String> {
        match self {
            // The app's 2xx is its word.
            Self::Http(_) => Ok(()),
            Self::File(_) => Ok(()),
            Self::Stdout(_) => Err("standard output keeps nothing".to_owned()),
            #[cfg(feature = "sink-nats")]
            Self::Nats(sink) => sink.check_durable().await,
            #[cfg(feature = "sink-amqp")]
            Self::Amqp(sink) => sink.check_durable().await,
            #[cfg(feature = "sink-redis")]
            Self::Redis(sink) => sink.check_durable().await,
            #[cfg(feature = "sink-sqs")]
            Self::Sqs(_) => Ok(()),
            #[cfg(feature = "sink-postgres")]
            Self::Postgres(sink) => sink.check_durable().await,
        }
    }
}
