//! The read API of the platforms, asked over real sockets: by hand, for every answer there is, and by
//! the official clients as they are published.

#[path = "../sinks/servers.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;

mod token;
mod world;

mod clients;
mod errors;
mod lists;
mod shapes;
mod together;
