//! One case, with the middleware and without.

use std::sync::Arc;

use http::HeaderMap;
use sentry_tonic::{PanicPolicy, SentryClientLayer, SentryServerLayer};
use tonic::Code;
use tower::{Layer, Service};

use crate::transparent::driver::drive;
use crate::transparent::inner::Inner;
use crate::transparent::oracle::{self, End};
use crate::transparent::played::Later;
use crate::transparent::script::Case;
use crate::transparent::seen::{Log, Part, Polled, Seen};
use crate::transparent::worlds::{Mood, STATUSES, Told, World, Worlds};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

/// Runs the case that these bytes make, and panics where the middleware shows.
pub(crate) fn check(worlds: &Worlds, side: Side, bytes: &[u8]) {
    let case = Case::new(bytes);
    let world = worlds.get(case.world);
    let bare = run(&case, world, side, false);
    assert_eq!(world.told(), Told::default(), "{case:#?}");
    let layered = run(&case, world, side, true);
    let told = world.told();
    let end = oracle::end(&case.request, &bare);
    let checked = Checked {
        case: &case,
        world,
        side,
        end,
    };
    checked.compare(&bare, &layered);
    checked.check_told(&told);
}

fn run(case: &Case, world: &World, side: Side, is_layered: bool) -> Vec<Seen> {
    let (log, later) = (Log::default(), Later::default());
    let mut inner = Inner {
        answer: Arc::new(case.answer.clone()),
        later: Arc::clone(&later),
        log: log.clone(),
    };
    match (side, is_layered) {
        (Side::Server, false) => drive(case, world, &log, &later, |it| inner.call(it)),
        (Side::Server, true) => {
            let mut service = SentryServerLayer::new()
                .panic_policy(case.panic_policy)
                .layer(inner);
            drive(case, world, &log, &later, |it| service.call(it));
        }
        (Side::Client, false) => drive(case, world, &log, &later, |it| {
            inner.call(it.map(tonic::body::Body::new))
        }),
        (Side::Client, true) => {
            let mut service = SentryClientLayer::new().layer(inner);
            drive(case, world, &log, &later, |it| service.call(it));
        }
    }
    // Nobody is left to be woken.
    later.lock().unwrap().clear();
    log.take()
}

struct Checked<'a> {
    case: &'a Case,
    world: &'a World,
    side: Side,
    end: End,
}

impl Checked<'_> {
    /// What ended the call is a panic of which the middleware takes care.
    fn caught_panic(&self) -> Option<Part> {
        let is_polled = |part: &Part| matches!(part, Part::Call | Part::Future | Part::Body);
        let panic_policy = match self.side {
            Side::Server => self.case.panic_policy,
            Side::Client => PanicPolicy::Ignore,
        };
        let is_caught = self.case.request.is_watched && panic_policy != PanicPolicy::Ignore;
        self.end.panic.filter(is_polled).filter(|_| is_caught)
    }

    fn compare(&self, bare: &[Seen], layered: &[Seen]) {
        let bare: Vec<&Seen> = bare.iter().collect();
        let layered: Vec<&Seen> = layered.iter().collect();
        let (mut bare, mut layered) = (bare.as_slice(), layered.as_slice());
        if let Some(part) = self.caught_panic() {
            let (before, after) = layered.split_at(self.end.at.min(layered.len()));
            match self.case.panic_policy {
                PanicPolicy::ReturnInternal => {
                    self.check_answer(part, after);
                    bare = &bare[..self.end.at];
                    layered = before;
                }
                // The drop of what has panicked is that of the middleware.
                _ => {
                    bare = &bare[..=self.end.at];
                    layered = &layered[..=self.end.at];
                }
            }
        }
        for (n, (bare, layered)) in bare.iter().zip(layered).enumerate() {
            assert!(
                self.is_same(bare, layered),
                "{n}: {bare:#?}\nbut {layered:#?}\n{:#?}",
                self.case
            );
        }
        assert_eq!(bare.len(), layered.len(), "{:#?}", self.case);
    }

    fn is_same(&self, bare: &Seen, layered: &Seen) -> bool {
        let can_send = !matches!(self.world.mood, Mood::NoClient | Mood::NoSubscriber);
        if let Seen::Request { headers, .. } = bare
            && self.side == Side::Client
            && self.case.request.is_watched
            && can_send
        {
            let bare_headers = headers;
            let mut layered = layered.clone();
            if let Seen::Request { headers, .. } = &mut layered {
                assert_eq!(of_others(headers), of_others(bare_headers));
                assert_eq!(headers.get_all("sentry-trace").iter().count(), 1);
                for name in ["sentry-trace", "baggage"] {
                    headers.remove(name);
                    for value in bare_headers.get_all(name) {
                        headers.append(name, value.clone());
                    }
                }
            }
            return layered == *bare;
        }
        bare == layered
    }

    /// In place of the panic, INTERNAL in a head or in trailers, and no more.
    fn check_answer(&self, part: Part, seen: &[&Seen]) {
        let case = self.case;
        let mut seen = seen.iter();
        if part == Part::Call {
            assert_eq!(seen.next(), Some(&&Seen::Called), "{case:#?}");
        }
        let told = seen.find(|seen| {
            matches!(
                seen,
                Seen::Head { .. } | Seen::Frame(_) | Seen::Future(_) | Seen::Dropped(_)
            )
        });
        let headers = match told {
            Some(Seen::Head { headers, .. }) if part != Part::Body => headers,
            Some(Seen::Frame(Polled::Trailers(trailers))) if part == Part::Body => trailers,
            // Nobody has asked it.
            Some(Seen::Dropped(Part::DropOfFuture)) if part == Part::Call => return,
            _ => panic!("{told:#?}\n{case:#?}"),
        };
        assert_eq!(headers["grpc-status"], "13");
        assert_eq!(headers["grpc-message"], "internal server error");
        for seen in seen {
            let is_quiet = match seen {
                Seen::Hints(hints) => *hints == Some((true, 0, Some(0))),
                Seen::Frame(Polled::End)
                | Seen::Future(Polled::Pending)
                | Seen::Woken(_)
                | Seen::Dropped(_)
                // Of one that was ready before its body panicked.
                | Seen::Panicked(Part::OldFuture | Part::DropOfOldFuture, _) => true,
                _ => false,
            };
            // An old future that is polled reads on.
            let is_inside = matches!(seen, Seen::RequestFrame(_));
            assert!(is_quiet || is_inside, "{seen:#?}\n{case:#?}");
        }
    }

    fn check_told(&self, told: &Told) {
        let Self { case, end, .. } = self;
        let code = end.code;
        let mood = self.world.mood;
        let has_subscriber = mood != Mood::NoSubscriber;
        let spans = usize::from(case.request.is_watched && has_subscriber);
        let can_send = !matches!(mood, Mood::NoClient | Mood::NoSubscriber);
        let is_told = case.request.is_watched && can_send;
        let is_fault = match end.panic {
            Some(_) => self.caught_panic().is_some(),
            None => matches!(code, Code::Unknown | Code::Internal | Code::DataLoss),
        };
        let says_nothing = || {
            let headers = &case.request.headers;
            !headers.contains_key("sentry-trace") && !headers.contains_key("traceparent")
        };
        let is_sampled = match mood {
            Mood::Sampler => true,
            Mood::Sampled if self.side == Side::Client || says_nothing() => true,
            // As the request says.
            Mood::Sampled | Mood::Unsampled if self.side == Side::Server && !says_nothing() => {
                !told.transactions.is_empty()
            }
            _ => false,
        };
        let status = STATUSES[code as usize];
        let expected = Told {
            transactions: vec![status; usize::from(is_told && is_sampled)],
            events: usize::from(is_told && is_fault && self.side == Side::Server),
            spans_made: spans,
            spans_closed: spans,
        };
        assert_eq!(*told, expected, "{end:?}\n{case:#?}");
    }
}

/// The members of baggage that are not Sentry's, as far as W3C's grammar allows them.
pub(crate) fn of_others(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let values = headers.get_all("baggage").iter();
    let members = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let texts = members.filter_map(|member| str::from_utf8(member).ok());
    let others = texts.filter(|member| is_well_formed(member) && !is_of_sentry(member));
    let mut found: Vec<_> = others.map(|member| member.as_bytes().to_vec()).collect();
    found.sort();
    found
}

fn is_of_sentry(member: &str) -> bool {
    member.trim().starts_with("sentry-")
}

fn is_well_formed(member: &str) -> bool {
    let is_key = |text: &str| {
        let is_legal = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^`|~_".contains(c);
        !text.is_empty() && text.chars().all(is_legal)
    };
    let is_value = |text: &str| {
        let are_legal = text
            .chars()
            .all(|c| c.is_ascii_graphic() && !"\"\\".contains(c));
        let mut escapes = text.split('%').skip(1).map(|text| text.get(..2));
        let is_hex = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit());
        are_legal && escapes.all(|escape| escape.is_some_and(is_hex))
    };
    let space = [' ', '\t'];
    let is_pair = |text: &str| {
        let parts = text.split_once('=');
        parts.is_some_and(|(key, value)| {
            is_key(key.trim_matches(space)) && is_value(value.trim_matches(space))
        })
    };
    let mut parts = member.split(';');
    parts.next().is_some_and(is_pair)
        && parts.all(|part| is_pair(part) || is_key(part.trim_matches(space)))
}
