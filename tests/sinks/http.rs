//! The http sink: an app behind a real HTTP server.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use crate::servers::{Missing, local};
use crate::suite::{self, Held, Kind, Rejection};

#[test]
fn the_http_sink_passes_the_suite() {
    suite::passes::<App>();
}

/// What the app keeps, and whether it takes more.
#[derive(Default)]
struct Kept {
    held: Vec<Held>,
    refuses: bool,
}

/// An app whose requests a real HTTP server reads.
struct App {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl App {
    fn listen(&mut self, listener: TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let kept = Arc::clone(&self.kept);
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = serve(listener, kept) => {}
                    _ = stopped => {}
                }
            });
            // Whatever is open ends with the runtime.
        });
        self.running = Some((stop, thread));
    }
}

async fn serve(listener: tokio::net::TcpListener, kept: Arc<Mutex<Kept>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let kept = Arc::clone(&kept);
        let service = service_fn(move |request| take(request, Arc::clone(&kept)));
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

async fn take(
    request: Request<Incoming>,
    kept: Arc<Mutex<Kept>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let status = match request.into_body().collect().await {
        Err(_) => 400,
        Ok(body) => {
            let mut kept = kept.lock().unwrap();
            if kept.refuses {
                422
            } else {
                kept.held.push(Held::from_structured(&body.to_bytes()));
                204
            }
        }
    };
    Ok(Response::builder().status(status).body(Empty::new()).unwrap())
}

impl Kind for App {
    const TYPE: &'static str = "http";

    fn start() -> Result<Self, Missing> {
        let listener = TcpListener::bind(local(0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut app = Self { address, kept: Arc::default(), running: None };
        app.listen(listener);
        Ok(app)
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }

    fn fresh(&mut self, _case: &str) {
        *self.kept.lock().unwrap() = Kept::default();
    }

    fn lines(&self, through: SocketAddr) -> String {
        format!("url = \"http://{through}/receipts\"")
    }

    fn held(&mut self) -> Vec<Held> {
        self.kept.lock().unwrap().held.clone()
    }

    fn reject(&mut self) -> Rejection {
        self.kept.lock().unwrap().refuses = true;
        Rejection::Parks
    }

    fn accept(&mut self) {
        self.kept.lock().unwrap().refuses = false;
    }

    fn crash(&mut self) {
        let (stop, thread) = self.running.take().expect("it runs");
        drop(stop);
        thread.join().unwrap();
    }

    fn start_again(&mut self) {
        self.listen(TcpListener::bind(self.address).unwrap());
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.crash();
        }
    }
}
