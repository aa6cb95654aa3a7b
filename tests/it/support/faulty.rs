//! A Sentry ingest on loopback that misbehaves, over plain sockets, until it is mended.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use sentry::ClientOptions;
use sentry::transports::DefaultTransportFactory;
use sentry_tonic::TraceTransport;
use tokio::net::TcpSocket;

use crate::support::gated::LONG;
use crate::support::wire::{Item, items};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Refuses connections.
    Down,
    /// Reads, and never answers; closes when it is mended, as one that is started again.
    Hangs,
    /// Reads, and answers when it is mended.
    Slow,
    RetryAfter,
    RateLimits,
    Unavailable,
    NoHttp,
    /// Closes amid the head of the answer.
    HalfHead,
    /// Closes amid the body of the answer.
    HalfBody,
    HugeHead,
    /// Headers that are no text, or make no sense.
    OddHead,
    /// Resets the connection amid the head of the answer.
    Reset,
    /// Does not speak TLS where it is to.
    NoTls,
    /// Has a certificate from nobody that is known.
    Untrusted,
}

impl Fault {
    pub(crate) const ALL: [Self; 15] = [
        Self::None,
        Self::Down,
        Self::Hangs,
        Self::Slow,
        Self::RetryAfter,
        Self::RateLimits,
        Self::Unavailable,
        Self::NoHttp,
        Self::HalfHead,
        Self::HalfBody,
        Self::HugeHead,
        Self::OddHead,
        Self::Reset,
        Self::NoTls,
        Self::Untrusted,
    ];

    /// Connections are open as long as the fault is there.
    pub(crate) fn holds(self) -> bool {
        matches!(self, Self::Hangs | Self::Slow)
    }

    pub(crate) fn is_of_tls(self) -> bool {
        matches!(self, Self::NoTls | Self::Untrusted)
    }
}

/// How envelopes get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Trace,
    /// sentry's own transport alone.
    Plain,
}

impl Via {
    pub(crate) const BOTH: [Self; 2] = [Self::Trace, Self::Plain];

    /// With room for all that a test sends.
    pub(crate) fn options(self, dsn: &str) -> ClientOptions {
        let options = ClientOptions::new()
            .dsn(dsn)
            .traces_sample_rate(1.0)
            .transport_channel_capacity(100_000);
        match self {
            Self::Trace => options.transport(TraceTransport::new(DefaultTransportFactory)),
            Self::Plain => options.transport(DefaultTransportFactory),
        }
    }
}

pub(crate) struct Faulty {
    address: SocketAddr,
    is_of_tls: bool,
    /// Has the port, and does not listen at it yet.
    socket: Mutex<Option<TcpSocket>>,
    inside: Arc<Inside>,
}

struct Inside {
    state: Mutex<State>,
    has_changed: Condvar,
}

struct State {
    fault: Fault,
    is_over: bool,
    connections: usize,
    /// Connections that wait for the fault to end.
    held: usize,
    accepted: Vec<Vec<u8>>,
    /// Answered with 429.
    limited: Vec<Vec<u8>>,
    /// What clients said of TLS that was not to their liking.
    alerts: Vec<Vec<u8>>,
}

impl Faulty {
    pub(crate) fn with(fault: Fault) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let state = State {
            fault,
            is_over: false,
            connections: 0,
            held: 0,
            accepted: Vec::new(),
            limited: Vec::new(),
            alerts: Vec::new(),
        };
        let faulty = Self {
            address: socket.local_addr().unwrap(),
            is_of_tls: fault.is_of_tls(),
            socket: Mutex::new(Some(socket)),
            inside: Arc::new(Inside {
                state: Mutex::new(state),
                has_changed: Condvar::new(),
            }),
        };
        if fault != Fault::Down {
            faulty.listen();
        }
        faulty
    }

    fn listen(&self) {
        let Some(socket) = self.socket.lock().unwrap().take() else {
            return;
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let listener = runtime.block_on(async { socket.listen(1024).unwrap().into_std() });
        let listener: TcpListener = listener.unwrap();
        listener.set_nonblocking(false).unwrap();
        let inside = Arc::clone(&self.inside);
        thread::spawn(move || inside.accept(&listener));
    }

    /// From now on it is another one.
    pub(crate) fn turn(&self, fault: Fault) {
        self.inside.state().fault = fault;
        self.inside.has_changed.notify_all();
        self.listen();
    }

    pub(crate) fn mend(&self) {
        self.turn(Fault::None);
    }

    pub(crate) fn dsn(&self) -> String {
        let scheme = if self.is_of_tls { "https" } else { "http" };
        format!("{scheme}://key@{}/1", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.inside.state().connections
    }

    pub(crate) fn held(&self) -> usize {
        self.inside.state().held
    }

    /// Waits until there are so many: a client does not wait until they are read.
    pub(crate) fn alerts(&self, number: usize) -> Vec<Vec<u8>> {
        let too_few = |state: &mut State| state.alerts.len() < number;
        let state = self.inside.state();
        let waited = self
            .inside
            .has_changed
            .wait_timeout_while(state, LONG, too_few);
        waited.unwrap().0.alerts.clone()
    }

    pub(crate) fn accepted(&self) -> Vec<Item> {
        all_items(&self.inside.state().accepted)
    }

    pub(crate) fn limited(&self) -> Vec<Item> {
        all_items(&self.inside.state().limited)
    }

    /// Waits until so many connections wait.
    pub(crate) fn wait_for_held(&self, held: usize) {
        let too_few = |state: &mut State| state.held < held;
        let state = self.inside.state();
        let waited = self
            .inside
            .has_changed
            .wait_timeout_while(state, LONG, too_few);
        assert!(!waited.unwrap().1.timed_out());
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.inside.state().is_over = true;
        self.inside.has_changed.notify_all();
        // Its thread looks at it then.
        let _ = TcpStream::connect(self.address);
    }
}

fn all_items(envelopes: &[Vec<u8>]) -> Vec<Item> {
    let numbered = envelopes.iter().enumerate();
    numbered
        .flat_map(|(number, bytes)| items(number, bytes))
        .collect()
}

impl Inside {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            let fault = {
                let mut state = self.state();
                if state.is_over {
                    return;
                }
                state.connections += 1;
                state.fault
            };
            let Ok(stream) = stream else { continue };
            let inside = Arc::clone(&self);
            thread::spawn(move || inside.serve(stream, fault));
        }
    }

    /// One request: who makes another one connects again. A client that goes amid it is
    /// no failure of the test.
    fn serve(&self, mut stream: TcpStream, fault: Fault) -> Option<()> {
        let _ = stream.set_nodelay(true);
        match fault {
            Fault::Reset => {
                // What is not read has the connection reset as it is closed.
                stream.peek(&mut [0]).ok()?;
                return stream.write_all(b"HTTP/1.1 200 OK\r\nconte").ok();
            }
            Fault::NoTls => {
                let _ = stream.read(&mut [0; 4096]).ok()?;
                return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").ok();
            }
            Fault::Untrusted => return self.present_certificate(&mut stream),
            _ => {}
        }
        let body = read_request(&mut stream)?;
        if fault.holds() {
            self.hold();
        }
        let answer = match fault {
            Fault::Hangs => return None,
            Fault::RetryAfter => "429 Too Many Requests\r\nretry-after: 1".into(),
            Fault::RateLimits => {
                "429 Too Many Requests\r\nx-sentry-rate-limits: 1::organization".into()
            }
            Fault::Unavailable => "503 Service Unavailable".into(),
            Fault::HugeHead => format!("200 OK\r\nx-huge: {}", "x".repeat(1 << 20)).into_bytes(),
            Fault::OddHead => {
                let mut head = b"200 OK\r\nx-odd: \xff\xfe\r\nx-odd: \xff\r\n".to_vec();
                head.extend(b"x-sentry-rate-limits: ,::;,:,x:y:z,-1:all,NaN:error:\xc3");
                head
            }
            _ => b"200 OK".to_vec(),
        };
        let answer: Vec<u8> = match fault {
            Fault::NoHttp => b"220 mail.example.com ESMTP\r\n".to_vec(),
            Fault::HalfHead => b"HTTP/1.1 200 OK\r\nconte".to_vec(),
            Fault::HalfBody => b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec(),
            _ => {
                let rest = b"\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
                [b"HTTP/1.1 ", &answer[..], rest].concat()
            }
        };
        // Who has its answer may look at once.
        match fault {
            Fault::None | Fault::Slow | Fault::HalfBody | Fault::OddHead => {
                self.state().accepted.push(body);
            }
            Fault::RetryAfter | Fault::RateLimits => self.state().limited.push(body),
            _ => {}
        }
        stream.write_all(&answer).ok()
    }

    fn hold(&self) {
        let mut state = self.state();
        state.held += 1;
        self.has_changed.notify_all();
        let is_held = |state: &mut State| state.fault.holds() && !state.is_over;
        let mut state = self.has_changed.wait_while(state, is_held).unwrap();
        state.held -= 1;
    }

    /// As a server of TLS 1.2, whose certificate is not encrypted, up to where the client
    /// has to look at it.
    fn present_certificate(&self, stream: &mut TcpStream) -> Option<()> {
        let _ = stream.read(&mut [0; 4096]).ok()?;
        let certificate = include_bytes!("untrusted.der");
        let with_length = |bytes: &[u8]| {
            let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            [&length[1..], bytes].concat()
        };
        // No session, ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression.
        let hello = [&[3, 3][..], &[7; 32], &[0, 0xc0, 0x2b, 0]].concat();
        let certificates = with_length(&with_length(certificate));
        // A point on x25519, and a signature that is none.
        let key = [&[3, 0, 0x1d, 32][..], &[9; 32], &[4, 3, 0, 1, 0]].concat();
        let messages = [(2, hello), (11, certificates), (12, key), (14, vec![])];
        for (kind, body) in messages {
            let message = [&[kind][..], &with_length(&body)].concat();
            let length = u16::try_from(message.len()).unwrap().to_be_bytes();
            let record = [&[22, 3, 3][..], &length, &message].concat();
            stream.write_all(&record).ok()?;
        }
        let mut alert = Vec::new();
        let _ = stream.read_to_end(&mut alert);
        self.state().alerts.push(alert);
        self.has_changed.notify_all();
        Some(())
    }
}

/// The body of one.
fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer).ok()?;
        bytes.extend_from_slice(buffer.get(..read).filter(|read| !read.is_empty())?);
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|l| l.strip_prefix("content-length:"));
        let length: usize = length?.trim().parse().ok()?;
        if bytes.len() >= head + 4 + length {
            return Some(bytes.split_off(head + 4));
        }
    }
}
