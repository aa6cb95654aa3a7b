//! What all transactions of a client say of it.

use std::borrow::Cow;

use sentry_core::Client;
use sentry_core::protocol::{ClientSdkInfo, ClientSdkPackage, Transaction};

use crate::send::json::{Json, Members, Unwritable};

/// The name of this crate among integrations.
const INTEGRATION: &str = "tonic";
const PACKAGE: &str = "cargo:sentry-tonic";

/// As Sentry's SDK for Rust says of events.
const PLATFORM: &str = "native";

/// Release, environment, name of the server, and SDK of a client.
#[derive(Debug)]
pub(crate) struct ClientInfo {
    release: Option<Cow<'static, str>>,
    environment: Option<Cow<'static, str>>,
    server_name: Option<Cow<'static, str>>,
    sdk: Option<ClientSdkInfo>,
    /// All of it as members of an object.
    json: Result<String, Unwritable>,
}

impl ClientInfo {
    /// `sdk` is what sentry-core says of itself.
    pub(crate) fn new(client: &Client, mut sdk: Option<ClientSdkInfo>) -> Self {
        let options = client.options();
        if let Some(sdk) = &mut sdk {
            let integrations = options.integrations.iter();
            let integrations = integrations.map(|integration| integration.name());
            let integrations = integrations.chain([INTEGRATION]);
            sdk.integrations = integrations.map(str::to_owned).collect();
            sdk.packages.push(ClientSdkPackage {
                name: PACKAGE.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            });
        }
        let mut info = Self {
            release: options.release.clone(),
            environment: options.environment.clone(),
            server_name: options.server_name.clone(),
            sdk,
            json: Err(Unwritable),
        };
        info.json = info.written();
        info
    }

    fn written(&self) -> Result<String, Unwritable> {
        let mut json = Json::default();
        let mut members = Members::inside(&mut json);
        members.known("\"platform\":").text(PLATFORM);
        for (name, value) in [
            ("\"release\":", &self.release),
            ("\"environment\":", &self.environment),
            ("\"server_name\":", &self.server_name),
        ] {
            if let Some(value) = value {
                members.known(name).text(value);
            }
        }
        if let Some(sdk) = &self.sdk {
            members.known("\"sdk\":").serialized(sdk)?;
        }
        String::from_utf8(json.into_bytes()).map_err(|_| Unwritable)
    }

    /// As members of an object.
    pub(crate) fn json(&self) -> Result<&str, Unwritable> {
        self.json.as_deref().map_err(|unwritable| *unwritable)
    }

    pub(crate) fn add_to(&self, transaction: &mut Transaction<'static>) {
        transaction.platform = PLATFORM.into();
        transaction.release.clone_from(&self.release);
        transaction.environment.clone_from(&self.environment);
        transaction.server_name.clone_from(&self.server_name);
        transaction.sdk = self.sdk.clone().map(Cow::Owned);
    }
}
