//! The model of a job: loaded in this process, or asked for at its servers as far as the operator allows that.
//!
//! A jobs row chooses servers and names keys, and who may write the row is not always who owns the keys. So:
//!
//! | | |
//! | --- | --- |
//! | a server | only one that `--allow-host` admits, as for `db_connection` |
//! | a key of the daemon's (`api_key_env`) | only one that `--allow-env` lists |
//! | where such a key goes | the provider's own servers, and hosts that `--allow-host` names |

use reqwest::Url;

use crate::embedding::{Engine, Model, ModelName, RemoteOptions};
use crate::pipeline::error::JobError;
use crate::pipeline::setup::definition::{Runtime, TargetNames};
use crate::postgres::JobAccess;
use crate::postgres::allowed_hosts::Admission;

/// Loads the model of a job, or tries it at its servers.
///
/// Cancellation safe, as [`Engine::model`] and [`Engine::remote_model`].
///
/// # Errors
/// Permanent where the job may not use what it names; those of the engine.
pub async fn load(
    engine: &Engine,
    names: &TargetNames,
    access: &JobAccess,
) -> Result<Model, JobError> {
    match &names.runtime {
        Runtime::Ort(options) => {
            let name: ModelName = names.model.parse()?;
            Ok(engine.model_with(&name, options).await?)
        }
        Runtime::Remote(options) => {
            let options = admit(options, access)?;
            Ok(engine.remote_model(&options).await?)
        }
    }
}

/// Loads the model of a command that the operator has given all of it: servers and the variable with the key are the
/// operator's own choice.
///
/// Cancellation safe, as [`load`].
///
/// # Errors
/// Permanent where there is no key in the variable; those of the engine.
pub async fn load_for_operator(engine: &Engine, names: &TargetNames) -> Result<Model, JobError> {
    let Runtime::Remote(options) = &names.runtime else {
        return load(engine, names, &JobAccess::default()).await;
    };
    let Some(variable) = options.key_variable() else {
        return Ok(engine.remote_model(options).await?);
    };
    let key = std::env::var(variable).unwrap_or_default();
    if key.trim().is_empty() {
        return Err(JobError::permanent(format!(
            "the environment variable {variable} (api_key_env) is not set, or is empty; set it to the key"
        )));
    }
    let with_key = RemoteOptions::clone(options).with_key(key);
    let with_key = with_key.map_err(|error| JobError::permanent(error.to_string()))?;
    Ok(engine.remote_model(&with_key).await?)
}

/// The options with their key, if the job may use all that they name.
fn admit(options: &RemoteOptions, access: &JobAccess) -> Result<RemoteOptions, JobError> {
    let of_daemon = options.key_variable();
    let key = of_daemon.map(|variable| access.variables.key(variable));
    let key = key.transpose();
    let key = key.map_err(|denied| JobError::permanent(denied.to_string()))?;
    let is_meant_for_all = key.is_none() || options.has_default_servers();
    for server in options.servers() {
        check_server(server, access, is_meant_for_all)?;
    }
    let Some(key) = key else {
        return Ok(options.clone());
    };
    let with_key = options.clone().with_key(key);
    with_key.map_err(|error| JobError::permanent(format!("the job's key: {error}")))
}

/// Checks that a job may use this server. `may_be_any` says that nothing of the operator's goes there that it must be meant
/// for.
fn check_server(server: &Url, access: &JobAccess, may_be_any: bool) -> Result<(), JobError> {
    let (host, port) = place(server);
    let shown = format!("{host}:{port}");
    // A URL has an IPv6 address in brackets.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match access.hosts.admission(bare, port) {
        Admission::Listed => Ok(()),
        Admission::Open if may_be_any => Ok(()),
        Admission::Open => Err(JobError::permanent(format!(
            "base_url names {shown}, and a key of the daemon's (api_key_env) goes only to hosts that the operator has named; \
             to allow it, start the daemon with --allow-host {shown}, and with --allow-host for the host of each database"
        ))),
        Admission::Refused => Err(JobError::permanent(format!(
            "base_url names {shown}, which --allow-host does not allow; to allow it, add --allow-host {shown}"
        ))),
    }
}

/// The host and the port of a URL, as `--allow-host` writes them.
fn place(server: &Url) -> (&str, u16) {
    let port = server.port_or_known_default().unwrap_or_default();
    (server.host_str().unwrap_or_default(), port)
}
