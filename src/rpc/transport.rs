//! Status codes for the errors of `tonic::transport`.

use std::error::Error;
use std::io;

use h2::Reason;
use tonic::Code;

use crate::rpc::io_error;

/// The code that a caller gets for an error of hyper or h2; `None` where the error itself has
/// none. Its sources may.
///
/// See <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors>.
pub(crate) fn code(error: &(dyn Error + 'static)) -> Option<Code> {
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        // A keep-alive ping that nobody answered.
        if error.is_timeout() {
            return Some(Code::Unavailable);
        }
        if error.is_canceled() {
            return Some(Code::Cancelled);
        }
        return connection_code(error.source()?.downcast_ref()?);
    }
    let error = error.downcast_ref::<h2::Error>()?;
    if let Some(error) = error.get_io() {
        return connection_code(error);
    }
    Some(match error.reason()? {
        Reason::NO_ERROR
        | Reason::PROTOCOL_ERROR
        | Reason::INTERNAL_ERROR
        | Reason::FLOW_CONTROL_ERROR
        | Reason::SETTINGS_TIMEOUT
        | Reason::FRAME_SIZE_ERROR
        | Reason::COMPRESSION_ERROR
        | Reason::CONNECT_ERROR => Code::Internal,
        Reason::REFUSED_STREAM => Code::Unavailable,
        Reason::CANCEL => Code::Cancelled,
        Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
        Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
        _ => Code::Unknown,
    })
}

/// A connection that times out is lost, whatever time the call has left.
fn connection_code(error: &io::Error) -> Option<Code> {
    match error.kind() {
        io::ErrorKind::TimedOut => Some(Code::Unavailable),
        _ => io_error::code(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_map_as_grpc_says() {
        for (reason, expected) in [
            (Reason::NO_ERROR, Code::Internal),
            (Reason::PROTOCOL_ERROR, Code::Internal),
            (Reason::INTERNAL_ERROR, Code::Internal),
            (Reason::FLOW_CONTROL_ERROR, Code::Internal),
            (Reason::SETTINGS_TIMEOUT, Code::Internal),
            (Reason::FRAME_SIZE_ERROR, Code::Internal),
            (Reason::REFUSED_STREAM, Code::Unavailable),
            (Reason::CANCEL, Code::Cancelled),
            (Reason::COMPRESSION_ERROR, Code::Internal),
            (Reason::CONNECT_ERROR, Code::Internal),
            (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
            (Reason::INADEQUATE_SECURITY, Code::PermissionDenied),
            (Reason::STREAM_CLOSED, Code::Unknown),
        ] {
            let error = h2::Error::from(reason);
            assert_eq!(code(&error), Some(expected), "{reason}");
        }
    }

    #[test]
    fn a_connection_that_is_lost_is_unavailable_however_it_was() {
        for kind in [
            io::ErrorKind::TimedOut,
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::BrokenPipe,
        ] {
            assert_eq!(connection_code(&kind.into()), Some(Code::Unavailable));
        }
        assert_eq!(connection_code(&io::ErrorKind::Other.into()), None);
    }
}
