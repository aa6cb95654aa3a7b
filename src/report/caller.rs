//! Who makes a call, as the application says.

use std::fmt;
use std::sync::Arc;

use sentry_core::protocol::{Map, User, Value};

use crate::fields;
use crate::report::tags;
use crate::rpc;

const MAX_TEXT_LEN: usize = 1024;
const MAX_TAGS: usize = 64;
const MAX_OTHER: usize = 32;

/// Who makes a call: the user and the tags of its transaction and of the errors in
/// it.
///
/// Made by the closure of
/// [`SentryServerLayer::identify_caller`](crate::SentryServerLayer::identify_caller). It is sent as it
/// is, whatever `send_default_pii` says: leave out what Sentry is not to know.
///
/// ```
/// use http::request::Parts;
/// use sentry::User;
/// use sentry_tonic::{SentryServerLayer, CallerIdentity};
///
/// /// What an authenticating layer outside of this one found out.
/// #[derive(Clone)]
/// struct Claims {
///     subject: String,
///     tenant: String,
/// }
///
/// let layer = SentryServerLayer::new().identify_caller(|request: &Parts| {
///     let Some(claims) = request.extensions.get::<Claims>() else {
///         return CallerIdentity::new().authenticated(false);
///     };
///     CallerIdentity::from(User {
///         id: Some(claims.subject.clone()),
///         ..User::default()
///     })
///     .authenticated(true)
///     .tag("tenant", &claims.tenant)
/// });
/// # let _ = layer;
/// ```
#[derive(Clone, Default)]
#[must_use = "a caller does nothing until it is returned"]
pub struct CallerIdentity {
    user: User,
    tags: Vec<(String, String)>,
    claims: Map<String, Value>,
}

impl CallerIdentity {
    /// Nobody that is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// The user. Texts are cut at 1024 bytes, other data at 32 entries; lists and objects in it
    /// are sent as texts of JSON.
    pub fn user(self, user: User) -> Self {
        Self { user, ..self }
    }

    /// A tag. It is left out if its value is empty, or if its key has other characters than
    /// letters, digits, `_`, `.`, `:` and `-`, which Sentry does not take. The value is cut at 200
    /// characters.
    pub fn tag(mut self, key: &str, value: impl fmt::Display) -> Self {
        let tag = tags::bounded(key, &value.to_string());
        self.tags.extend(tag.filter(|_| self.tags.len() < MAX_TAGS));
        self
    }

    /// How the caller was authenticated: the tag `auth.domain`.
    pub fn auth_domain(self, domain: &str) -> Self {
        self.tag("auth.domain", domain)
    }

    /// Whether the caller was authenticated: the tag `auth.authenticated`.
    pub fn authenticated(self, authenticated: bool) -> Self {
        self.tag("auth.authenticated", authenticated)
    }

    /// A verified claim of the caller. It is sent only if
    /// [`SentryServerLayer::claims`](crate::SentryServerLayer::claims) names it.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// Several [claims](Self::claim), as a decoded token has them.
    pub fn claims<N, V>(mut self, claims: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<String>,
        V: Into<Value>,
    {
        let claims = claims.into_iter();
        self.claims
            .extend(claims.map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Turns claims into tags and fields of the user, as `targets` says; drops all others.
    pub(crate) fn into_facts(mut self, targets: &ClaimTargets) -> CallerFacts {
        let claims = std::mem::take(&mut self.claims);
        let value_of = |claim: &str| claims.get(claim).and_then(text);
        for (claim, target) in targets.0.iter() {
            let Some(value) = value_of(claim) else {
                continue;
            };
            match target.strip_prefix(fields::USER_PREFIX) {
                Some(field) => set_field(&mut self.user, field, value),
                None => self = self.tag(target, value),
            }
        }
        CallerFacts {
            user: bounded(self.user),
            tags: self.tags,
        }
    }
}

impl From<User> for CallerIdentity {
    fn from(user: User) -> Self {
        Self::new().user(user)
    }
}

impl fmt::Debug for CallerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerIdentity").finish_non_exhaustive()
    }
}

/// Pairs of a claim and the field of the user, such as `user.id`, or the tag that it becomes.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClaimTargets(Arc<[(String, String)]>);

impl FromIterator<(String, String)> for ClaimTargets {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// What is sent of a caller.
#[derive(Debug, Default)]
pub(crate) struct CallerFacts {
    pub(crate) user: Option<User>,
    pub(crate) tags: Vec<(String, String)>,
}

fn text(claim: &Value) -> Option<String> {
    match claim {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(claim.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Sets a field of a user by its name in Sentry.
pub(crate) fn set_field(user: &mut User, field: &str, text: String) {
    match field {
        "id" => user.id = Some(text),
        "email" => user.email = Some(text),
        "name" | "username" => user.username = Some(text),
        "ip_address" => user.ip_address = text.parse().ok(),
        _ => {
            user.other.insert(field.to_owned(), text.into());
        }
    }
}

/// A user with the fields of `first`, and those of `second` that `first` does not have.
pub(crate) fn merged(first: User, second: User) -> User {
    let mut other = second.other;
    other.extend(first.other);
    User {
        id: first.id.or(second.id),
        email: first.email.or(second.email),
        ip_address: first.ip_address.or(second.ip_address),
        username: first.username.or(second.username),
        other,
    }
}

/// `None` where nothing is known of the user.
pub(crate) fn bounded(user: User) -> Option<User> {
    if is_nobody(&user) {
        return None;
    }
    let cut = |text: Option<String>| {
        text.filter(|text| !text.is_empty())
            .map(|text| rpc::clip(&text, MAX_TEXT_LEN).to_owned())
    };
    let other = user.other.into_iter().take(MAX_OTHER);
    let other = other.map(|(key, value)| {
        let value = match value {
            Value::String(text) => rpc::clip(&text, MAX_TEXT_LEN).into(),
            Value::Array(_) | Value::Object(_) => {
                rpc::bounded(MAX_TEXT_LEN, format_args!("{value}")).into()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        };
        (rpc::clip(&key, MAX_TEXT_LEN).to_owned(), value)
    });
    let user = User {
        id: cut(user.id),
        email: cut(user.email),
        ip_address: user.ip_address,
        username: cut(user.username),
        other: other.collect(),
    };
    (!is_nobody(&user)).then_some(user)
}

fn is_nobody(user: &User) -> bool {
    let User {
        id,
        email,
        ip_address,
        username,
        other,
    } = user;
    let texts = [id, email, username];
    texts.iter().all(|text| text.is_none()) && ip_address.is_none() && other.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_bounded_or_left_out() {
        let nobody = User {
            id: Some(String::new()),
            ..User::default()
        };
        assert_eq!(bounded(nobody), None);
        let mut other = Map::new();
        for i in 0..1000 {
            other.insert(format!("{i}"), "x".repeat(2000).into());
        }
        let huge = bounded(User {
            id: Some("é".repeat(1 << 20)),
            other,
            ..User::default()
        });
        let huge = huge.unwrap();
        assert_eq!(huge.id, Some("é".repeat(512)));
        assert_eq!(huge.other.len(), MAX_OTHER);
        assert_eq!(huge.other["0"], Value::from("x".repeat(1024)));
    }

    #[test]
    fn claims_go_where_they_are_sent_and_nowhere_else() {
        let pairs = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect()
        };
        let targets: Vec<_> = pairs(&[
            ("tenant", "auth.tenant"),
            ("sub", "user.id"),
            ("plan", "user.plan"),
            ("admin", "auth.admin"),
            ("gone", "gone"),
            ("ip", "user.ip_address"),
        ]);
        let told = CallerIdentity::new()
            .claims([("tenant", "acme"), ("sub", "u-1"), ("secret", "never")])
            .claim("admin", true)
            .claim("plan", 7)
            .claim("ip", "not an address")
            .claim("nested", Value::Array(vec![]))
            .into_facts(&targets.into_iter().collect());
        assert_eq!(
            told.tags,
            pairs(&[("auth.tenant", "acme"), ("auth.admin", "true")]) as Vec<_>
        );
        let user = User {
            id: Some("u-1".to_owned()),
            other: Map::from([("plan".to_owned(), "7".into())]),
            ..User::default()
        };
        assert_eq!(told.user, Some(user));
    }
}
