//! What threads meet at: that of std, or of [loom], which plays through every way to meet.
//!
//! `RUSTFLAGS="--cfg sentry_tonic_loom" cargo test --release --lib --target-dir target/loom loom`
//!
//! Under that flag no other tests work: what is of loom works inside its models alone.
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

    /// In words. What calls Sentry needs more than loom gives.
    const STACK: usize = 0x8000;

    /// That of std, where threads meet as they come to it. What it is set to must be made
    /// without meeting anybody.
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

    /// Runs `f` once for each way in which its threads may meet.
    pub(crate) fn model(f: impl Fn() + Send + Sync + 'static) {
        check(&Builder::new(), f);
    }

    /// Where there are too many ways: those in which no more than so many threads are
    /// interrupted.
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
