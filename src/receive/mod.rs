//! The front door: `listener → limits → source by path → authenticate → journal → answer`.
//!
//! The answer depends only on who is calling and whether the bytes are safe: nothing here knows
//! what a callback says, but for the reachability probe, which is not kept, and VA Notify's
//! signature, which covers the body. It promises:
//!
//! - no 2xx before the commit that holds the body's bytes;
//! - authentication before the first byte of the body is asked for;
//! - a bound, with a name in `[limits]`, on every wait, size and number;
//! - a panic in one connection ends that connection only;
//! - what hyper would let pass and we must not (two `Host`, two `Authorization`, absolute targets)
//!   is answered 400 here.

pub mod answer;

pub mod connection;

pub mod tls;

mod not_after;

pub mod authenticate;

mod jwt;

pub mod refusal;

pub mod refusals;

pub mod routes;

pub mod keeper;

pub mod request;

pub mod server;

pub mod renewal;
