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
    /// What this thread passes to a transport beside the envelope that it sends.
    static BESIDE: RefCell<Beside> = const { RefCell::new(Beside::Nothing) };
}

#[derive(Debug, Default)]
enum Beside {
    #[default]
    Nothing,
    Transaction(WrittenTransaction),
    /// Asks for the recorder of the transport.
    Question,
    Answer(Recorder),
}

/// Runs `send` with something beside the envelope that it sends, and returns what is there then.
fn while_beside(beside: Beside, send: impl FnOnce()) -> Option<Beside> {
    /// A client may panic. What it left would be taken to be beside the next envelope.
    struct Clear;
    impl Drop for Clear {
        fn drop(&mut self) {
            let _ = BESIDE.try_with(RefCell::take);
        }
    }
    BESIDE.try_with(|slot| slot.replace(beside)).ok()?;
    let _clear = Clear;
    send();
    BESIDE.try_with(RefCell::take).ok()
}

/// Offers `transaction` while `send` runs, which sends an envelope through a client with a
/// transport of this crate. Returns whether the transport has taken it.
pub(crate) fn offer(transaction: WrittenTransaction, send: impl FnOnce()) -> bool {
    let left = while_beside(Beside::Transaction(transaction), send);
    matches!(left, Some(Beside::Nothing))
}

/// Counts what `client` loses; `None` where its transport is not of this crate.
pub(crate) fn recorder_of(client: &Client) -> Option<Recorder> {
    let ask = || ask(|| client.send_envelope(Envelope::new()));
    takes_offers(client).then(ask).flatten()
}

fn ask(send: impl FnOnce()) -> Option<Recorder> {
    match while_beside(Beside::Question, send)? {
        Beside::Answer(recorder) => Some(recorder),
        Beside::Nothing | Beside::Transaction(_) | Beside::Question => None,
    }
}

/// What a transport finds beside an envelope of this thread.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    Transaction(WrittenTransaction),
    /// A question, which is answered.
    Question,
}

/// Takes what is beside the envelope that this thread sends; `recorder` is that of the transport.
pub(crate) fn take(recorder: &Recorder) -> Found {
    let take = |slot: &RefCell<Beside>| match slot.take() {
        Beside::Nothing => Found::Nothing,
        Beside::Transaction(transaction) => Found::Transaction(transaction),
        Beside::Question => {
            slot.replace(Beside::Answer(recorder.clone()));
            Found::Question
        }
        answer @ Beside::Answer(_) => {
            slot.replace(answer);
            Found::Nothing
        }
    };
    BESIDE.try_with(take).unwrap_or(Found::Nothing)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::contained;

    fn transaction() -> WrittenTransaction {
        WrittenTransaction::new(b"{}\n".to_vec(), &Transaction::default())
    }

    fn found() -> Found {
        take(&Recorder::default())
    }

    #[test]
    fn what_is_offered_is_taken_once_or_comes_back() {
        assert!(offer(transaction(), || {
            assert!(matches!(found(), Found::Transaction(taken) if taken.bytes == b"{}\n"));
            assert!(matches!(found(), Found::Nothing));
        }));
        assert!(!offer(transaction(), || ()));
        assert!(matches!(found(), Found::Nothing));
    }

    #[test]
    fn a_question_is_answered_once() {
        let answer = ask(|| {
            assert!(matches!(found(), Found::Question));
            assert!(matches!(found(), Found::Nothing));
        });
        assert!(answer.is_some());
        assert!(ask(|| ()).is_none());
        assert!(matches!(found(), Found::Nothing));
    }

    #[test]
    fn a_panic_leaves_nothing_beside_the_next_envelope() {
        assert!(contained(|| offer(transaction(), || panic!("a client"))).is_none());
        assert!(matches!(found(), Found::Nothing));
        assert!(contained(|| ask(|| panic!("a client"))).is_none());
        assert!(matches!(found(), Found::Nothing));
    }
}
