//! Locks and atomics: those of std, or of [loom], which tries every order in which threads may
//! meet at them.
//!
//! `RUSTFLAGS="--cfg sentry_tonic_loom" cargo test --release --lib --target-dir target/loom loom`
//!
//! Under that flag no other tests work, as loom's types work only inside of its models.
//!
//! [loom]: https://docs.rs/loom

#[cfg(not(all(test, sentry_tonic_loom)))]
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock, atomic};

#[cfg(all(test, sentry_tonic_loom))]
pub(crate) use self::playing::{OnceLock, model, model_within, spawn};
#[cfg(all(test, sentry_tonic_loom))]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};

#[cfg(all(test, sentry_tonic_loom))]
mod playing {
    use std::sync::Arc;

    use loom::model::Builder;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread::{self, JoinHandle};

    /// The stack of a thread, in words: code of Sentry needs more than loom's default.
    const STACK: usize = 0x8000;

    /// That of std, with an atomic that lets loom see when threads come to it. The closure that
    /// makes the value must not wait for another thread.
    #[derive(Debug, Default)]
    pub(crate) struct OnceLock<T> {
        inner: std::sync::OnceLock<T>,
        comers: AtomicUsize,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self {
                inner: std::sync::OnceLock::new(),
                comers: AtomicUsize::new(0),
            }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            self.comers.fetch_add(1, Ordering::AcqRel);
            self.inner.get()
        }

        pub(crate) fn get_or_init(&self, f: impl FnOnce() -> T) -> &T {
            self.comers.fetch_add(1, Ordering::AcqRel);
            self.inner.get_or_init(f)
        }
    }

    /// Runs `f` once for each order in which its threads may meet.
    pub(crate) fn model(f: impl Fn() + Send + Sync + 'static) {
        check(&Builder::new(), f);
    }

    /// Where there are too many orders: runs only those with at most so many preemptions.
    pub(crate) fn model_within(interrupted: usize, f: impl Fn() + Send + Sync + 'static) {
        let mut builder = Builder::new();
        builder.preemption_bound.get_or_insert(interrupted);
        check(&builder, f);
    }

    fn check(builder: &Builder, f: impl Fn() + Send + Sync + 'static) {
        let f = Arc::new(f);
        builder.check(move || {
            let f = Arc::clone(&f);
            spawn(move || f()).join().unwrap();
        });
    }

    pub(crate) fn spawn<T: Send + 'static>(
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let builder = thread::Builder::new().stack_size(STACK);
        builder.spawn(f).unwrap()
    }
}
