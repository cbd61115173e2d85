//! Changes → sinks: durably, in order for each notification, and never in the way of an answer.
//!
//! Settling writes what is owed into the outbox, in the transaction of the state it tells of. Here
//! it is sent. Promises:
//!
//! - a change leaves the outbox only once its sink has accepted it, or when somebody discards it, or,
//!   for a sink that wants only the latest, when a newer one of the same notification is owed too;
//! - each is sent at least once, always with the same id;
//! - changes of one notification reach a sink in the order in which they were settled; those of
//!   different ones are sent beside each other;
//! - one change that a sink will not take is parked and blocks nothing but, until then, its own
//!   notification;
//! - a sink that is down costs neither memory nor answers: its rows stay in the file.
//!
//! It runs on a thread of its own, with its own runtime: what it does cannot delay an answer, except
//! by the processor it takes. It reads the state through a connection of its own and hands what it
//! found out to the settling thread, the only one that writes.
//!
//! It knows no provider and nothing of callers. In reading order: [`event`] is what a sink is sent,
//! [`fault`] why it did not take it; [`backoff`], [`breaker`], [`window`] and [`fate`] decide, without
//! I/O, when to try again, whether the sink is worth trying, what may be sent next, and what is given up;
//! [`dispatcher`] sends what
//! one sink is owed, [`forwarder`] is the thread of all of them; [`sink`] is the list of sinks, with one
//! file for each.

pub mod event;

pub mod fault;

pub mod backoff;

pub mod breaker;

pub mod window;

pub mod fate;

mod record;

pub mod dispatcher;

mod attempt;

pub mod forwarder;

pub mod sink;

pub mod http;

pub mod connect;

pub mod outgoing;

mod signature;

pub mod address;

mod lines;

pub mod file;

pub mod stdout;

#[cfg(feature = "sink-nats")]
pub mod nats;

#[cfg(feature = "sink-amqp")]
pub mod amqp;

#[cfg(feature = "sink-amqp")]
mod amqp_confirms;

#[cfg(feature = "sink-redis")]
pub mod redis;

#[cfg(feature = "sink-sqs")]
pub mod sqs;

#[cfg(feature = "sink-sqs")]
mod sqs_fault;

#[cfg(feature = "sink-postgres")]
pub mod postgres;

#[cfg(feature = "sink-postgres")]
mod postgres_row;

pub mod tls;
