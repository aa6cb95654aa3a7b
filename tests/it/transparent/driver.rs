//! Whoever makes the call: polls and drops it as a script says.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::Body;
use tonic::Status;

use crate::transparent::failure::{BoxError, Failure};
use crate::transparent::played::{Later, Played, whole};
use crate::transparent::script::{Case, Finish, Op};
use crate::transparent::seen::{Log, Part, Polled, Seen, caught, hints};
use crate::transparent::worlds::World;

/// More polls than any script has steps.
const MAX_POLLS: usize = 24;

#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) struct Driver<'a, F, B> {
    case: &'a Case,
    world: &'a World,
    log: Log,
    later: Later,
    counters: [Arc<Counter>; 2],
    future: Option<Pin<Box<F>>>,
    old_future: Option<Pin<Box<F>>>,
    body: Option<Pin<Box<B>>>,
    /// The body said that there is no more, in one way or another.
    has_ended: bool,
    is_over: bool,
}

/// Makes the call, and returns once all of it is gone.
pub(crate) fn drive<F, B>(
    case: &Case,
    world: &World,
    log: &Log,
    later: &Later,
    call: impl FnOnce(Request<Played<Bytes>>) -> F,
) where
    F: Future<Output = Result<Response<B>, BoxError>> + Send,
    B: Body + Send,
    B::Data: Buf,
    B::Error: Any,
{
    let mut driver = Driver {
        case,
        world,
        log: log.clone(),
        later: Arc::clone(later),
        counters: Default::default(),
        future: None,
        old_future: None,
        body: None,
        has_ended: false,
        is_over: false,
    };
    let request = request(case, later);
    match driver.world.within(|| caught(|| Box::pin(call(request)))) {
        Ok(future) => {
            log.push(Seen::Called);
            driver.future = Some(future);
        }
        Err(said) => return log.push(Seen::Panicked(Part::Call, said)),
    }
    for op in &case.ops {
        if driver.is_over {
            break;
        }
        driver.run(*op);
    }
    driver.finish();
}

fn request(case: &Case, later: &Later) -> Request<Played<Bytes>> {
    let script = &case.request;
    let mut request = Request::new(Played::new(&script.body, later, None, whole));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = format!("http://localhost:50051{}", script.path)
        .parse()
        .unwrap();
    *request.version_mut() = script.version;
    *request.headers_mut() = script.headers.clone();
    request.extensions_mut().insert("of the request");
    request
}

impl<F, B> Driver<'_, F, B>
where
    F: Future<Output = Result<Response<B>, BoxError>> + Send,
    B: Body + Send,
    B::Data: Buf,
    B::Error: Any,
{
    fn run(&mut self, op: Op) {
        match op {
            Op::Poll => self.poll(0),
            Op::PollAnother => self.poll(1),
            Op::PollOnThread => {
                std::thread::scope(|scope| scope.spawn(|| self.poll(0)).join().unwrap());
            }
            Op::AskHints => self.ask_hints(),
            Op::WakeLater => {
                let wakers = std::mem::take(&mut *self.later.lock().unwrap());
                wakers.into_iter().for_each(Waker::wake);
                self.look_at_wakers();
            }
            Op::PollFutureAgain => self.poll_old_future(),
            Op::DropOldFuture => {
                let future = self.old_future.take();
                self.drop_part(Part::DropOfOldFuture, future);
            }
            Op::Drop => self.is_over = true,
        }
    }

    fn poll(&mut self, waker: usize) {
        let waker = Waker::from(Arc::clone(&self.counters[waker]));
        let mut cx = Context::from_waker(&waker);
        if let Some(mut future) = self.future.take() {
            let polled = self
                .world
                .within(|| caught(|| future.as_mut().poll(&mut cx)));
            match polled {
                Ok(Poll::Pending) => {
                    self.log.push(Seen::Future(Polled::Pending));
                    self.future = Some(future);
                }
                Ok(Poll::Ready(Ok(response))) => {
                    self.log.push(head(&response));
                    self.body = Some(Box::pin(response.into_body()));
                    self.old_future = Some(future);
                }
                Ok(Poll::Ready(Err(error))) => {
                    let failed = Polled::Failed(Failure::of(&error));
                    self.log.push(Seen::Future(failed));
                    self.old_future = Some(future);
                }
                Err(said) => {
                    self.panicked(Part::Future, said);
                    self.future = Some(future);
                }
            }
        } else if let Some(mut body) = self.body.take() {
            let polled = self
                .world
                .within(|| caught(|| body.as_mut().poll_frame(&mut cx)));
            self.body = Some(body);
            match polled {
                Ok(polled) => {
                    let polled = Polled::frame(polled);
                    self.has_ended |= !matches!(polled, Polled::Pending | Polled::Data(_));
                    self.log.push(Seen::Frame(polled));
                }
                Err(said) => self.panicked(Part::Body, said),
            }
        }
        self.look_at_wakers();
    }

    /// Of what has panicked nothing is used again.
    fn panicked(&mut self, part: Part, said: String) {
        self.log.push(Seen::Panicked(part, said));
        self.is_over = true;
    }

    fn poll_old_future(&mut self) {
        let Some(mut future) = self.old_future.take() else {
            return;
        };
        let waker = Waker::noop();
        let mut cx = Context::from_waker(waker);
        match self
            .world
            .within(|| caught(|| future.as_mut().poll(&mut cx).is_pending()))
        {
            Ok(is_pending) => {
                assert!(is_pending);
                self.log.push(Seen::Future(Polled::Pending));
            }
            Err(said) => self.log.push(Seen::Panicked(Part::OldFuture, said)),
        }
        self.old_future = Some(future);
    }

    fn look_at_wakers(&self) {
        let counts = [0, 1].map(|n| self.counters[n].0.load(Ordering::Relaxed));
        self.log.push(Seen::Woken(counts));
    }

    fn ask_hints(&self) {
        if let Some(body) = &self.body {
            self.log.push(hints(&**body));
        }
    }

    fn finish(&mut self) {
        for _ in 0..MAX_POLLS {
            let is_polled = match self.case.finish {
                Finish::Drop => false,
                Finish::LikeHyper => !self.is_at_end(),
                Finish::BeyondTheEnd => true,
            };
            if self.is_over || !is_polled {
                break;
            }
            self.poll(0);
        }
        // What the body says as it is dropped may be the last that it says.
        self.ask_hints();
        let (body, future) = (self.body.take(), self.future.take());
        self.drop_part(Part::DropOfBody, body);
        self.drop_part(Part::DropOfFuture, future);
        let old_future = self.old_future.take();
        self.drop_part(Part::DropOfOldFuture, old_future);
        self.look_at_wakers();
    }

    fn is_at_end(&self) -> bool {
        let Some(body) = &self.body else {
            return self.future.is_none();
        };
        self.has_ended || caught(|| body.is_end_stream()).unwrap_or(true)
    }

    fn drop_part<T>(&self, part: Part, value: Option<T>) {
        if let Some(value) = value {
            self.log
                .push(match self.world.within(|| caught(|| drop(value))) {
                    Ok(()) => Seen::Dropped(part),
                    Err(said) => Seen::Panicked(part, said),
                });
        }
    }
}

fn head<B>(response: &Response<B>) -> Seen {
    Seen::Head {
        status: response.status(),
        version: response.version(),
        headers: response.headers().clone(),
        extension: response.extensions().get::<&'static str>().copied(),
        has_status: response.extensions().get::<Status>().is_some(),
    }
}
