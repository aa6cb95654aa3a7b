//! What a process has of its system.

/// What this process uses, where it can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) threads: usize,
    pub(crate) files: usize,
    pub(crate) memory: usize,
}

impl Used {
    pub(crate) fn now() -> Self {
        let count = |path| std::fs::read_dir(path).map_or(0, Iterator::count);
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        Self {
            threads: count("/proc/self/task"),
            files: count("/proc/self/fd"),
            memory: pages.unwrap_or(0_usize) * 4096,
        }
    }

    /// Give or take what comes and goes.
    #[track_caller]
    pub(crate) fn assert_no_more_than(&self, warm: &Self) {
        // The ends of the last connection close by themselves.
        assert!(
            self.threads <= warm.threads && self.files <= warm.files + 2,
            "{self:?}, after {warm:?}"
        );
        assert!(
            self.memory <= warm.memory + 16_000_000,
            "{self:?}, after {warm:?}"
        );
    }
}
