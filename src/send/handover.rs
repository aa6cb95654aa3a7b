//! How written transactions get to this crate's transport: clients of sentry-core pass on envelopes
//! alone, and what is in them would have to be parsed and written once more.
//!
//! A transaction is offered on the thread that sends an envelope without it through the client. So
//! it takes its turn among all that the client sends, and nothing is offered to a client that was
//! closed.

use std::cell::RefCell;
use std::sync::{PoisonError, RwLock};

use sentry_core::client_report::Recorder;
use sentry_core::protocol::client_report::{Item, ItemLoss, LossSource, Reason};
use sentry_core::protocol::{ClientReport, Transaction};
use sentry_core::{Client, Envelope, TransportFactory};

/// An envelope with one transaction, as JSON.
#[derive(Debug)]
pub(crate) struct WrittenTransaction {
    pub(crate) bytes: Vec<u8>,
    /// What is lost with it: the transaction, and the spans in it.
    losses: [Option<ItemLoss>; 2],
}

impl WrittenTransaction {
    pub(crate) fn new(bytes: Vec<u8>, transaction: &Transaction<'_>) -> Self {
        let mut losses = transaction.losses();
        Self {
            bytes,
            losses: [losses.next(), losses.next()],
        }
    }

    pub(crate) fn losses(&self) -> impl Iterator<Item = ItemLoss> {
        self.losses.iter().flatten().copied()
    }

    /// The report of its loss.
    pub(crate) fn loss_report(&self, reason: Reason) -> ClientReport {
        let item = |loss: ItemLoss| Item::new(loss.category, reason, loss.quantity);
        let items: Vec<_> = self.losses().map(item).collect();
        ClientReport::new(items)
    }
}

thread_local! {
    static OFFERED: RefCell<Option<WrittenTransaction>> = const { RefCell::new(None) };
}

/// Offers `transaction` while `send` runs, which sends an envelope through a client with a
/// transport of this crate. Returns whether the transport has taken it.
pub(crate) fn offer(transaction: WrittenTransaction, send: impl FnOnce()) -> bool {
    let replace = |offer| OFFERED.try_with(|offered| offered.replace(offer)).ok();
    if replace(Some(transaction)).is_none() {
        return false;
    }
    send();
    replace(None).flatten().is_none()
}

/// Takes what is offered on this thread.
pub(crate) fn take() -> Option<WrittenTransaction> {
    OFFERED.try_with(RefCell::take).ok().flatten()
}

thread_local! {
    static QUESTION: RefCell<Question> = const { RefCell::new(Question::None) };
}

/// What this thread asks a transport, by an empty envelope.
enum Question {
    None,
    Asked,
    Answered(Recorder),
}

/// Counts what `client` loses; `None` where its transport is not of this crate.
pub(crate) fn recorder_of(client: &Client) -> Option<Recorder> {
    if !takes_offers(client) {
        return None;
    }
    let set = |question| QUESTION.try_with(|asked| asked.replace(question)).ok();
    set(Question::Asked)?;
    client.send_envelope(Envelope::new());
    match set(Question::None)? {
        Question::Answered(recorder) => Some(recorder),
        Question::None | Question::Asked => None,
    }
}

/// Answers the question of this thread; returns whether it asks one.
pub(crate) fn answer(recorder: &Recorder) -> bool {
    let answer = |question: &RefCell<Question>| {
        let mut question = question.borrow_mut();
        let is_asked = matches!(*question, Question::Asked);
        if is_asked {
            *question = Question::Answered(recorder.clone());
        }
        is_asked
    };
    QUESTION.try_with(answer).unwrap_or(false)
}

/// The addresses of the factories of this crate that have made transports, while they live.
static FACTORIES: RwLock<Vec<usize>> = RwLock::new(Vec::new());

/// Remembers that `factory` makes transports that take what is offered.
pub(crate) fn add_factory<T>(factory: &T) {
    let address = std::ptr::from_ref(factory).addr();
    let mut factories = FACTORIES.write().unwrap_or_else(PoisonError::into_inner);
    if !factories.contains(&address) {
        factories.push(address);
    }
}

/// Forgets a factory that is dropped.
pub(crate) fn remove_factory<T>(factory: &T) {
    let address = std::ptr::from_ref(factory).addr();
    let mut factories = FACTORIES.write().unwrap_or_else(PoisonError::into_inner);
    factories.retain(|known| *known != address);
}

/// Whether the transport of `client` takes what is offered: not if it is inside a transport of the
/// application, which may send from another thread.
pub(crate) fn takes_offers(client: &Client) -> bool {
    let address = |factory: &dyn TransportFactory| std::ptr::from_ref(factory).addr();
    let factory = client.options().transport.as_deref().map(address);
    let factories = FACTORIES.read().unwrap_or_else(PoisonError::into_inner);
    factory.is_some_and(|factory| factories.contains(&factory))
}
