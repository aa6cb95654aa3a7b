//! Counts the messages in a stream of bytes that passes by unchanged.

use std::io::IoSlice;

use bytes::Buf;

/// The flag for compression and the length, in front of each message.
///
/// See <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests>.
const PREFIX_LEN: usize = 5;

/// No known transport has frames in so many pieces. A frame with more of them makes the count
/// unknown instead of wrong.
const MAX_PIECES: usize = 16;

/// Counts the length-prefixed messages that pass by, however they are cut into
/// frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageCounter {
    state: State,
    messages: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Prefix { read: usize, length: u32 },
    Payload { left: usize },
    Lost,
}

const START: State = State::Prefix { read: 0, length: 0 };

impl MessageCounter {
    pub(crate) const fn new() -> Self {
        Self {
            state: START,
            messages: 0,
        }
    }

    /// Messages begun so far; `None` once a frame could not be read in full.
    pub(crate) fn messages(&self) -> Option<u32> {
        (self.state != State::Lost).then_some(self.messages)
    }

    pub(crate) fn see(&mut self, frame: &impl Buf) {
        let chunk = frame.chunk();
        if chunk.len() == frame.remaining() {
            return self.see_bytes(chunk);
        }
        let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
        let filled = frame.chunks_vectored(&mut pieces);
        let pieces = pieces.get(..filled).unwrap_or_default();
        if pieces.iter().map(|piece| piece.len()).sum::<usize>() != frame.remaining() {
            self.state = State::Lost;
        }
        for piece in pieces {
            self.see_bytes(piece);
        }
    }

    fn begin(&mut self, length: u32) {
        self.messages = self.messages.saturating_add(1);
        self.state = match length as usize {
            0 => START,
            left => State::Payload { left },
        };
    }

    fn see_bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // Mostly a prefix is in one piece.
            if self.state == START
                && let Some((prefix, rest)) = bytes.split_first_chunk()
            {
                let [_, length @ ..]: [u8; PREFIX_LEN] = *prefix;
                bytes = rest;
                self.begin(u32::from_be_bytes(length));
                continue;
            }
            match self.state {
                State::Prefix { read, length } => {
                    let Some((&byte, rest)) = bytes.split_first() else {
                        return;
                    };
                    bytes = rest;
                    // The flag shifts out of the 32 bits of the length.
                    let length = (length << 8) | u32::from(byte);
                    if read + 1 < PREFIX_LEN {
                        self.state = State::Prefix {
                            read: read + 1,
                            length: if read == 0 { 0 } else { length },
                        };
                    } else {
                        self.begin(length);
                    }
                }
                State::Payload { left } => {
                    let taken = left.min(bytes.len());
                    bytes = bytes.get(taken..).unwrap_or_default();
                    self.state = match left - taken {
                        0 => START,
                        left => State::Payload { left },
                    };
                }
                State::Lost => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(len: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((len as u32).to_be_bytes());
        bytes.extend(vec![7; len]);
        bytes
    }

    #[test]
    fn counts_as_far_as_it_can_and_messages_of_any_length() {
        let mut counter = MessageCounter {
            messages: u32::MAX - 1,
            ..MessageCounter::new()
        };
        for _ in 0..3 {
            counter.see(&Bytes::from(message(0)));
            assert_eq!(counter.messages(), Some(u32::MAX));
        }
        let mut counter = MessageCounter::new();
        counter.see(&&b"\0\xff\xff\xff\xff"[..]);
        counter.see(&Bytes::from(message(3)));
        assert_eq!(counter.messages(), Some(1));
    }

    #[test]
    fn counts_however_the_bytes_are_cut() {
        let stream: Vec<u8> = [0, 1, 300, 0, 70_000, 5]
            .into_iter()
            .flat_map(message)
            .collect();
        for size in [1, 2, 3, 5, 7, 64, 1_000, stream.len()] {
            let mut counter = MessageCounter::new();
            for frame in stream.chunks(size) {
                counter.see(&Bytes::copy_from_slice(frame));
            }
            assert_eq!(counter.messages(), Some(6), "frames of {size}");
        }
    }

    #[test]
    fn counts_across_the_pieces_of_a_frame() {
        let mut counter = MessageCounter::new();
        let bytes = [message(3), message(4)].concat();
        let (a, b) = bytes.split_at(2);
        counter.see(&Bytes::copy_from_slice(a).chain(Bytes::copy_from_slice(b)));
        assert_eq!(counter.messages(), Some(2));
    }

    #[test]
    fn a_frame_in_too_many_pieces_makes_the_count_unknown() {
        /// Shows only its first byte, as the default of `chunks_vectored` allows.
        struct Shy(Bytes);
        impl Buf for Shy {
            fn remaining(&self) -> usize {
                self.0.remaining()
            }
            fn chunk(&self) -> &[u8] {
                &self.0.chunk()[..1]
            }
            fn advance(&mut self, cnt: usize) {
                self.0.advance(cnt);
            }
        }
        let mut counter = MessageCounter::new();
        counter.see(&Shy(Bytes::from(message(3))));
        assert_eq!(counter.messages(), None);
        counter.see(&Bytes::from(message(3)));
        assert_eq!(counter.messages(), None);
    }
}
