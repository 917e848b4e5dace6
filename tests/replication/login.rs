//! Logging in to a real server, and the errors when that fails.

use std::sync::Arc;
use std::time::Duration;

use lantern::pipeline::error::is_transient_replication_error;
use lantern::postgres::socket::Socket;
use lantern::replication::{ReplicationConnection, ReplicationError};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::postgres::{PASSWORD, open, server};

async fn connect(config: &Config) -> Result<ReplicationConnection, ReplicationError> {
    ReplicationConnection::connect(open(config).await, NoTls, config, &[]).await
}

/// Logs in over TLS, where the server has it.
async fn connect_with(
    mut tls: MakeRustlsConnect,
    config: &Config,
) -> Result<ReplicationConnection, ReplicationError> {
    let Ok(tls) = MakeTlsConnect::<Socket>::make_tls_connect(&mut tls, "localhost");
    ReplicationConnection::connect(open(config).await, tls, config, &[]).await
}

async fn value(connection: &mut ReplicationConnection, sql: &str) -> String {
    let rows = connection.simple_query(sql).await.unwrap();
    rows.into_iter().flatten().flatten().next().unwrap()
}

async fn failure(config: &Config) -> ReplicationError {
    connect(config).await.err().expect("a failure to connect")
}

#[tokio::test]
async fn every_password_method_works_over_tcp_and_over_the_unix_socket() {
    for user in ["postgres", "scram", "md5", "plain"] {
        let tcp = server().tcp_config(user);
        let mut unix = server().config("postgres");
        unix.user(user);
        for mut config in [tcp, unix] {
            config.password(PASSWORD);
            let mut connection = connect(&config).await.unwrap();
            assert_eq!(value(&mut connection, "SELECT current_user").await, user);
        }
    }
}

#[tokio::test]
async fn a_wrong_password_is_reported_by_its_sqlstate_and_never_repeated() {
    for user in ["scram", "md5", "plain"] {
        let mut config = server().tcp_config(user);
        config.password("incorrect-horse");
        let error = failure(&config).await;
        assert_eq!(error.code().unwrap().code(), "28P01");
        assert!(!is_transient_replication_error(&error));
        assert!(!format!("{error} {error:?}").contains("incorrect-horse"));
        assert!(
            error.to_string().contains(&format!("\"{user}\"")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_missing_password_is_an_error_before_anything_is_sent() {
    let error = failure(&server().tcp_config("scram")).await;
    assert!(error.to_string().contains("none is given"), "{error}");
    assert!(!is_transient_replication_error(&error));
}

#[tokio::test]
async fn a_missing_database_is_reported_by_its_sqlstate() {
    let error = failure(&server().config("nowhere")).await;
    assert_eq!(error.code().unwrap().code(), "3D000");
    assert!(!is_transient_replication_error(&error));
}

#[tokio::test]
async fn settings_of_the_session_outrank_those_of_the_database() {
    let client = server().create_database("settings").await;
    client
        .batch_execute("ALTER DATABASE settings SET DateStyle = 'German, DMY'")
        .await
        .unwrap();
    let parameters = [("DateStyle", "ISO, MDY"), ("TimeZone", "UTC")];
    let config = server().config("settings");
    let socket = open(&config).await;
    let mut connection = ReplicationConnection::connect(socket, NoTls, &config, &parameters)
        .await
        .unwrap();
    assert_eq!(
        value(&mut connection, "SELECT date '2001-02-03'").await,
        "2001-02-03"
    );
    assert_eq!(value(&mut connection, "SHOW application_name").await, "");
    assert_eq!(connection.parameter("TimeZone"), Some("UTC"));
    assert_eq!(connection.parameter("client_encoding"), Some("UTF8"));

    let mut named = config.clone();
    named.application_name("me").options("-c work_mem=1234kB");
    let mut connection = connect(&named).await.unwrap();
    assert_eq!(value(&mut connection, "SHOW application_name").await, "me");
    assert_eq!(value(&mut connection, "SHOW work_mem").await, "1234kB");
}

#[tokio::test]
async fn a_simple_query_gives_all_rows_as_text() {
    let mut connection = server().connect("postgres").await;
    let rows = connection
        .simple_query("SELECT 1, NULL, 'ü'; SELECT 2")
        .await
        .unwrap();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(rows, [vec![text("1"), None, text("ü")], vec![text("2")]]);
    assert!(connection.simple_query("").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_failed_query_leaves_the_connection_usable() {
    let mut connection = server().connect("postgres").await;
    let error = connection.simple_query("SELECT 1/0").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22012");
    let error = connection.simple_query("SELECT '\0'").await.unwrap_err();
    assert!(error.to_string().contains("NUL"), "{error}");
    assert_eq!(value(&mut connection, "SELECT 7").await, "7");
}

#[tokio::test]
async fn the_answer_of_an_abandoned_query_is_not_taken_for_that_of_the_next() {
    let mut connection = server().connect("postgres").await;
    let slow = connection.simple_query("SELECT 'old' FROM pg_sleep(0.1)");
    tokio::time::timeout(Duration::from_millis(10), slow)
        .await
        .unwrap_err();
    assert_eq!(value(&mut connection, "SELECT 'new'").await, "new");

    let failing = connection.simple_query("SELECT 1 / length(pg_sleep(0.1)::text)");
    tokio::time::timeout(Duration::from_millis(10), failing)
        .await
        .unwrap_err();
    assert_eq!(value(&mut connection, "SELECT 'new'").await, "new");
}

#[tokio::test]
async fn a_terminated_session_reports_it() {
    let mut connection = server().connect("postgres").await;
    let sql = format!("SELECT pg_terminate_backend({})", connection.process_id());
    let error = connection.simple_query(&sql).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "57P01");
    let error = connection.simple_query("SELECT 1").await.unwrap_err();
    assert!(error.is_link_failure(), "{error}");
}

#[tokio::test]
async fn identify_system_agrees_with_the_control_file() {
    let mut connection = server().connect("postgres").await;
    let identity = connection.identify_system().await.unwrap();
    assert_eq!(identity.database.as_deref(), Some("postgres"));
    assert_eq!(identity.timeline, 1);
    let control = "SELECT system_identifier::text FROM pg_control_system()";
    assert_eq!(identity.system_id, value(&mut connection, control).await);
    let flushed = value(&mut connection, "SELECT pg_current_wal_flush_lsn()").await;
    assert!(identity.flushed <= flushed.parse().unwrap());
}

/// Takes any certificate: the tests are about what comes after.
#[derive(Debug)]
struct Trusting(CryptoProvider);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn tls_settings() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    builder.with_safe_default_protocol_versions().unwrap()
}

fn trusting() -> MakeRustlsConnect {
    let verifier = Arc::new(Trusting(ring::default_provider()));
    let builder = tls_settings()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    MakeRustlsConnect::new(builder.with_no_client_auth())
}

fn suspicious() -> MakeRustlsConnect {
    let builder = tls_settings().with_root_certificates(rustls::RootCertStore::empty());
    MakeRustlsConnect::new(builder.with_no_client_auth())
}

async fn uses_tls(connection: &mut ReplicationConnection) -> bool {
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    value(connection, sql).await == "t"
}

#[tokio::test]
async fn tls_is_used_where_the_server_has_it_and_binds_the_login_to_it() {
    let mut config = server().tcp_config("scram");
    config
        .password(PASSWORD)
        .ssl_mode(SslMode::Require)
        .channel_binding(ChannelBinding::Require);
    let connected = connect_with(trusting(), &config).await;
    if server().has_tls() {
        assert!(uses_tls(&mut connected.unwrap()).await);
    } else {
        let error = connected.err().unwrap();
        assert!(
            error.to_string().contains("the server has no TLS"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn channel_binding_required_without_tls_is_an_error() {
    for user in ["postgres", "scram", "md5", "plain"] {
        let mut config = server().tcp_config(user);
        config
            .password(PASSWORD)
            .ssl_mode(SslMode::Disable)
            .channel_binding(ChannelBinding::Require);
        let error = failure(&config).await;
        assert!(
            error.to_string().contains("channel_binding=require"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn scram_over_tls_works_with_channel_binding_disabled() {
    let mut config = server().tcp_config("scram");
    config
        .password(PASSWORD)
        .ssl_mode(SslMode::Prefer)
        .channel_binding(ChannelBinding::Disable);
    let mut connection = connect_with(trusting(), &config).await.unwrap();
    assert_eq!(uses_tls(&mut connection).await, server().has_tls());
}

#[tokio::test]
async fn connecting_and_streaming_can_move_between_threads() {
    let mut config = server().config("postgres");
    config.ssl_mode(SslMode::Prefer);
    let connecting = async move {
        let mut connection = connect_with(trusting(), &config).await?;
        connection.identify_system().await
    };
    tokio::spawn(connecting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_certificate_without_a_trusted_authority_is_refused() {
    if !server().has_tls() {
        testkit::skip::does_not_apply("the server was built without TLS");
        return;
    }
    let mut config = server().tcp_config("postgres");
    // Under `prefer` the caller decides whether to go on without TLS: that takes another socket.
    for mode in [SslMode::Require, SslMode::Prefer] {
        config.ssl_mode(mode);
        let error = connect_with(suspicious(), &config).await.err().unwrap();
        assert!(
            matches!(error, ReplicationError::Tls(_)) && !error.is_link_failure(),
            "{error}"
        );
    }
}

#[tokio::test]
async fn direct_negotiation_needs_sslmode_require() {
    let mut config = server().tcp_config("postgres");
    config.ssl_negotiation(SslNegotiation::Direct);
    let error = connect_with(trusting(), &config).await.err().unwrap();
    assert!(
        error.to_string().contains("needs sslmode=require"),
        "{error}"
    );
}

#[tokio::test]
async fn a_client_without_tls_fails_under_require_and_goes_without_under_prefer() {
    let mut config = server().tcp_config("postgres");
    config.ssl_mode(SslMode::Require);
    let error = failure(&config).await;
    assert!(matches!(error, ReplicationError::Tls(_)), "{error}");
    config.ssl_mode(SslMode::Prefer);
    assert!(!uses_tls(&mut connect(&config).await.unwrap()).await);
}

#[tokio::test]
async fn a_unix_socket_carries_no_tls_even_under_require() {
    let mut config = server().config("postgres");
    config.ssl_mode(SslMode::Require);
    let mut connection = connect_with(trusting(), &config).await.unwrap();
    assert!(!uses_tls(&mut connection).await);
}
