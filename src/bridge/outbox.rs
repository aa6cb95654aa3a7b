//! The thread of a `TraceTransport`.
//!
//! Envelopes wait here instead of inside the transport, which gets no more at a time than
//! it has room for: of what it lost in a queue of its own, bytes would not tell the kind
//! and number.

use std::sync::Arc;
use std::sync::mpsc::{
    self, Receiver, RecvTimeoutError, SendError, Sender, SyncSender, TryRecvError,
};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use sentry_core::client_report::{Reason, Recorder};
use sentry_core::protocol::client_report::Reason as LossReason;
use sentry_core::{Envelope, Hub, Transport};

use crate::bridge::losses::Losses;
use crate::bridge::parcel::Packer;
use crate::span_ext::guarded;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Names of threads are cut after 15 bytes.
const THREAD: &str = "sentry-outbox";

/// Longer than any request takes.
const LONG: Duration = Duration::from_secs(3_600);

/// How long the thread lets more come before it has itself woken by the next one: that
/// costs who sends as much as all else of sending, and would be for each envelope.
const LINGER: Duration = Duration::from_millis(10);

/// So many share the price of waking it.
const MANY: usize = 32;

/// Where envelopes wait for their turn.
pub(crate) struct Outbox {
    jobs: Sender<Job>,
    state: Arc<State>,
    capacity: usize,
    thread: Option<Thread>,
    recorder: Recorder,
}

#[derive(Default)]
struct State {
    /// The envelopes that wait. Flushes do not count, or they would have to wait
    /// for room, however little time they have.
    waiting: AtomicUsize,
    /// What waits is not sent any more.
    is_abandoned: AtomicBool,
    /// What had no room. The recorder would have the client make a report for the next
    /// envelope, which most likely has no room either.
    lost: Losses,
}

#[expect(
    clippy::large_enum_variant,
    reason = "most are envelopes, which a box would only make more expensive"
)]
enum Job {
    Send(Envelope),
    End(End),
}

/// To be done when all that was sent before is gone.
struct End {
    way: Way,
    /// `None` where that is too far away to tell.
    deadline: Option<Instant>,
    done: SyncSender<bool>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Flush,
    Shutdown,
}

impl Outbox {
    /// With an inner transport that surely keeps as many as `at_once`.
    pub(crate) fn new(
        inner: Arc<dyn Transport>,
        capacity: usize,
        at_once: usize,
        recorder: Recorder,
    ) -> Self {
        let (jobs, received) = mpsc::channel();
        let state = Arc::default();
        let worker = Worker {
            inner,
            inside: 0,
            at_once,
            state: Arc::clone(&state),
            packer: Packer::new(recorder.clone()),
        };
        // The thread must not be the first to look at it: it would be that of the main hub.
        let _ = Hub::main();
        // Without a thread, what is sent is lost, and counted.
        let thread = thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn(move || worker.run(&received));
        Self {
            jobs,
            state,
            capacity,
            thread: thread.ok().map(|thread| thread.thread().clone()),
            recorder,
        }
    }

    /// Does not wait: where there is no room, the envelope is lost.
    pub(crate) fn send(&self, envelope: Envelope) {
        let Some(before) = self.state.enter(self.capacity) else {
            return self.state.lost.add(&envelope, LossReason::QueueOverflow);
        };
        if let Err(SendError(Job::Send(envelope))) = self.jobs.send(Job::Send(envelope)) {
            let no_thread = Reason::InternalError;
            self.recorder.record_lost_data(&envelope, no_thread);
        }
        // Most of the room is for what comes while the thread is still waking up.
        if before + 1 == (self.capacity / 4).clamp(1, MANY) {
            self.hurry();
        }
    }

    fn hurry(&self) {
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }

    /// Whether all that was sent before was gone in time.
    pub(crate) fn end(&self, way: Way, timeout: Duration) -> bool {
        let (done, is_done) = mpsc::sync_channel(1);
        let end = End {
            way,
            deadline: Instant::now().checked_add(timeout),
            done,
        };
        if self.jobs.send(Job::End(end)).is_err() {
            return false;
        }
        self.hurry();
        is_done.recv_timeout(timeout) == Ok(true)
    }
}

impl Drop for Outbox {
    /// Does not wait for the thread: it may be amid a request, and who closes a client
    /// has said how long that may take.
    fn drop(&mut self) {
        self.state.is_abandoned.store(true, Ordering::Release);
    }
}

impl State {
    /// How many were waiting before, where there is room for one more.
    fn enter(&self, capacity: usize) -> Option<usize> {
        let more = |waiting: usize| (waiting < capacity).then_some(waiting.saturating_add(1));
        let order = Ordering::Relaxed;
        self.waiting.fetch_update(order, order, more).ok()
    }

    fn leave(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    fn is_nothing_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }
}

struct Worker {
    inner: Arc<dyn Transport>,
    /// What the inner transport may not have sent yet.
    inside: usize,
    at_once: usize,
    state: Arc<State>,
    packer: Packer,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        // A hub holds its client, which would not go, and this thread with it. Nor is what
        // happens here for the client: to send a panic of its transport makes another one.
        guarded(|| Hub::current().bind_client(None));
        loop {
            let job = self.next(jobs);
            let is_over = matches!(job, Err(RecvTimeoutError::Disconnected));
            if is_over || self.state.is_abandoned.load(Ordering::Acquire) {
                break;
            }
            // A transport may panic, and the next envelope is still to be sent.
            guarded(|| self.work(job));
        }
        // It waits for a thread of its own, which may have panicked.
        guarded(|| drop(self.inner));
    }

    fn work(&mut self, job: Result<Job, RecvTimeoutError>) {
        match job {
            Ok(Job::Send(envelope)) => {
                self.state.leave();
                self.send(envelope);
            }
            Ok(Job::End(end)) => self.end(&end),
            Err(_) => self.report(),
        }
    }

    fn next(&self, jobs: &Receiver<Job>) -> Result<Job, RecvTimeoutError> {
        if let Some(job) = soon(jobs) {
            return Ok(job);
        }
        match self.packer.report_due() {
            Some(due) => jobs.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => jobs.recv().map_err(RecvTimeoutError::from),
        }
    }

    fn send(&mut self, envelope: Envelope) {
        self.packer.keep(self.state.lost.take());
        if let Some(parcel) = self.packer.pack(envelope) {
            self.hand_over(parcel);
        }
    }

    fn report(&mut self) {
        self.packer.keep(self.state.lost.take());
        if let Some(report) = self.packer.take_report() {
            self.hand_over(report);
        }
    }

    fn hand_over(&mut self, parcel: Envelope) {
        // What a flush in too little time has left there.
        if self.inside >= self.at_once {
            self.wait_for_inner();
        }
        self.inner.send_envelope(parcel);
        self.inside += 1;
        if self.inside >= self.at_once || self.state.is_nothing_waiting() {
            self.wait_for_inner();
        }
    }

    fn wait_for_inner(&mut self) {
        // It may panic.
        self.inside = 0;
        self.inner.flush(LONG);
    }

    fn end(&mut self, end: &End) {
        self.report();
        let now = Instant::now();
        let left = end
            .deadline
            .map_or(LONG, |end| end.saturating_duration_since(now));
        let is_done = match end.way {
            Way::Flush => self.inner.flush(left),
            Way::Shutdown => self.inner.shutdown(left),
        };
        // A flush that has not come to its end takes room in the queue itself.
        self.inside = if is_done { 0 } else { self.at_once };
        // Who asked may have stopped waiting.
        let _ = end.done.try_send(is_done);
    }
}

/// A job that is there, or comes before long.
fn soon(jobs: &Receiver<Job>) -> Option<Job> {
    let start = Instant::now();
    loop {
        match jobs.try_recv() {
            Err(TryRecvError::Empty) => {}
            job => return job.ok(),
        }
        let left = LINGER.checked_sub(start.elapsed())?;
        thread::park_timeout(left);
    }
}

#[cfg(all(test, sentry_tonic_loom))]
mod loom_models {
    use std::sync::atomic::AtomicUsize as Count;

    use loom::sync::mpsc;
    use sentry_core::protocol::Event;

    use super::*;
    use crate::sync::{model, spawn};

    #[test]
    fn each_that_enters_has_a_number_of_its_own_for_one_to_wake_the_thread() {
        model(|| {
            let state = Arc::new(State::default());
            let enter = |state: Arc<State>| spawn(move || state.enter(3));
            let threads = [(); 3].map(|()| enter(Arc::clone(&state)));
            let mut before = threads.map(|thread| thread.join().unwrap());
            before.sort_unstable();
            assert_eq!(before, [Some(0), Some(1), Some(2)]);
            assert_eq!(state.enter(3), None);
        });
    }

    #[test]
    fn no_more_wait_than_there_is_room_for_and_each_is_sent_or_lost() {
        const CAPACITY: usize = 1;
        model(|| {
            let state = Arc::new(State::default());
            let waiting = Arc::new(Count::new(0));
            let (jobs, received) = mpsc::channel();
            let threads = [(); 2].map(|()| {
                let (state, waiting) = (Arc::clone(&state), Arc::clone(&waiting));
                let jobs = jobs.clone();
                spawn(move || {
                    if state.enter(CAPACITY).is_none() {
                        let event = Event::default().into();
                        return state.lost.add(&event, LossReason::QueueOverflow);
                    }
                    assert!(waiting.fetch_add(1, Ordering::Relaxed) < CAPACITY);
                    jobs.send(()).unwrap();
                })
            });
            let (mut sent, mut lost) = (0, vec![]);
            let mut work = || {
                if received.try_recv().is_ok() {
                    waiting.fetch_sub(1, Ordering::Relaxed);
                    state.leave();
                    sent += 1;
                    lost.extend(state.lost.take());
                }
            };
            work();
            work();
            for thread in threads {
                thread.join().unwrap();
            }
            work();
            assert!(state.is_nothing_waiting());
            lost.extend(state.lost.take());
            let lost: u64 = lost.iter().map(|loss| loss.quantity).sum();
            assert_eq!(sent + lost, 2);
        });
    }
}
