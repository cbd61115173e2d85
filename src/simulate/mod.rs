//! A sender to own: the lives of messages, told to a receiver as a platform would tell them.
//!
//! A [`Life`](life::Life) is what happens to one message and what is called back about it, a pure
//! function of the seed, the message's number and how many messages there are in a second of the
//! platform's time: the same three give the same bytes on every machine. What every message truly came to is known from its life alone, so that a receiver can
//! be held against it without asking how the receiver merges.
//!
//! [`scenario`] is where to start: it draws a story (`notify`, `ajo`), from which both the
//! bodies and the truth are written, never one from the other. [`engine`] sends what falls due
//! ([`schedule`]) as the platform would and comes to a [`report`]; [`verify`] holds what the receiver
//! came to against the truth.

pub mod scenario;

pub mod mix;

pub mod life;

pub mod chance;

mod people;

mod notify;

mod notify_row;

mod notify_body;

mod ajo;

mod ajo_body;

mod json;

pub mod schedule;

pub mod engine;

pub mod worker;

pub mod connection;

pub mod request;

pub mod http;

pub mod report;

pub mod verify;
