//! What is asked about the fleet's identities: of the host that serves a state folder, or where none does, of the folder.

use std::sync::{Mutex, PoisonError};

use fedtt_identity::TokenId;
use fedtt_wire::DeviceName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fleet::{FleetError, MosquittoOptions, Registrar, TokenOptions};

/// A request about identities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum FleetRequest {
    /// Make a token, and the seed that carries it.
    Token(TokenOptions),
    /// The tokens that are out; one is taken back before.
    Tokens {
        /// The id of the one to take back.
        cancel: Option<TokenId>,
    },
    /// Issue a certificate for a request that came by hand.
    Sign {
        /// The device.
        device: DeviceName,
        /// The request, PEM.
        request: String,
    },
    /// Put a device out.
    Revoke {
        /// The device.
        device: DeviceName,
    },
    /// Free a name that was trusted on first use.
    Forget {
        /// The device.
        device: DeviceName,
    },
    /// Set a mosquitto up.
    Mosquitto(MosquittoOptions),
    /// Give the port of enrolment a new password.
    Password,
    /// Who is known, and how.
    Known,
}

/// Answers a request. Takes as long as the broker does to put a device out, and blocks: not for a task of the runtime.
///
/// # Errors
/// When it cannot be done.
pub fn answer(
    registrar: &Mutex<Registrar>,
    runtime: &tokio::runtime::Handle,
    request: FleetRequest,
) -> Result<Value, FleetError> {
    let lock = || registrar.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(match request {
        FleetRequest::Token(options) => {
            let seed = lock().token(&options)?;
            json!({
                "fleet": seed.fleet, "device": seed.name, "uses": options.uses, "expires": seed.expires,
                "broker": without_password(&seed.broker), "token": seed.token, "labels": seed.labels,
                "seed": seed.write()?,
            })
        }
        FleetRequest::Tokens { cancel } => {
            let registrar = lock();
            if let Some(id) = &cancel {
                registrar.cancel(id)?;
            }
            json!({ "canceled": cancel, "tokens": registrar.tokens()? })
        }
        FleetRequest::Sign { device, request } => {
            let mut registrar = lock();
            let issued = registrar.sign(&device, &request)?;
            let (broker, enroll) = registrar.deployment().map(|d| (d.broker(), d.enroll())).unzip();
            json!({
                "device": device, "certificate": issued.pem, "serial": issued.serial, "expires": issued.expires,
                "ca": registrar.authority_pem()?, "host": registrar.host_key(), "broker": broker, "enroll": enroll,
            })
        }
        FleetRequest::Revoke { device } => {
            let revocation = lock().revoke(&device)?;
            json!(runtime.block_on(revocation.carry_through()))
        }
        FleetRequest::Forget { device } => {
            lock().forget(&device)?;
            json!({ "device": device, "forgotten": true })
        }
        FleetRequest::Mosquitto(options) => {
            let mut registrar = lock();
            let deployment = registrar.set_up(&options)?.clone();
            json!({
                "folder": deployment.folder, "fleet": deployment.fleet, "broker": deployment.broker(),
                "enroll": without_password(&deployment.enroll()), "on_revoke": deployment.on_revoke,
            })
        }
        FleetRequest::Password => {
            let change = lock().new_password()?;
            json!(change.carry_through())
        }
        FleetRequest::Known => {
            let all = lock().devices().all();
            let shown = all.into_iter().map(|(name, device)| (name.to_string(), json!(device)));
            json!({ "devices": shown.collect::<serde_json::Map<_, _>>() })
        }
    })
}

fn without_password(url: &str) -> String {
    url.parse::<fedtt_link::BrokerUrl>().map_or_else(|_| String::new(), |url| url.to_string())
}
