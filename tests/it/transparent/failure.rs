//! Errors of services and bodies, usual ones and hostile ones.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::resume_unwind;

use tonic::{Code, Status, TimeoutExpired};

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Named(u8),
    Status(Code),
    Io(io::ErrorKind),
    Timeout,
    /// Its own source.
    Circle,
    PanicsWhenPrinted,
    FailsWhenPrinted,
    PrintsForever,
    SourcePanics,
}

impl Failure {
    pub(crate) const ALL: [Self; 12] = [
        Self::Named(1),
        Self::Named(2),
        Self::Status(Code::NotFound),
        Self::Status(Code::Unknown),
        Self::Status(Code::DataLoss),
        Self::Io(io::ErrorKind::ConnectionReset),
        Self::Timeout,
        Self::Circle,
        Self::PanicsWhenPrinted,
        Self::FailsWhenPrinted,
        Self::PrintsForever,
        Self::SourcePanics,
    ];

    /// tonic prints what requests of a client fail with, and goes round in circles.
    pub(crate) const OF_REQUESTS: [Self; 4] = [
        Self::Named(1),
        Self::Status(Code::Cancelled),
        Self::Io(io::ErrorKind::BrokenPipe),
        Self::Timeout,
    ];

    pub(crate) fn error(self) -> BoxError {
        match self {
            Self::Status(code) => Status::new(code, "words").into(),
            Self::Io(kind) => io::Error::from(kind).into(),
            Self::Timeout => TimeoutExpired(()).into(),
            odd => Box::new(Odd(odd)),
        }
    }

    /// The code that a call ends with.
    pub(crate) fn code(self) -> Code {
        match self {
            Self::Status(code) => code,
            Self::Io(_) => Code::Unavailable,
            Self::Timeout => Code::DeadlineExceeded,
            _ => Code::Unknown,
        }
    }

    /// Which one an error is, that has come through.
    pub(crate) fn of(error: &dyn Any) -> Said {
        let Some(error) = error.downcast_ref::<BoxError>() else {
            let status = error.downcast_ref::<Status>().unwrap();
            return Said::Status(status.code(), status.message().to_owned());
        };
        if let Some(Odd(failure)) = error.downcast_ref() {
            Said::Failure(*failure)
        } else if let Some(status) = error.downcast_ref::<Status>() {
            Said::Failure(Self::Status(status.code()))
        } else if let Some(error) = error.downcast_ref::<io::Error>() {
            Said::Failure(Self::Io(error.kind()))
        } else {
            assert!(error.is::<TimeoutExpired>());
            Said::Failure(Self::Timeout)
        }
    }
}

/// What an error is, to who gets it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    Failure(Failure),
    /// tonic makes one of everything.
    Status(Code, String),
}

#[derive(Debug)]
struct Odd(Failure);

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Failure::PanicsWhenPrinted => resume_unwind(Box::new("the text panics")),
            Failure::FailsWhenPrinted => Err(fmt::Error),
            Failure::PrintsForever => loop {
                f.write_str("on and ")?;
            },
            _ => write!(f, "{:?}", self.0),
        }
    }
}

impl Error for Odd {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self.0 {
            Failure::SourcePanics => resume_unwind(Box::new("the source panics")),
            Failure::Circle => Some(self),
            _ => None,
        }
    }
}
