//! `receiptd token`: bearers, and the hashes that stand for them in the configuration.

use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use sha2::{Digest, Sha256};

use super::{Failure, output};
use crate::clock::Clock;

/// Make a token for a platform's callback form, or hash one you have
///
/// receiptd knows tokens only by their SHA-256, so nobody who reads the configuration can call it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a new bearer token and the block of configuration that accepts it
    ///
    /// The bearer goes into the platform's form ("bearer token"), the block under its [[source]] in
    /// receiptd.toml. The bearer is printed this once and kept nowhere.
    ///
    /// With --derive the bearer is itself the SHA-256 of a secret that stays with you: the platform
    /// then never holds the secret, only its hash, which is what GC Notify recommends. receiptd
    /// needs neither; keep the secret to prove later that the token is yours.
    #[command(after_help = "\
Examples:
  receiptd token new --label 2026-11
  receiptd token new --derive")]
    New(NewArgs),

    /// Print the SHA-256 of a bearer read from standard input
    ///
    /// From standard input, never from arguments, because those are seen by every process and stay
    /// in the shell's history. One line break at the end is not part of the bearer; all else is
    /// hashed byte for byte, spaces inside and characters beyond ASCII too. Senders put those into
    /// the header as Latin-1, most terminals and files hold them as UTF-8, and the two have
    /// different hashes. Use it for tokens of at least 32 random characters only: a short one can be
    /// guessed from its hash.
    #[command(after_help = "\
Examples:
  receiptd token hash < bearer.txt
  pass show notify/callback | receiptd token hash")]
    Hash,
}

#[derive(Debug, clap::Args)]
struct NewArgs {
    /// Make the bearer the SHA-256 of a secret, and print the secret too
    #[arg(long)]
    derive: bool,

    /// What logs and metrics call this token [default: this month, such as 2026-11]
    #[arg(long, value_name = "TEXT", value_parser = parse_label)]
    label: Option<String>,
}

/// A new token.
struct Token {
    /// What the bearer was derived from, if it was.
    secret: Option<String>,
    bearer: String,
}

impl Token {
    fn new(random: [u8; 32], derive: bool) -> Self {
        let random = BASE64URL_NOPAD.encode(&random);
        if derive {
            Self { bearer: sha256(random.as_bytes()), secret: Some(random) }
        } else {
            Self { secret: None, bearer: random }
        }
    }
}

/// More than any header may hold.
const BEARER_BYTES_MAX: u64 = 16 << 10;

/// Characters in a label, which becomes a label of metrics.
const LABEL_CHARS_MAX: usize = 64;

/// Runs the command.
///
/// # Errors
/// If what was read is no bearer, there is no randomness, or the output cannot be written.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::New(args) => {
            let mut random = [0; 32];
            getrandom::fill(&mut random).map_err(|error| {
                Failure::new(Failure::IO, format!("the system gives no random bytes: {error}"))
            })?;
            let month = Clock::system().now().to_string()[..7].to_owned();
            let label = args.label.as_ref().unwrap_or(&month);
            output::done(print(&Token::new(random, args.derive), label, out))
        }
        Command::Hash => {
            let stdin = io::stdin();
            if stdin.is_terminal() {
                let mut stderr = io::stderr();
                let _ = write!(stderr, "Bearer (it shows as you type; end with Enter, Ctrl-D): ");
            }
            hash(&mut stdin.lock(), out, &mut io::stderr())
        }
    }
}

fn print(token: &Token, label: &str, out: &mut dyn Write) -> io::Result<()> {
    let Token { secret, bearer } = token;
    let sha256 = sha256(bearer.as_bytes());
    if let Some(secret) = secret {
        writeln!(out, "secret   {secret}")?;
        writeln!(out, "         stays with you; the bearer is its SHA-256\n")?;
    }
    writeln!(out, "bearer   {bearer}")?;
    writeln!(
        out,
        "         goes into the platform's form; it is kept nowhere and not shown again\n"
    )?;
    writeln!(out, "sha256   {sha256}")?;
    writeln!(out, "         goes under its [[source]] in receiptd.toml:\n")?;
    writeln!(out, "[[source.token]]")?;
    writeln!(out, "label = {}", toml::Value::from(label))?;
    writeln!(out, "sha256 = \"{sha256}\"")?;
    out.flush()
}

/// Hashes what `input` holds up to its end; `warn` hears what is probably a mistake.
fn hash(
    input: &mut dyn Read,
    out: &mut dyn Write,
    warn: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let mut bytes = Vec::new();
    input.take(BEARER_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| {
        Failure::new(Failure::IO, format!("failed to read standard input: {error}"))
    })?;
    let bearer = check(&bytes)?;
    for warning in doubts(bearer) {
        // Standard error may be closed; the hash is right all the same.
        let _ = writeln!(warn, "receiptd: warning: {warning}");
    }
    output::done(writeln!(out, "{}", sha256(bearer)).and_then(|()| out.flush()))
}

/// The bearer without the line break that ended it.
fn check(bytes: &[u8]) -> Result<&[u8], Failure> {
    let refused = |message: &str| Err(Failure::new(Failure::USAGE, message));
    let bearer = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bearer = bearer.strip_suffix(b"\r").unwrap_or(bearer);
    if bearer.is_empty() {
        return refused("there was no bearer on standard input")
            .map_err(|failure| failure.hint("receiptd token hash < bearer.txt"));
    }
    if bytes.len() as u64 > BEARER_BYTES_MAX {
        return refused("this is longer than any bearer can be");
    }
    if bearer.iter().any(u8::is_ascii_control) {
        return refused("a bearer has no line breaks or other control characters")
            .map_err(|failure| failure.hint("give the token alone, on one line"));
    }
    if bearer.starts_with(b" ") || bearer.ends_with(b" ") {
        return refused("a bearer neither begins nor ends with a space").map_err(|failure| {
            failure.hint("HTTP drops spaces there, so this hash would never fit")
        });
    }
    Ok(bearer)
}

/// What a sender may send, but hardly means to.
fn doubts(bearer: &[u8]) -> Vec<&'static str> {
    const SCHEME: &[u8] = b"bearer ";
    let mut doubts = Vec::new();
    if bearer.get(..SCHEME.len()).is_some_and(|word| word.eq_ignore_ascii_case(SCHEME)) {
        doubts.push("it begins with the word Bearer: is that part of the token?");
    }
    if !bearer.is_ascii() && std::str::from_utf8(bearer).is_ok() {
        doubts.push("it was hashed as UTF-8, but senders put such characters as Latin-1");
    }
    doubts
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

fn parse_label(text: &str) -> Result<String, String> {
    let is_short = text.chars().count() <= LABEL_CHARS_MAX;
    if text.is_empty() || !is_short || text.chars().any(char::is_control) {
        return Err(format!("expected 1 to {LABEL_CHARS_MAX} printable characters"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(derive: bool, label: &str) -> String {
        let mut out = Vec::new();
        print(&Token::new([7; 32], derive), label, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The value behind a word at the beginning of a line.
    fn value<'t>(text: &'t str, word: &str) -> &'t str {
        let line = text.lines().find_map(|line| line.strip_prefix(word));
        line.unwrap_or_else(|| panic!("no {word} in {text}")).trim()
    }

    fn hashed(bytes: &[u8]) -> Result<String, Failure> {
        hashed_with_warnings(bytes).map(|(hash, _)| hash)
    }

    fn hashed_with_warnings(bytes: &[u8]) -> Result<(String, String), Failure> {
        let (mut out, mut warn) = (Vec::new(), Vec::new());
        hash(&mut &*bytes, &mut out, &mut warn)?;
        Ok((String::from_utf8(out).unwrap(), String::from_utf8(warn).unwrap()))
    }

    #[test]
    fn the_block_accepts_the_bearer_that_is_printed() {
        let text = printed(false, "2026-11");
        let bearer = value(&text, "bearer");
        assert_eq!(BASE64URL_NOPAD.decode(bearer.as_bytes()).unwrap(), [7; 32]);
        assert_eq!(hashed(bearer.as_bytes()).unwrap().trim_end(), value(&text, "sha256   "));
        let block = &text[text.find("[[source.token]]").unwrap()..];
        let block: toml::Table = toml::from_str(&block.replace("source.token", "token")).unwrap();
        assert_eq!(block["token"][0]["sha256"].as_str().unwrap(), value(&text, "sha256   "));
        assert_eq!(block["token"][0]["label"].as_str(), Some("2026-11"));
        assert!(!text.contains("secret"));
    }

    #[test]
    fn a_derived_bearer_is_the_hash_of_the_secret_and_is_hashed_once_more() {
        let text = printed(true, "x");
        let (secret, bearer) = (value(&text, "secret"), value(&text, "bearer"));
        assert_eq!(sha256(secret.as_bytes()), bearer);
        assert_eq!(sha256(bearer.as_bytes()), value(&text, "sha256   "));
    }

    #[test]
    fn a_label_cannot_break_out_of_the_block() {
        let text = printed(false, "a\" b = \\");
        let block = &text[text.find("[[source.token]]").unwrap()..];
        let block: toml::Table = toml::from_str(&block.replace("source.token", "token")).unwrap();
        assert_eq!(block["token"][0]["label"].as_str(), Some("a\" b = \\"));
        assert!(parse_label("a\nb").is_err() && parse_label("").is_err());
    }

    #[test]
    fn one_line_break_at_the_end_is_no_part_of_the_bearer() {
        let expected = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n";
        for bytes in [&b"secret"[..], b"secret\n", b"secret\r\n"] {
            assert_eq!(hashed(bytes).unwrap(), expected);
        }
    }

    #[test]
    fn what_the_front_door_accepts_is_hashed_byte_for_byte_and_doubts_are_told() {
        for (bearer, warning) in [
            (&b"correct horse  battery"[..], ""),
            (b"clef secr\xe8te \xa7\xff", ""),
            ("clef secr\u{e8}te".as_bytes(), "Latin-1"),
            (b"Bearer secret", "the word Bearer"),
            (b"bEARER secret", "the word Bearer"),
            (b"bearer-secret", ""),
        ] {
            let (hash, told) = hashed_with_warnings(bearer).unwrap();
            assert_eq!(hash.trim_end(), sha256(bearer));
            assert_eq!(told.is_empty(), warning.is_empty(), "{told}");
            assert!(told.contains(warning) && !told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn what_can_be_no_bearer_is_refused_and_never_repeated() {
        let long = vec![b'a'; 20_000];
        for bytes in [
            &b""[..],
            b"\n",
            b"\r\n",
            b"secret\n\n",
            b"sec\rret",
            b"sec\tret",
            b"sec\0ret",
            b" secret",
            b"secret ",
            &long,
        ] {
            let failure = hashed(bytes).unwrap_err();
            assert_eq!(failure.code, Failure::USAGE);
            assert!(!failure.to_string().contains("secret"), "{failure}");
        }
    }
}
