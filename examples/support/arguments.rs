//! The command line of `quickstart`.

use std::error::Error as StdError;

use super::spotlight::Spotlight;

type Error = Box<dyn StdError + Send + Sync>;

pub(crate) const USAGE: &str = "usage: quickstart [--json] [--spotlight http://<host>:<port>]";

pub(crate) struct Arguments {
    pub(crate) json: bool,
    pub(crate) spotlight: Option<Spotlight>,
}

impl Arguments {
    /// `None` where help is wanted.
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, Error> {
        let mut json = false;
        let mut spotlight = None;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--help" | "-h" => return Ok(None),
                "--json" => json = true,
                "--spotlight" => {
                    let url = arguments
                        .next()
                        .ok_or_else(|| format!("--spotlight needs a value, {USAGE}"))?;
                    let at = Spotlight::at(&url).map_err(|error| format!("--spotlight {error}"))?;
                    spotlight = Some(at);
                }
                _ => return Err(format!("unknown argument {argument:?}, {USAGE}").into()),
            }
        }
        if spotlight.is_none() {
            let value = std::env::var_os("SENTRY_SPOTLIGHT").unwrap_or_default();
            spotlight = Spotlight::configured(&value.to_string_lossy())
                .map_err(|error| format!("SENTRY_SPOTLIGHT {error}"))?;
        }
        Ok(Some(Self { json, spotlight }))
    }
}
