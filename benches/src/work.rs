//! What a call does, so that two kinds of calls differ in one thing.

use std::str::FromStr;

use crate::Error;

/// What there may be more of in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// An `#[instrument]` function without arguments.
    Child,
    /// One with three.
    ChildWithFields,
    /// One that lets other tasks run in between.
    Pause,
    Event,
    ClientCall,
    ResponseFrame,
    RequestFrame,
    ClientResponseFrame,
    ClientRequestFrame,
}

impl Step {
    const NAMES: [(&'static str, Self); 9] = [
        ("child", Self::Child),
        ("child-with-fields", Self::ChildWithFields),
        ("pause", Self::Pause),
        ("event", Self::Event),
        ("client-call", Self::ClientCall),
        ("response-frame", Self::ResponseFrame),
        ("request-frame", Self::RequestFrame),
        ("client-response-frame", Self::ClientResponseFrame),
        ("client-request-frame", Self::ClientRequestFrame),
    ];

    pub fn is_of_client(self) -> bool {
        matches!(
            self,
            Self::ClientCall | Self::ClientResponseFrame | Self::ClientRequestFrame
        )
    }
}

impl FromStr for Step {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        Ok(found.ok_or_else(|| format!("no step: {text}"))?.1)
    }
}

/// A number of equal calls, of `#[instrument]` handlers with one child each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Work {
    pub calls: u32,
    pub step: Step,
    /// How often the step is done in each call.
    pub times: u32,
    /// Whether calls come with a trace that they go on with.
    pub is_continued: bool,
}

impl Work {
    pub const fn new(calls: u32, step: Step, times: u32) -> Self {
        Self {
            calls,
            step,
            times,
            is_continued: false,
        }
    }

    pub const fn continued(self) -> Self {
        Self {
            is_continued: true,
            ..self
        }
    }

    /// How often `step` is to be done.
    pub fn times(self, step: Step) -> u32 {
        if self.step == step { self.times } else { 0 }
    }

    pub fn to_arguments(self) -> [String; 4] {
        let (name, _) = Step::NAMES[self.step as usize];
        [
            self.calls.to_string(),
            name.to_owned(),
            self.times.to_string(),
            self.is_continued.to_string(),
        ]
    }

    pub fn from_arguments(arguments: &[String]) -> Result<Self, Error> {
        let [calls, step, times, is_continued] = arguments else {
            return Err("a work is <calls> <step> <times> <is continued>".into());
        };
        Ok(Self {
            calls: calls.parse()?,
            step: step.parse()?,
            times: times.parse()?,
            is_continued: is_continued.parse()?,
        })
    }
}
