//! `receiptd config`: is it right, what is in force, what could be set.

use std::io::{self, Write};
use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table};

use super::Failure;
use super::flags::ServeFlags;
use super::output;
use crate::clock::Timestamp;
use crate::config::settings::{Deliver, Sink, To};
use crate::config::{self, Effective, Loaded, Problems};

/// Check, show or start a configuration
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List everything that is wrong with the configuration, all at once
    ///
    /// Looks at what `receiptd serve` would use if it were started here with the same flags and
    /// environment: files that settings name must be readable, keys must fit. Changes nothing.
    /// Exits with 0 if `serve` would start, with 78 if not.
    #[command(after_help = "Example:\n  receiptd config check --config /etc/receiptd.toml")]
    Check(CheckArgs),

    /// Print every setting in force and where its value came from
    ///
    /// Secrets are not printed; hashes are cut to their first digits. Exits with 78 if the
    /// configuration is wrong, after listing all that is.
    #[command(after_help = "Example:\n  RECEIPTD_LOG_LEVEL=debug receiptd config show")]
    Show(ShowArgs),

    /// Print the default configuration: every setting with its unit and its reason
    ///
    /// A file to start from. Only what you change needs to stay in yours.
    #[command(after_help = "Example:\n  receiptd config default > receiptd.toml")]
    Default,
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    #[command(flatten)]
    flags: ServeFlags,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    flags: ServeFlags,

    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How a list of settings is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// One setting a line, as in the file, its origin as a comment
    Text,
    /// Columns that fit the terminal
    Table,
    /// A JSON array of objects: key, value, origin
    Json,
    /// Comma-separated values with a heading
    Csv,
}

/// Runs the command; `env` is [`config::environment`], `now` tells which tokens have expired.
pub fn run(
    args: &Args,
    env: Vec<(String, String)>,
    now: Timestamp,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    output::done(match &args.command {
        Command::Check(args) => {
            let loaded = load(&args.flags, env, now)?;
            if let Some(problems) = &loaded.not_yet {
                return Err(refused(problems));
            }
            check(&loaded, out)
        }
        Command::Show(args) => show(&load(&args.flags, env, now)?.effective, args.format, out),
        Command::Default => out.write_all(config::DEFAULTS.as_bytes()),
    })
}

fn load(flags: &ServeFlags, env: Vec<(String, String)>, now: Timestamp) -> Result<Loaded, Failure> {
    config::load(&flags.layers(env), now).map_err(|problems| refused(&problems))
}

fn refused(problems: &Problems) -> Failure {
    Failure::new(Failure::CONFIG, problems.to_string())
        .hint("`receiptd config default` prints every setting, explained")
}

fn check(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    for warning in &loaded.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    let settings = &loaded.settings;
    if settings.sources.is_empty() {
        writeln!(out, "the configuration is right; it names no source, so `receiptd serve` makes")?;
        writeln!(out, "one called `default` and prints its token once")?;
    } else {
        writeln!(out, "the configuration is right:")?;
    }
    for source in &settings.sources {
        let (name, provider) = (&source.name, source.dialect.provider);
        writeln!(out, "  {name} ({provider}) posts to {}", source.path)?;
        if let Some(upstream) = &source.upstream {
            writeln!(out, "    and is asked at {}", upstream.base.authority)?;
        }
        match source.readers.len() {
            0 => {}
            1 => writeln!(out, "  {name} may be asked about by one reader")?,
            count => writeln!(out, "  {name} may be asked about by {count} readers")?,
        }
    }
    settings.sinks.iter().try_for_each(|sink| writeln!(out, "  {}", summary(sink)))
}

/// What a sink is sent, in a line.
fn summary(sink: &Sink) -> String {
    let kinds = sink.filter.kinds.as_ref();
    let kinds: Option<Vec<&str>> =
        kinds.map(|kinds| kinds.iter().map(|kind| kind.as_str()).collect());
    let what = match (sink.deliver, kinds.is_some()) {
        (Deliver::EveryChange, false) => "every change",
        (Deliver::EveryChange, true) => "changes",
        (Deliver::Latest, _) => "the latest changes",
    };
    let mut text = format!("{} ({}) is sent {what}", sink.name, sink.to.word());
    if let Some(kinds) = &kinds {
        text.push_str(&format!(" of kind {}", any_of(kinds)));
    }
    if let Some(sources) = &sink.filter.sources {
        text.push_str(&format!(" from {}", any_of(sources)));
    }
    if let Some(statuses) = &sink.filter.statuses {
        // They narrow one kind only, which is the whole of it if there is no other.
        let is_only = kinds.is_some_and(|kinds| kinds == ["status"]);
        let of = if is_only { "" } else { "of status " };
        text.push_str(&format!(", {of}only those to {}", any_of(statuses)));
    }
    if matches!(&sink.to, To::Http(http) if http.secrets.is_empty()) {
        text.push_str(", unsigned");
    }
    text
}

/// `a`, `a or b`, `a, b or c`.
fn any_of(words: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

fn show(effective: &[Effective], format: Format, out: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Text => text(effective, out),
        Format::Table => writeln!(out, "{}", table(effective)),
        Format::Json => json(effective, out),
        Format::Csv => csv(effective, out),
    }
}

fn text(effective: &[Effective], out: &mut dyn Write) -> io::Result<()> {
    /// Where origins stand, if the settings leave room: the longest key of `[limits]` still does.
    const ORIGIN_COLUMN: usize = 44;
    for Effective { key, value, origin } in effective {
        let setting = format!("{key} = {value}");
        writeln!(out, "{setting:<ORIGIN_COLUMN$}  # {origin}")?;
    }
    Ok(())
}

fn table(effective: &[Effective]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    if let Some(width) = output::width_of_stdout() {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.set_header(["key", "value", "from"]);
    for Effective { key, value, origin } in effective {
        table.add_row([key, &plain(value), &origin.to_string()]);
    }
    table
}

fn json(effective: &[Effective], out: &mut dyn Write) -> io::Result<()> {
    let objects: Vec<_> = effective
        .iter()
        .map(|Effective { key, value, origin }| {
            serde_json::json!({ "key": key, "value": value, "origin": origin.to_string() })
        })
        .collect();
    serde_json::to_writer_pretty(&mut *out, &objects)?;
    writeln!(out)
}

fn csv(effective: &[Effective], out: &mut dyn Write) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(["key", "value", "origin"])?;
    for Effective { key, value, origin } in effective {
        writer.write_record([key, &plain(value), &origin.to_string()])?;
    }
    writer.flush()
}

/// Text without the quotes that TOML and JSON want around it.
fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
