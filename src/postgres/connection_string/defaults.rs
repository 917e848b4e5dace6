//! What the environment and the home folder add to a connection string.

use tokio_postgres::config::ChannelBinding;

use super::credentials::Protection;
use super::environment::Environment;
use super::error::Parsed;
use super::keyword::{self, Audience, Parameters};
use super::settings;
use crate::postgres::authentication::Methods;
use crate::postgres::tls::Encryption;

/// The variables that are for these audiences.
pub fn take_variables(
    parameters: &mut Parameters,
    audiences: &[Audience],
    environment: &Environment,
) {
    for (name, variable) in keyword::variables(audiences) {
        if let Some(value) = environment.variable(variable) {
            parameters.set_default(name, value.to_owned());
        }
    }
}

/// The default client certificate and key: those in `~/.postgresql`.
pub fn take_certificates(parameters: &mut Parameters, environment: &Environment) {
    let files = ["postgresql.crt", "postgresql.key"].map(|name| environment.certificate_file(name));
    if let [Some(certificate), Some(key)] = files
        && parameters.get("sslcert").is_none()
    {
        parameters.set_default("sslcert", certificate);
        parameters.set_default("sslkey", key);
    }
}

/// The default root certificates: those in `~/.postgresql`.
pub fn take_root(parameters: &mut Parameters, environment: &Environment) {
    if let Some(file) = environment.certificate_file("root.crt") {
        parameters.set_default("sslrootcert", file);
    }
}

/// What the operator asks of every connection, by variables: the least protection of a password that is lent to a jobs
/// row, and the methods (`PGREQUIREAUTH`) by which it may be asked for. Without `PGSSLMODE` and `PGCHANNELBINDING` a row
/// may do without.
pub fn standard(environment: &Environment) -> Parsed<(Protection, Methods)> {
    let mut parameters = Parameters::default();
    take_variables(&mut parameters, &[Audience::Everyone], environment);
    let is_set = ["sslmode", "channel_binding"].map(|name| parameters.get(name).is_some());
    let [has_mode, has_binding] = is_set;
    take_root(&mut parameters, environment);
    // It says how TLS begins, not how much of it there is.
    parameters.replace("sslnegotiation", String::new());
    let mut tls = settings::tls(&parameters)?;
    if !has_mode {
        tls.encryption = Encryption::Disable;
    }
    let channel_binding = match has_binding {
        true => settings::base(&parameters)?.get_channel_binding(),
        false => ChannelBinding::Disable,
    };
    let standard = Protection {
        tls,
        channel_binding,
    };
    Ok((standard, settings::methods(&parameters)?))
}
