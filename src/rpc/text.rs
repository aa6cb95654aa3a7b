//! Limits on text that somebody else wrote.

use std::fmt::{self, Write};

use crate::rpc::contained::contained;

/// The longest piece of `text` that is at most `max` bytes long and ends at a
/// character.
pub(crate) fn clip(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let end = (0..=max)
        .rev()
        .find(|&i| text.is_char_boundary(i))
        .unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// Prints at most the first `max` bytes. Foreign code that prints may go on for ever, or panic.
pub(crate) fn bounded(max: usize, text: fmt::Arguments<'_>) -> String {
    struct Bounded {
        text: String,
        max: usize,
    }

    impl Write for Bounded {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            let left = self.max - self.text.len();
            self.text.push_str(clip(part, left));
            if part.len() > left {
                Err(fmt::Error)
            } else {
                Ok(())
            }
        }
    }

    let mut bounded = Bounded {
        text: String::new(),
        max,
    };
    // An error means that there is more. After a panic, what was written so far counts.
    let _ = contained(|| bounded.write_fmt(text));
    bounded.text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_at_a_character() {
        assert_eq!(clip("abc", 3), "abc");
        assert_eq!(clip("abcd", 3), "abc");
        assert_eq!(clip("aé", 2), "a");
        assert_eq!(clip("é", 1), "");
        assert_eq!(clip("", 0), "");
    }
}
