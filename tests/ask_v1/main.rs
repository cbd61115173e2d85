//! The read API of our own, asked over real sockets; and held to its OpenAPI document by schemathesis.

#[path = "../sinks/servers.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;
#[path = "../ask_v2/token.rs"]
mod token;
#[path = "../ask_v2/world.rs"]
mod world;

mod document;
mod events;
mod expected;
mod feed;
mod operator;
mod waiting;
