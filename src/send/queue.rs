//! The queue and the thread of a `TraceTransport`.
//!
//! Envelopes wait here instead of inside the inner transport, which is given no more at a time
//! than it has room for. What it dropped from a queue of its own could not be counted: by then
//! an envelope is bytes, and no longer says what it holds.

use std::sync::Arc;
use std::sync::mpsc::{
    self, Receiver, RecvTimeoutError, SendError, Sender, SyncSender, TryRecvError,
};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use sentry_core::client_report::{Reason, Recorder};
use sentry_core::protocol::client_report::{ItemLoss, LossSource, Reason as LossReason};
use sentry_core::{Envelope, Hub, Transport};

use crate::send::client_report::Losses;
use crate::send::envelope_writer::EnvelopeWriter;
use crate::send::handover::WrittenTransaction;
use crate::span_ext::guarded;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Names of threads are cut after 15 bytes.
const THREAD: &str = "sentry-queue";

/// Longer than any request of a transport takes.
const LONGEST_REQUEST: Duration = Duration::from_secs(3_600);

/// How long the thread goes on looking before it sleeps until it is woken. Waking it for each
/// envelope would double the cost of sending for the thread that sends.
const LINGER: Duration = Duration::from_millis(10);

/// How many envelopes wait, at most, before a sender wakes the thread: they share the cost.
const WAKE_AT: usize = 32;

/// Where envelopes wait for their turn.
pub(crate) struct SendQueue {
    jobs: Sender<Job>,
    state: Arc<State>,
    capacity: usize,
    thread: Option<Thread>,
    recorder: Recorder,
}

#[derive(Default)]
struct State {
    /// How many envelopes wait. Flushes do not count: they would have to wait for room,
    /// however little time they have.
    waiting: AtomicUsize,
    /// The queue was dropped: what still waits is not sent.
    is_abandoned: AtomicBool,
    /// What had no room. Not given to the recorder: the client would put its report into the
    /// next envelope, which most likely has no room either.
    lost: Losses,
}

#[expect(
    clippy::large_enum_variant,
    reason = "most are envelopes, which a box would only make more expensive"
)]
enum Job {
    Send(Envelope),
    /// With the losses that the envelope beside it reports.
    SendWritten(WrittenTransaction, Vec<ItemLoss>),
    End(EndRequest),
}

/// A flush or a shutdown, to be done once all that was sent before is gone.
struct EndRequest {
    kind: EndKind,
    /// `None` where it is too far away for an `Instant`.
    deadline: Option<Instant>,
    done: SyncSender<bool>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum EndKind {
    Flush,
    Shutdown,
}

impl SendQueue {
    /// `inner` is given up to `at_once` envelopes before it is waited for: it must have room
    /// for as many.
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
            in_transport: 0,
            at_once,
            state: Arc::clone(&state),
            writer: EnvelopeWriter::new(recorder.clone()),
        };
        // The first thread to ask for the main hub becomes its owner: not that of the queue.
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

    /// Queues the envelope. Never blocks: where there is no room, the envelope is lost.
    pub(crate) fn send(&self, envelope: Envelope) {
        match self.state.enter(self.capacity) {
            Some(before) => self.push(Job::Send(envelope), before),
            None => self
                .state
                .lost
                .add(envelope.losses(), LossReason::QueueOverflow),
        }
    }

    /// As [`send`](Self::send), a transaction that was written already. `beside` is the envelope
    /// that was sent beside it: all that may be in it is a client report.
    pub(crate) fn send_written(&self, transaction: WrittenTransaction, beside: &Envelope) {
        let reported: Vec<_> = beside.losses().collect();
        match self.state.enter(self.capacity) {
            Some(before) => self.push(Job::SendWritten(transaction, reported), before),
            None => {
                let lost = transaction.losses().chain(reported);
                self.state.lost.add(lost, LossReason::QueueOverflow);
            }
        }
    }

    /// Adds a job behind `before` others.
    fn push(&self, job: Job, before: usize) {
        if let Err(SendError(job)) = self.jobs.send(job) {
            let no_thread = Reason::InternalError;
            match job {
                Job::Send(envelope) => self.recorder.record_lost_data(&envelope, no_thread),
                Job::SendWritten(transaction, _) => {
                    let report = transaction.loss_report(LossReason::InternalSdkError);
                    self.recorder.record_lost_data(&report, no_thread);
                }
                Job::End(_) => {}
            }
        }
        // At a quarter of the capacity: more may come while the thread is waking up.
        if before + 1 == (self.capacity / 4).clamp(1, WAKE_AT) {
            self.wake();
        }
    }

    /// Keeps what an envelope reports for the next report.
    pub(crate) fn keep_losses(&self, reports: &Envelope) {
        if reports.items().next().is_some() {
            // Each loss in a report has a reason of its own.
            let no_reason = LossReason::QueueOverflow;
            self.state.lost.add(reports.losses(), no_reason);
        }
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }

    /// Whether all that was sent before was gone in time.
    pub(crate) fn end(&self, kind: EndKind, timeout: Duration) -> bool {
        let (done, is_done) = mpsc::sync_channel(1);
        let end = EndRequest {
            kind,
            deadline: Instant::now().checked_add(timeout),
            done,
        };
        if self.jobs.send(Job::End(end)).is_err() {
            return false;
        }
        self.wake();
        is_done.recv_timeout(timeout) == Ok(true)
    }
}

impl Drop for SendQueue {
    /// Does not wait for the thread, which may be in the middle of a request: closing a client
    /// has a timeout of its own.
    fn drop(&mut self) {
        self.state.is_abandoned.store(true, Ordering::Release);
    }
}

impl State {
    /// Takes a place, if there is one; returns how many were waiting before.
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
    in_transport: usize,
    at_once: usize,
    state: Arc<State>,
    writer: EnvelopeWriter,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        // The hub of this thread would keep its client, and the client this thread. Nor may
        // what happens here be reported to the client: to send the panic of a transport would
        // panic again.
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
        // A transport waits for its own thread as it is dropped, and that may have panicked.
        guarded(|| drop(self.inner));
    }

    fn work(&mut self, job: Result<Job, RecvTimeoutError>) {
        match job {
            Ok(Job::Send(envelope)) => {
                self.state.leave();
                self.writer.keep(self.state.lost.take());
                let written = self.writer.write(envelope);
                written
                    .into_iter()
                    .for_each(|envelope| self.hand_over(envelope));
            }
            Ok(Job::SendWritten(transaction, reported)) => {
                self.state.leave();
                self.writer.keep(self.state.lost.take());
                self.writer.keep(reported);
                let raw = self.writer.raw(transaction);
                raw.into_iter()
                    .for_each(|envelope| self.hand_over(envelope));
            }
            Ok(Job::End(end)) => self.end(&end),
            Err(_) => self.report(),
        }
    }

    fn next(&self, jobs: &Receiver<Job>) -> Result<Job, RecvTimeoutError> {
        if let Some(job) = next_within_linger(jobs) {
            return Ok(job);
        }
        match self.writer.report_due() {
            Some(due) => jobs.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => jobs.recv().map_err(RecvTimeoutError::from),
        }
    }

    fn report(&mut self) {
        self.writer.keep(self.state.lost.take());
        if let Some(report) = self.writer.take_report() {
            self.hand_over(report);
        }
    }

    fn hand_over(&mut self, envelope: Envelope) {
        // A flush that timed out has left envelopes there.
        if self.in_transport >= self.at_once {
            self.wait_for_inner();
        }
        self.inner.send_envelope(envelope);
        self.in_transport += 1;
        if self.in_transport >= self.at_once || self.state.is_nothing_waiting() {
            self.wait_for_inner();
        }
    }

    fn wait_for_inner(&mut self) {
        // First, for the flush may panic.
        self.in_transport = 0;
        self.inner.flush(LONGEST_REQUEST);
    }

    fn end(&mut self, end: &EndRequest) {
        self.report();
        let now = Instant::now();
        let left = end
            .deadline
            .map_or(LONGEST_REQUEST, |end| end.saturating_duration_since(now));
        let is_done = match end.kind {
            EndKind::Flush => self.inner.flush(left),
            EndKind::Shutdown => self.inner.shutdown(left),
        };
        // A flush that timed out takes a place in the queue of the transport itself.
        self.in_transport = if is_done { 0 } else { self.at_once };
        // The caller may have stopped waiting.
        let _ = end.done.try_send(is_done);
    }
}

/// The next job, if there is one or one comes within [`LINGER`].
fn next_within_linger(jobs: &Receiver<Job>) -> Option<Job> {
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
                        let event = Event::default();
                        return state.lost.add(event.losses(), LossReason::QueueOverflow);
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
