//! `receiptd healthcheck`: is the receiver ready? For containers without a shell or `curl`.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use super::Failure;
use super::flags::ConfigFlags;
use super::setup::settings;
use crate::client::{Answer, Client, Options, Target};

/// Connecting and answering together stay below the two seconds that an orchestrator may allow.
const CONNECT_MS_MAX: Duration = Duration::from_millis(500);
const ANSWER_MS_MAX: Duration = Duration::from_millis(1_300);

/// Ask the receiver on this machine whether it is ready
///
/// Asks for /readyz on the admin address and prints one line. Exits with 0 if the receiver is ready
/// to take callbacks and with 1 otherwise: while it starts, drains, is low on space, was stopped by
/// an I/O error, or cannot be reached. Takes less than two seconds.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  receiptd healthcheck
  receiptd healthcheck --url http://127.0.0.1:9090/livez

In a Dockerfile:
  HEALTHCHECK CMD [\"/receiptd\", \"healthcheck\"]")]
pub struct Args {
    /// Ask there instead of at the configured admin address
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// The configuration file and the state file.
    #[command(flatten)]
    pub config: ConfigFlags,
}

/// Asks, and prints one line.
///
/// # Errors
/// Only if the line cannot be written: whatever else is wrong is an answer, and its code is 1,
/// because container runtimes reserve the others.
pub fn run(
    args: &Args,
    env: &[(String, String)],
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let (line, code) = match ask(args, env) {
        Ok(answer) if (200..300).contains(&answer.code) => ("ready".to_owned(), ExitCode::SUCCESS),
        Ok(answer) => (format!("not ready: {}", reason(&answer)), ExitCode::from(Failure::NO)),
        Err(failure) => (format!("not ready: {}", one_line(&failure)), ExitCode::from(Failure::NO)),
    };
    writeln!(out, "{line}").map_err(Failure::output)?;
    Ok(code)
}

/// What keeps the outcome of health checks shows one line of it.
fn one_line(failure: &Failure) -> String {
    failure.message.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn ask(args: &Args, env: &[(String, String)]) -> Result<Answer, Failure> {
    let url = match &args.url {
        Some(url) => url.clone(),
        None => format!("http://{}/readyz", reachable(settings(&args.config, env)?.admin_listen)),
    };
    let options = Options {
        connect_ms_max: CONNECT_MS_MAX,
        answer_ms_max: ANSWER_MS_MAX,
        keep_alive: false,
        ca_file: None,
    };
    let mut client = Client::new(Target::parse(&url)?, options)?;
    Ok(super::block_on(client.get())??)
}

/// An address to listen on, as one to connect to: every address of this machine is also this one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The first line of the body, or else the code.
fn reason(answer: &Answer) -> String {
    let line = answer.first_line();
    if line.is_empty() { format!("it answers {}", answer.code) } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_everybody_is_asked_on_this_machine() {
        for (listen, ask) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9090", "[::1]:9090"),
            ("10.1.2.3:9090", "10.1.2.3:9090"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), ask);
        }
    }
}
