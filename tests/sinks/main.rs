//! Sinks against their real servers: one file a kind, one suite for all.

mod event;
mod proxy;
mod servers;
mod suite;
#[path = "../support/mod.rs"]
mod support;

mod app;
mod file;
mod http;
mod http_python;
mod http_requests;

#[cfg(feature = "sink-nats")]
mod nats;

#[cfg(feature = "sink-amqp")]
mod amqp;

#[cfg(feature = "sink-redis")]
mod redis;

#[cfg(feature = "sink-sqs")]
mod sqs;

#[cfg(feature = "sink-postgres")]
mod postgres;
