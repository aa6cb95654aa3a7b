//! Status codes for errors of I/O.

use std::io;

use tonic::Code;

/// The code that an error means for its call; `None` for kinds of errors that are about neither the
/// connection nor time.
pub(crate) fn code(error: &io::Error) -> Option<Code> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Some(Code::Unavailable),
        io::ErrorKind::TimedOut => Some(Code::DeadlineExceeded),
        _ => None,
    }
}
