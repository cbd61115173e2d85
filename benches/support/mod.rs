//! The parts of the ingest measurement, in the order a measurement meets them.

pub mod options;

pub mod bare;

pub mod stand_in;

pub mod alternatives;

pub mod server;

pub mod preload;

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

pub mod report;
