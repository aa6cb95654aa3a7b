//! Hands envelopes on to [Spotlight](https://spotlightjs.com), a Sentry UI that
//! runs on this machine.

use std::error::Error as StdError;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, timeout_at};

use super::uri::parse_uri;

type Error = Box<dyn StdError + Send + Sync>;

const DEFAULT: &str = "http://localhost:8969/stream";

/// For all envelopes together.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where Spotlight takes envelopes.
#[derive(Debug, PartialEq)]
pub(crate) struct Spotlight {
    stream: Uri,
}

impl Spotlight {
    /// At `url`, which may be that of its UI.
    pub(crate) fn at(url: &str) -> Result<Self, Error> {
        let uri = parse_uri(url).ok_or_else(|| {
            format!("must be an http:// URL such as http://127.0.0.1:8969, not {url}")
        })?;
        if uri.query().is_some() {
            return Err(format!("must be a URL without a query, not {url}").into());
        }
        let path = uri.path().trim_end_matches('/');
        let path = match path.ends_with("/stream") {
            true => path.to_owned(),
            false => format!("{path}/stream"),
        };
        let mut parts = uri.into_parts();
        parts.path_and_query = Some(path.parse()?);
        let stream = Uri::from_parts(parts)?;
        Ok(Self { stream })
    }

    /// As `SENTRY_SPOTLIGHT` says, see
    /// <https://develop.sentry.dev/sdk/foundations/client/integrations/spotlight/>.
    pub(crate) fn configured(value: &str) -> Result<Option<Self>, Error> {
        match value.trim().to_lowercase().as_str() {
            "" | "false" | "f" | "n" | "no" | "off" | "0" => Ok(None),
            "true" | "t" | "y" | "yes" | "on" | "1" => Self::at(DEFAULT).map(Some),
            _ => Self::at(value.trim()).map(Some),
        }
    }

    /// One after the other; gives back where to look at them. Fails if there is one
    /// that Spotlight did not take.
    pub(crate) fn forward(&self, envelopes: Vec<Bytes>) -> Result<String, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let count = envelopes.len();
        let errors = runtime.block_on(async {
            let client = Client::builder(TokioExecutor::new()).build_http();
            let deadline = Instant::now() + TIMEOUT;
            let mut errors = Vec::new();
            for envelope in envelopes {
                let sent = timeout_at(deadline, self.send(&client, envelope)).await;
                if let Err(error) = sent.unwrap_or_else(|_| Err("no answer in time".into())) {
                    errors.push(error);
                }
            }
            errors
        });
        let stream = self.stream.to_string();
        let Some(first) = errors.first() else {
            let ui = stream.strip_suffix("/stream").unwrap_or(&stream);
            return Ok(format!("{count} envelopes are in Spotlight now: {ui}"));
        };
        let failed = errors.len();
        let error = format!(
            "{failed} of {count} envelopes did not reach Spotlight at {stream}: {}",
            with_sources(&**first)
        );
        Err(error.into())
    }

    async fn send(
        &self,
        client: &Client<HttpConnector, Full<Bytes>>,
        envelope: Bytes,
    ) -> Result<(), Error> {
        let request = Request::post(&self.stream)
            // Spotlight drops what comes without.
            .header(CONTENT_TYPE, "application/x-sentry-envelope")
            .body(Full::new(envelope))?;
        let status = client.request(request).await?.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(format!("it answered {status}").into()),
        }
    }
}

/// An error of hyper has what is wrong in its sources.
fn with_sources(error: &dyn StdError) -> String {
    let sources = std::iter::successors(Some(error), |&error| error.source());
    let texts: Vec<String> = sources.map(ToString::to_string).collect();
    texts.join(": ")
}
