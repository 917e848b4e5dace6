//! `lantern-cli serve`: models for programs, without jobs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::configuration::print::PrintConfigArgument;
use super::engine_arguments::{EngineArguments, InferenceArguments};
use super::listen_arguments::{AccessArguments, who};
use super::logging::{self, Logging};
use super::stop_signals::stop_on_signals;
use crate::embedding::{Engine, Model, ModelName, ModelOptions};
use crate::http::{Api, HttpServer, ListenAddress, TlsIdentity};
use crate::postgres::plain_file;
use crate::status::ServedModels;

/// Serve models to programs over HTTP: /v1/embeddings as OpenAI has it, and /embed as text-embeddings-inference
///
/// A program that embeds its queries with the model of a job finds that job's rows. start-daemon --listen serves the
/// models of its jobs in the same way; this command needs no jobs and no database.
#[derive(Args)]
#[command(mut_arg("yields", |yields| yields.default_value("off")))]
pub struct Serve {
    /// A model: a name as in a job, which is downloaded if it is not here, or the path of a folder. May be repeated
    #[arg(
        long = "model",
        env = "LANTERN_MODEL",
        value_name = "NAME|DIR",
        default_value = "sentence-transformers/all-MiniLM-L6-v2",
        value_parser = ModelName::from_operator
    )]
    models: Vec<ModelName>,

    /// How the models are used, as in a job's runtime_params: for example {"pooling": "cls"}. Once for all models, or
    /// once for each in their order
    #[arg(
        long,
        env = "LANTERN_RUNTIME_PARAMS",
        value_name = "JSON",
        value_parser = ModelOptions::from_json
    )]
    runtime_params: Vec<ModelOptions>,

    /// Where to listen. Beyond this machine that needs a token
    #[arg(
        long,
        env = "LANTERN_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9188"
    )]
    listen: ListenAddress,

    #[command(flatten)]
    access: AccessArguments,

    /// PEM file with the server's certificate and those of its issuers, for HTTPS. Read at the start
    #[arg(
        long,
        env = "LANTERN_TLS_CERTIFICATE",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_certificate: Option<PathBuf>,

    /// PEM file with the certificate's key, without a passphrase
    #[arg(
        long,
        env = "LANTERN_TLS_KEY",
        value_name = "FILE",
        requires = "tls_certificate"
    )]
    tls_key: Option<PathBuf>,

    #[command(flatten)]
    engine: EngineArguments,

    #[command(flatten)]
    inference: InferenceArguments,

    #[command(flatten)]
    logging: Logging,

    #[command(flatten)]
    _print_config: PrintConfigArgument,
}

/// Serves the models until it is told to stop.
///
/// # Errors
/// A model or the address cannot be used.
pub async fn run(arguments: Serve) -> anyhow::Result<()> {
    logging::start(&arguments.logging);
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone())?;
    let wanted = arguments.wanted()?;
    let engine = arguments.engine.engine_for_requests(&arguments.inference)?;
    engine.check_provider().await?;
    let models = ServedModels::default();
    // The port is taken first: a model may take minutes to download, and /readyz says so.
    let server = arguments.start_server(&engine, &models, &stop)?;
    let loaded = tokio::select! {
        loaded = load(&engine, wanted) => loaded,
        () = stop.cancelled() => Ok(Vec::new()),
    };
    let offers = loaded.map(|loaded| {
        let offers = loaded.into_iter().map(|model| models.offer_by_name(model));
        offers.collect::<Vec<_>>()
    });
    if offers.is_ok() {
        if !stop.is_cancelled() {
            tracing::info!("ready");
        }
        stop.cancelled().await;
    }
    // The process unloads the inference library when it ends. By then none of its threads may run.
    let end = move || {
        drop(server);
        engine.shutdown();
    };
    tokio::task::spawn_blocking(end).await?;
    offers.map(drop)
}

async fn load(
    engine: &Engine,
    wanted: Vec<(ModelName, ModelOptions)>,
) -> anyhow::Result<Vec<Model>> {
    let mut models = Vec::new();
    for (name, options) in wanted {
        models.push(engine.model_with(&name, &options).await?);
    }
    Ok(models)
}

impl Serve {
    /// The models with their options.
    fn wanted(&self) -> anyhow::Result<Vec<(ModelName, ModelOptions)>> {
        let (models, params) = (&self.models, &self.runtime_params);
        for (place, name) in models.iter().enumerate() {
            if models[..place].contains(name) {
                bail!("--model {name} is there twice, and a model is known by its name alone");
            }
        }
        if params.len() > 1 && params.len() != models.len() {
            bail!(
                "there are {} models and --runtime-params for {}: give it once for all models, or once for each",
                models.len(),
                params.len()
            );
        }
        let options = |place: usize| match params.len() {
            1 => params[0].clone(),
            _ => params.get(place).cloned().unwrap_or_default(),
        };
        let models = models.iter().enumerate();
        Ok(models
            .map(|(place, name)| (name.clone(), options(place)))
            .collect())
    }

    fn start_server(
        &self,
        engine: &Engine,
        models: &ServedModels,
        stop: &CancellationToken,
    ) -> anyhow::Result<HttpServer> {
        let mut listen = self.access.listen(self.listen)?;
        listen.tls = self.identity()?;
        let who = who(&listen);
        let scheme = match &listen.tls {
            Some(_) => "https",
            None => "http",
        };
        let api = Api::new(engine.clone(), models.clone(), stop.clone());
        let server = HttpServer::start_with(listen, None, Some(api), stop.clone())?;
        let address = server.address();
        tracing::info!("embeddings at {scheme}://{address}/v1 ({who})");
        Ok(server)
    }

    fn identity(&self) -> anyhow::Result<Option<TlsIdentity>> {
        let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) else {
            return Ok(None);
        };
        let options = || {
            format!(
                "--tls-certificate {} --tls-key {}",
                certificate.display(),
                key.display()
            )
        };
        let chain = plain_file::read(certificate)
            .with_context(|| format!("--tls-certificate {}", certificate.display()))?;
        let identity = TlsIdentity::from_pem(&chain.content, &read_key(key)?);
        identity.with_context(options).map(Some)
    }
}

/// The content of a file that is for this process alone.
fn read_key(path: &Path) -> anyhow::Result<Vec<u8>> {
    let file = plain_file::read(path).with_context(|| format!("--tls-key {}", path.display()))?;
    if file.metadata.permissions().mode() & 0o004 != 0 {
        tracing::warn!(
            "every user of this machine can read the key in {0}; run: chmod o= {0}",
            path.display()
        );
    }
    Ok(file.content)
}
