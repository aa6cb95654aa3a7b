//! Calls a service as tonic's server would, without a network.

use std::convert::Infallible;
use std::future::poll_fn;
use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::request::Builder;
use http::{Request, Response};
use http_body::Frame;
use prost::Message;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::transport::server::TcpConnectInfo;
use tower::{Service, ServiceExt};

use crate::Error;
use crate::allocator;
use crate::contestant::{Contestant, Drive, Sampling};
use crate::greeter::{Plain, WorkingGreeter};
use crate::helloworld::greeter_server::GreeterServer;
use crate::messages::hello;
use crate::work::{Step, Work};

const TRACE_AND_SPAN: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
const BAGGAGE: &str = "sentry-trace_id=0af7651916cd43dd8448eb211c80319c,sentry-public_key=key,\
    sentry-sample_rate=0.5,sentry-sample_rand=0.250000,sentry-environment=production,\
    sentry-release=front%401.0.0,other-vendor=1";
const WARM_UP: u32 = 100;

/// A greeter, with the client that its work asks for.
pub fn greeter(contestant: Contestant, work: Work) -> WorkingGreeter {
    let back = GreeterServer::new(Plain {
        replies: work.times(Step::ClientResponseFrame),
    });
    WorkingGreeter {
        work,
        upstream: Some(contestant.connect(back)),
    }
}

pub fn runtime() -> Result<Runtime, Error> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// Does the work, and returns the number of allocations.
pub struct Count {
    pub work: Work,
    pub sampling: Sampling,
    pub runtime: Runtime,
}

impl Drive for Count {
    type Output = usize;

    fn drive<S, B>(self, service: S) -> usize
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + Clone,
        B: http_body::Body<Data = Bytes>,
        B::Error: Into<StdError>,
    {
        let Self {
            work,
            sampling,
            runtime,
        } = self;
        let run = |calls| {
            runtime.block_on(async {
                for _ in 0..calls {
                    call(service.clone(), work, sampling, |_| ()).await;
                }
            });
        };
        run(WARM_UP.min(work.calls));
        let before = allocator::allocations();
        in_measured_region(&mut || run(work.calls));
        allocator::allocations() - before
    }
}

/// Where callgrind counts: it knows this function by its name.
#[inline(never)]
pub fn in_measured_region(run: &mut dyn FnMut()) {
    run();
    // Or the call above would be a jump, and this function at its end.
    black_box(());
}

/// Makes one call; `on_frame` is told how many frames of the response have come.
pub async fn call<S, B>(service: S, work: Work, sampling: Sampling, mut on_frame: impl FnMut(u32))
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<StdError>,
{
    let Ok(response) = service.oneshot(request(work, sampling)).await;
    let mut body = pin!(response.into_body());
    let mut frames = 0;
    let mut has_status = false;
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(Into::into).expect("no body fails");
        has_status |= is_ok(&frame);
        frames += 1;
        on_frame(frames);
    }
    // One that failed is another case.
    assert!(has_status, "a call was not OK");
    assert!(frames > work.times(Step::ResponseFrame), "{frames} frames");
}

fn is_ok(frame: &Frame<Bytes>) -> bool {
    let status = frame
        .trailers_ref()
        .and_then(|trailers| trailers.get("grpc-status"));
    status.is_some_and(|status| status == "0")
}

pub fn request(work: Work, sampling: Sampling) -> Request<Body> {
    let method = match work.step {
        Step::ResponseFrame => "SayHelloStream",
        Step::RequestFrame => "CollectHellos",
        _ => "SayHello",
    };
    let messages = work.times(Step::RequestFrame).max(1);
    let mut request = head(method);
    if work.is_continued {
        let flag = u8::from(sampling == Sampling::On);
        request = request
            .header("sentry-trace", format!("{TRACE_AND_SPAN}-{flag}"))
            .header("baggage", BAGGAGE)
            .header("traceparent", format!("00-{TRACE_AND_SPAN}-0{flag}"));
    }
    with_body(request, messages)
}

/// Of a call that is not answered.
pub fn request_to_wait() -> Request<Body> {
    with_body(head("Chat"), 1)
}

fn head(method: &str) -> Builder {
    Request::post(format!(
        "http://greeter.example.com/helloworld.Greeter/{method}"
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .header("user-agent", "tonic/0.14")
    // Which tonic's server leaves there, so that there is a place for what others leave.
    .extension(TcpConnectInfo {
        local_addr: Some(SocketAddr::from(([127, 0, 0, 1], 50_051))),
        remote_addr: Some(SocketAddr::from(([127, 0, 0, 1], 50_052))),
    })
}

fn with_body(request: Builder, messages: u32) -> Request<Body> {
    let body = Messages {
        left: messages,
        message: message(),
    };
    request.body(Body::new(body)).expect("all of it is valid")
}

/// A request of equal messages, one a frame.
struct Messages {
    left: u32,
    message: Bytes,
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.message.clone()))))
    }
}

fn message() -> Bytes {
    let message = hello().encode_to_vec();
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.len().try_into().expect("it is short"));
    bytes.put_slice(&message);
    bytes.freeze()
}
