//! Authentication: the server names a method, and the client answers it.
//!
//! PostgreSQL manual, "Message Flow", section "Start-up", and "SASL Authentication". Supported: trust and client
//! certificates (where the server asks for nothing), `password`, `md5`, `scram-sha-256` with and without channel
//! binding.

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;
use tokio_postgres::Config;
use tokio_postgres::config::ChannelBinding as ChannelBindingMode;
use tokio_postgres::tls::ChannelBinding;

use super::channel_binding::tls_server_end_point;
use super::error::ReplicationError;
use super::wire::Wire;

/// Answers the server's requests up to AuthenticationOk.
///
/// `binding` is that of the TLS stream, if there is one. Every method but SCRAM-SHA-256-PLUS is refused under
/// `channel_binding=require`.
pub(super) async fn authenticate(
    wire: &mut Wire,
    config: &Config,
    user: &str,
    binding: Option<ChannelBinding>,
) -> Result<(), ReplicationError> {
    match wire.expect_message().await? {
        Message::AuthenticationOk => return without_binding(config),
        Message::AuthenticationCleartextPassword => {
            without_binding(config)?;
            send_password(wire, password(config)?).await?;
        }
        Message::AuthenticationMd5Password(body) => {
            without_binding(config)?;
            let hash = md5_hash(user.as_bytes(), password(config)?, body.salt());
            send_password(wire, hash.as_bytes()).await?;
        }
        Message::AuthenticationSasl(body) => {
            let plan = SaslPlan::choose(&body, config, binding).await?;
            scram(wire, plan, password(config)?).await?;
        }
        _ => {
            return Err(refused(
                "the server asks for a method that is not supported: use scram-sha-256",
            ));
        }
    }
    match wire.expect_message().await? {
        Message::AuthenticationOk => Ok(()),
        _ => Err(ReplicationError::protocol("no end to the authentication")),
    }
}

fn refused(why: impl ToString) -> ReplicationError {
    ReplicationError::Authentication(why.to_string())
}

/// Refuses a method that does not bind the login to the TLS connection, if binding is required.
fn without_binding(config: &Config) -> Result<(), ReplicationError> {
    match config.get_channel_binding() {
        ChannelBindingMode::Require => Err(refused(
            "channel_binding=require, and the connection has no channel binding",
        )),
        _ => Ok(()),
    }
}

fn password(config: &Config) -> Result<&[u8], ReplicationError> {
    config
        .get_password()
        .ok_or_else(|| refused("the server asks for a password, and none is given"))
}

async fn send_password(wire: &mut Wire, password: &[u8]) -> Result<(), ReplicationError> {
    frontend::password_message(password, &mut wire.outgoing)
        .map_err(|_| refused("the password contains a NUL character"))?;
    wire.flush().await
}

/// The SASL mechanism to use, with what it binds to.
struct SaslPlan {
    mechanism: &'static str,
    binding: sasl::ChannelBinding,
}

impl SaslPlan {
    async fn choose(
        offer: &AuthenticationSaslBody,
        config: &Config,
        binding: Option<ChannelBinding>,
    ) -> Result<SaslPlan, ReplicationError> {
        let offered: Vec<&str> = offer
            .mechanisms()
            .collect()
            .map_err(ReplicationError::protocol)?;
        let hash = match binding {
            Some(binding) if config.get_channel_binding() != ChannelBindingMode::Disable => {
                tls_server_end_point(binding).await
            }
            _ => None,
        };
        match hash {
            Some(hash) if offered.contains(&sasl::SCRAM_SHA_256_PLUS) => Ok(SaslPlan {
                mechanism: sasl::SCRAM_SHA_256_PLUS,
                binding: sasl::ChannelBinding::tls_server_end_point(hash),
            }),
            hash if offered.contains(&sasl::SCRAM_SHA_256) => {
                without_binding(config)?;
                // "The client supports channel binding, and thinks that the server does not" (RFC 5802, gs2-cbind-flag
                // `y`): a server that did offer it then knows that an attacker has removed the offer.
                let could_bind = hash.is_some();
                let binding = if could_bind {
                    sasl::ChannelBinding::unrequested()
                } else {
                    sasl::ChannelBinding::unsupported()
                };
                Ok(SaslPlan {
                    mechanism: sasl::SCRAM_SHA_256,
                    binding,
                })
            }
            _ => Err(refused(format!(
                "the server offers only {}",
                offered.join(", ")
            ))),
        }
    }
}

async fn scram(wire: &mut Wire, plan: SaslPlan, password: &[u8]) -> Result<(), ReplicationError> {
    let mut scram = ScramSha256::new(password, plan.binding);
    frontend::sasl_initial_response(plan.mechanism, scram.message(), &mut wire.outgoing)?;
    wire.flush().await?;

    let Message::AuthenticationSaslContinue(challenge) = wire.expect_message().await? else {
        return Err(ReplicationError::protocol(
            "no challenge in the authentication",
        ));
    };
    scram.update(challenge.data()).map_err(refused)?;
    frontend::sasl_response(scram.message(), &mut wire.outgoing)?;
    wire.flush().await?;

    let Message::AuthenticationSaslFinal(proof) = wire.expect_message().await? else {
        return Err(ReplicationError::protocol(
            "no proof by the server in the authentication",
        ));
    };
    scram.finish(proof.data()).map_err(|error| {
        refused(format!(
            "the server cannot prove that it knows the password: {error}"
        ))
    })
}
