//! The parts of the measurements, in the order a measurement meets them.

#![allow(dead_code, reason = "each benchmark uses its own part of it")]

pub mod program;

pub mod common;

pub mod options;

pub mod bare;

pub mod stand_in;

pub mod http_sink;

pub mod arrivals;

pub mod alternatives;

pub mod server;

pub mod preload;

pub mod filled;

pub mod machine;

pub mod receipt;

pub mod connection;

pub mod load;

pub mod histogram;

pub mod database;

pub mod burst;

pub mod visible;

pub mod idle;

pub mod start;

pub mod trial;

pub mod sustained;

pub mod slow_disk;

pub mod backlog;

pub mod stored;

pub mod mixed;

pub mod compare;

pub mod svg;

pub mod owed;

pub mod healthy;

pub mod down;

pub mod jetstream;

pub mod relay;

pub mod asked;

pub mod asking;

pub mod platform;

pub mod reconciling;

pub mod report;
