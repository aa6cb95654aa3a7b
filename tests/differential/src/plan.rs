//! A call tree as a list of steps.

use std::time::Duration;

use sentry::protocol::SpanStatus;
use tracing::Level;

/// What a number in a [`Plan`] names: a span, a hub, a task, or a text.
pub(crate) type Number = usize;

/// The number of the transaction that the application makes around everything.
pub(crate) const AROUND: Number = 0;

/// The shortest time after which a transaction is cut.
pub(crate) const PART: Duration = Duration::from_millis(10);

/// Headers, by name and value.
pub(crate) type Pairs = Vec<(String, String)>;

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) setup: Setup,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug)]
pub(crate) struct Step {
    /// Which thread carries it out, where there is more than one.
    pub(crate) worker: usize,
    pub(crate) op: Op,
}

#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) hub: HubMode,
    pub(crate) has_trace_transport: bool,
    /// Whether a `traces_sampler` decides, not a rate.
    pub(crate) by_sampler: bool,
    pub(crate) sessions: bool,
    pub(crate) pii: bool,
    pub(crate) max_breadcrumbs: usize,
    pub(crate) before_send: bool,
    pub(crate) before_breadcrumb: bool,
    pub(crate) panic_integration: bool,
    pub(crate) release: bool,
    pub(crate) span_level: Level,
    pub(crate) breadcrumb_level: Level,
    pub(crate) capture_errors: bool,
    pub(crate) deduplicate: bool,
    /// After which time a transaction is cut.
    pub(crate) parts: Option<Duration>,
    pub(crate) panic_policy: usize,
    pub(crate) traceparent: bool,
    pub(crate) only_if_parent: bool,
    pub(crate) force_transaction: bool,
    /// The application has a transaction around everything.
    pub(crate) is_around: bool,
}

/// Where the layer finds its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HubMode {
    /// The layer is told its hub.
    Pinned,
    /// The hub is current on each thread.
    Current,
    /// Both.
    PinnedAndCurrent,
    /// The client is that of the main hub.
    Main,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Open(Opening),
    Enter(Number),
    Exit(Number),
    In(Number, Vec<Op>),
    Record(Number, Field, Val),
    Close(Number),
    Continue(Number, Pairs),
    Fork(Number),
    OnHub(Number, Vec<Op>),
    WithScope(Number, Vec<Op>),
    Scope(Number, ScopeChange),
    /// The application begins a transaction, which is on no scope.
    Begin(Number, Pairs),
    /// ... makes a child of its own span, or of the one on the scope.
    Child(Number, Option<Number>),
    Set(Option<Number>, Number, Change),
    /// ... puts its own span on the scope meanwhile.
    Place(Number, Vec<Op>),
    Finish(Number),
    /// ... finishes the span on the scope, whosever it is.
    FinishCurrent,
    Crumb(Number),
    Log(Logged),
    Message(Number, sentry::Level),
    Error(Number, Text),
    Event(Number),
    /// A panic that the application catches, perhaps in a span.
    Panic(Number, Option<Number>),
    /// One that nobody catches here.
    Throw(Number),
    Ask(Number, Asked),
    Spawn(Spawned),
    Call(Call),
    Poll(Number, Vec<Order>),
    Drop(Number),
    /// A span with that many inside, one after the other.
    Many(Number, usize),
    Flush,
    /// Lets the time of a part pass.
    Wait,
    /// Drops all that is left.
    Clear,
}

#[derive(Debug, Clone)]
pub(crate) struct Opening {
    pub(crate) number: Number,
    pub(crate) kind: Kind,
    pub(crate) parent: Parent,
    pub(crate) fields: Vec<(Field, Val)>,
}

/// A callsite.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Bare,
    Named,
    Rich,
    Debug,
    Error,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Parent {
    Contextual,
    None,
    Of(Number),
}

/// A field of a [`Kind::Rich`] span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field(pub(crate) &'static str);

#[derive(Debug, Clone)]
pub(crate) enum Val {
    Text(String),
    Int(i64),
    Unsigned(u64),
    Float(f64),
    Bool(bool),
    Debug(String),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum ScopeChange {
    Tag,
    RemoveTag,
    Extra,
    User,
    NoUser,
    Context,
    Level,
    Fingerprint,
    Transaction,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Data,
    Tag,
    Status(SpanStatus),
    Name,
    Op,
}

/// A text of few, so that texts repeat each other, or one of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Text {
    Refused,
    CannotGreet,
    Own,
}

#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) number: Number,
    pub(crate) level: Level,
    pub(crate) parent: Parent,
    pub(crate) text: Text,
    pub(crate) has_error: bool,
}

/// Who is asked for the headers of an outgoing request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked {
    Current,
    Span(Number),
    Interceptor { traceparent: bool },
    SentrySpan,
    Scope,
}

#[derive(Debug, Clone)]
pub(crate) struct Spawned {
    pub(crate) task: Number,
    /// The span that it is instrumented with.
    pub(crate) span: Option<Number>,
    /// The hub that is bound to it.
    pub(crate) hub: Option<Number>,
    pub(crate) is_hub_outside: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) task: Number,
    pub(crate) side: Side,
    pub(crate) path: String,
    pub(crate) headers: Pairs,
    pub(crate) messages: usize,
    /// Whether the service is called at once, or as the task is first polled.
    pub(crate) is_eager: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Server,
    Client,
    /// A client whose service is a server in the same process.
    Through,
}

/// What a task does next, as it is polled. It is pending where there is nothing to do.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    Do(Vec<Op>),
    /// Reads the request.
    Read,
    /// Responds; with a status, there are no messages.
    Head(Option<Ending>),
    /// A response of HTTP, not of gRPC.
    Http(u16),
    /// The service, or the body, fails.
    Fail(Number, Text),
    Message,
    Trailers(Ending),
    End,
}

#[derive(Debug, Clone)]
pub(crate) struct Ending {
    pub(crate) code: i32,
    pub(crate) number: Number,
    pub(crate) text: Text,
}

impl Text {
    pub(crate) fn of(self, number: Number) -> String {
        match self {
            Self::Refused => "refused".to_owned(),
            Self::CannotGreet => "cannot greet: refused".to_owned(),
            Self::Own => format!("text {number}"),
        }
    }
}
