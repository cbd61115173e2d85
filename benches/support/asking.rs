//! An app that asks: by id and for pages, one question after another, while callbacks arrive.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::asked::{self, CAMPAIGN};
use super::common::Common;
use super::histogram::Histogram;
use super::load::{self, Outcome, Target};
use super::program::Done;
use super::receipt::{Ids, SOURCE, bearer_sha256};
use super::report::{Report, ms};
use super::server::{Bench, JOURNAL_FILE, Server};

const SERVICE: &str = "26785a09-ab16-4eb0-8407-a37497a57506";
const SECRET: &str = "3d844edf-8d35-48ac-975b-e847b4f122b0";

const CONNECTIONS: usize = 64;
const PER_SECOND: u32 = 1_000;
/// What a question may take, by id and for a page, and a callback meanwhile.
const BY_ID_MAX: Duration = Duration::from_millis(5);
const PAGE_MAX: Duration = Duration::from_millis(50);
const CALLBACK_MAX: Duration = Duration::from_millis(50);
/// Slower than this is not settling.
const SETTLE_PER_SECOND_MIN: u64 = 2_000;
/// How long making the indexes may take.
const INDEXES_MAX: Duration = Duration::from_secs(600);

/// The filters that are asked with; `CAMPAIGN` has half of everything.
fn filters() -> Vec<String> {
    let of_campaign = format!("reference={CAMPAIGN}");
    let fixed = [
        "",
        "status=delivered",
        "status=failed",
        "status=technical-failure",
        "status=cancelled",
        "template_type=letter",
        "template_type=email&template_type=sms",
        "status=failed&status=sending&template_type=sms",
    ];
    let rare = format!("{of_campaign}&status=technical-failure&template_type=letter");
    fixed.into_iter().map(str::to_owned).chain([of_campaign, rare]).collect()
}

/// Runs it once.
pub fn run(common: &Common, stored: u64, bench: &Bench, report: &mut Report) -> Done {
    let files = bench.files()?;
    eprintln!("writing {stored} callbacks into a journal");
    asked::write_journal(&files.path().join(JOURNAL_FILE), stored)?;
    let secret = files.path().join("secret");
    fs::write(&secret, SECRET)?;
    fs::set_permissions(&secret, Permissions::from_mode(0o600))?;
    eprintln!("settling them");
    let server = bench.receiptd_of(&files, &configuration(""))?;
    server.wait_until_settled_within(Duration::from_secs(60 + stored / SETTLE_PER_SECOND_MIN))?;
    server.stop()?;
    let reader = format!(
        "[[source.reader]]\nservice_id = \"{SERVICE}\"\nsecret_file = \"{}\"\n",
        secret.display()
    );
    let server = bench.receiptd_of(&files, &configuration(&reader))?;
    let admin = server.admin().ok_or("no admin address")?;
    let since = Instant::now();
    while App::connect(admin)?.ask("/v2/notifications")? != 200 {
        if since.elapsed() > INDEXES_MAX {
            return Err(format!("no list is answered\n{}", server.last_words()).into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    let indexed_in = since.elapsed();
    let (asked, outcome) = drive(common, stored, &server, admin)?;
    let memory = server.memory()?;
    server.stop()?;
    println!(
        "\nasking, {stored} stored, callbacks at {PER_SECOND}/s for {} s",
        common.measured().as_secs()
    );
    println!(
        "  the indexes were made in {:.1} s; {:.0} MiB resident at the end",
        indexed_in.as_secs_f64(),
        memory.resident
    );
    for Asked { what, latency } in &asked {
        let [p50, p99] = [500, 990].map(|per_mille| ms(latency.quantile(per_mille)));
        println!(
            "  {what:<72} p50 {p50} ms, p99 {p99} ms, max {} ms ({})",
            ms(latency.max()),
            latency.count()
        );
    }
    judge(&asked, &outcome, report);
    Ok(())
}

fn configuration(reader: &str) -> String {
    let sha256 = bearer_sha256();
    format!(
        "[[source]]\nname = \"{SOURCE}\"\nprovider = \"gc-notify\"\n\
         [[source.token]]\nlabel = \"bench\"\nsha256 = \"{sha256}\"\n{reader}"
    )
}

/// The same question, about different notifications.
struct Asked {
    what: String,
    latency: Histogram,
}

fn drive(
    common: &Common,
    stored: u64,
    server: &Server,
    admin: SocketAddr,
) -> Done<(Vec<Asked>, Outcome)> {
    let target =
        Target { server: server.callbacks, connections: CONNECTIONS, reference: common.reference };
    let over = AtomicBool::new(false);
    thread::scope(|threads| {
        let asking =
            threads.spawn(|| ask_all(admin, stored, &over).map_err(|error| error.to_string()));
        let mut ids = Ids::new(common.seed);
        let outcome = load::open_loop(target, &mut ids, PER_SECOND, common.measured(), |_, _| {});
        over.store(true, Ordering::Relaxed);
        let asked = asking.join().expect("asking does not panic")?;
        Ok((asked, outcome?))
    })
}

fn ask_all(admin: SocketAddr, stored: u64, over: &AtomicBool) -> Done<Vec<Asked>> {
    let new = |what: String| Asked { what, latency: Histogram::new() };
    let mut all: Vec<Asked> = filters().into_iter().map(new).collect();
    all.insert(0, new("by id".to_owned()));
    let mut app = App::connect(admin)?;
    let mut asked = 0_u64;
    while !over.load(Ordering::Relaxed) {
        for one in &mut all {
            let id = asked::id(asked::scatter(asked) % stored);
            asked += 1;
            let path = match one.what.as_str() {
                "by id" => format!("/v2/notifications/{id}"),
                "" => format!("/v2/notifications?older_than={id}"),
                filter => format!("/v2/notifications?older_than={id}&{filter}"),
            };
            let since = Instant::now();
            let status = app.ask(&path)?;
            one.latency.record(since.elapsed());
            if status != 200 {
                return Err(format!("{path} was answered {status}").into());
            }
        }
    }
    for one in &mut all {
        if one.what != "by id" {
            one.what = format!("pages, {}", if one.what.is_empty() { "of all" } else { &one.what });
        }
    }
    Ok(all)
}

/// One connection that asks.
struct App {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
    body: Vec<u8>,
}

impl App {
    fn connect(host: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host, body: Vec::new() })
    }

    /// Asks, and reads the answer to its end; its status.
    fn ask(&mut self, path: &str) -> Done<u16> {
        let host = self.host;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\n\
             authorization: ApiKey-v1 app-{SERVICE}-{SECRET}\r\n\r\n"
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                None => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse()?;
                }
                Some(_) => {}
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body)?;
        Ok(status.ok_or("no status in the answer")?)
    }
}

fn judge(asked: &[Asked], outcome: &Outcome, report: &mut Report) {
    for Asked { what, latency } in asked {
        let max = if what == "by id" { BY_ID_MAX } else { PAGE_MAX };
        let p99 = latency.quantile(990);
        let text = format!("{what}, p99: {} ms (under {} ms)", ms(p99), max.as_millis());
        report.aim(text, p99 < max);
    }
    let p99 = outcome.latency.quantile(990);
    let text = format!("callbacks meanwhile, p99: {} ms (under 50 ms)", ms(p99));
    report.aim(text, p99 < CALLBACK_MAX);
    let uncertain = outcome.uncertain();
    report.require(format!("not answered 204 meanwhile: {uncertain} (0)"), uncertain == 0);
}
