//! Spans that are started, entered and closed by threads that meet at them.

use std::sync::{Arc, OnceLock, atomic::AtomicUsize as Count};

use sentry::test::TestTransport;
use sentry_core::protocol::{EnvelopeItem, Transaction};
use sentry_core::{Client, ClientOptions, Hub, TransactionContext, TransactionOrSpan};
use tracing::{Metadata, info_span};

use crate::bridge::begun::RootStart;
use crate::bridge::draft::SpanFields;
use crate::bridge::duration::StartTime;
use crate::bridge::local_root::LocalRoot;
use crate::bridge::options::LayerOptions;
use crate::bridge::origin::Origin;
use crate::bridge::span_cell::SpanCell;
use crate::span_ext::Enterer;
use crate::sync::atomic::Ordering;
use crate::sync::{model, model_within, spawn};

fn metadata() -> &'static Metadata<'static> {
    static METADATA: OnceLock<&'static Metadata<'static>> = OnceLock::new();
    let of_span = || info_span!("span").metadata().unwrap();
    METADATA
        .get_or_init(|| tracing::subscriber::with_default(tracing_subscriber::registry(), of_span))
}

fn cell(key: u64, origin: Origin, fields: Option<Box<SpanFields>>) -> Arc<SpanCell> {
    let mut options = LayerOptions::new();
    options.otel_ids = None;
    Arc::new(SpanCell::new(
        Arc::new(options),
        key,
        metadata(),
        origin,
        fields,
    ))
}

/// One for each test, whose thread all threads of its model share.
fn transport() -> (Arc<TestTransport>, Arc<Client>) {
    thread_local! {
        static CLIENT: (Arc<TestTransport>, Arc<Client>) = make();
    }
    fn make() -> (Arc<TestTransport>, Arc<Client>) {
        let transport = TestTransport::new();
        let options = ClientOptions::new()
            .dsn("https://public@sentry.invalid/1")
            .traces_sample_rate(1.0)
            .transport(Arc::clone(&transport));
        (transport, Arc::new(Client::from(options)))
    }
    CLIENT.with(Clone::clone)
}

/// A root in a transaction of the application, which is sent at the end.
struct World {
    transaction: sentry_core::Transaction,
    root: Arc<SpanCell>,
}

impl World {
    fn new() -> Self {
        let client = transport().1;
        let hub = Arc::new(Hub::new(Some(client), Arc::default()));
        let transaction = hub.start_transaction(TransactionContext::new("manual", "manual"));
        let app_span = Some(TransactionOrSpan::from(transaction.clone()));
        let root = cell(
            1,
            Origin::Root {
                base: hub,
                app_span,
            },
            None,
        );
        root.start();
        Self { transaction, root }
    }

    fn child(&self, key: u64) -> Arc<SpanCell> {
        let mut fields = SpanFields::default();
        fields.data.push(("number".into(), key.into()));
        cell(
            key,
            Origin::Child(Arc::clone(&self.root)),
            Some(Box::new(fields)),
        )
    }

    fn sent(self) -> Transaction<'static> {
        self.transaction.finish();
        let mut envelopes = transport().0.fetch_and_clear_envelopes();
        assert_eq!(envelopes.len(), 1);
        let Some(EnvelopeItem::Transaction(transaction)) = envelopes.remove(0).into_items().next()
        else {
            panic!("no transaction")
        };
        *transaction
    }
}

#[test]
fn a_span_that_threads_start_at_once_is_there_once_with_what_it_starts_with() {
    model_within(3, || {
        let world = World::new();
        let child = world.child(2);
        let threads = [(); 2].map(|()| {
            let child = Arc::clone(&child);
            spawn(move || {
                child.start();
            })
        });
        world.root.close();
        for thread in threads {
            thread.join().unwrap();
        }
        child.close();
        let spans = world.sent().spans;
        // A root inside a transaction of the application may end before.
        let (children, roots): (Vec<_>, Vec<_>) = spans
            .iter()
            .partition(|span| span.data.contains_key("number"));
        let ([child], [root]) = (&*children, &*roots) else {
            panic!("{spans:?}")
        };
        assert_eq!(child.parent_span_id, Some(root.span_id));
        assert_eq!(child.data["number"], 2);
    });
}

#[test]
fn a_root_is_sent_once_after_all_spans_that_it_took() {
    model(|| {
        let base = Arc::new(Hub::new(None, Arc::default()));
        let own = cell(
            1,
            Origin::Root {
                base: Arc::clone(&base),
                app_span: None,
            },
            None,
        );
        let root = LocalRoot::begin(&RootStart {
            base: &base,
            app_span: None,
            name: "root",
            op: "root",
            origin: "manual",
            incoming: None,
            only_if_parent: false,
            start: StartTime::now(),
            rpc: None,
            w3c: None,
            deduplicate_errors: true,
            part_duration: None,
        });
        let (open, sent) = (Arc::new(Count::new(0)), Arc::new(Count::new(0)));
        let send = {
            let (open, sent) = (Arc::clone(&open), Arc::clone(&sent));
            move || {
                assert_eq!(open.load(Ordering::Relaxed), 0);
                sent.fetch_add(1, Ordering::Relaxed);
            }
        };
        let threads = [1, 2].map(|spans| {
            let (root, open, send) = (Arc::clone(&root), Arc::clone(&open), send.clone());
            let sent = Arc::clone(&sent);
            spawn(move || {
                for _ in 0..spans {
                    if !root.child_opened() {
                        // Who is refused begins a root that goes on from this one.
                        assert!(root.trail.is_over());
                        continue;
                    }
                    assert_eq!(sent.load(Ordering::Relaxed), 0);
                    open.fetch_add(1, Ordering::Relaxed);
                    open.fetch_sub(1, Ordering::Relaxed);
                    if root.child_finished(None).is_some() {
                        send();
                    }
                }
            })
        });
        if !root.wait_for_children(&own) {
            send();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(sent.load(Ordering::Relaxed), 1);
        assert!(!root.child_opened());
    });
}

#[test]
fn threads_that_enter_a_span_at_once_have_hubs_of_their_own() {
    model(|| {
        let world = World::new();
        let child = world.child(2);
        child.start();
        let threads = [1, 2].map(|number| {
            let child = Arc::clone(&child);
            spawn(move || {
                let live = child.live().unwrap();
                child.acquire_slot(live, number, Enterer::Guest)
            })
        });
        let slots = threads.map(|thread| thread.join().unwrap());
        assert!(!Arc::ptr_eq(&slots[0].hub, &slots[1].hub));
        // One of them is at home, and the next one is again.
        let home = child.home.get().unwrap();
        assert_eq!(
            slots.iter().filter(|slot| Arc::ptr_eq(slot, home)).count(),
            1
        );
        slots.iter().for_each(|slot| slot.release());
        let live = child.live().unwrap();
        assert!(Arc::ptr_eq(
            &child.acquire_slot(live, 3, Enterer::Guest),
            home
        ));
        drop(slots);
        child.close();
        world.root.close();
        world.sent();
    });
}
