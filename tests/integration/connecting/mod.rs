//! Every way to connect to a server. Each test runs the daemon until a vector is in the table.

mod addresses;
mod certificates;
mod encryption;
mod environment;
mod jobs_rows;
mod passwords;
mod refusals;
mod refused_certificates;
mod secure_server;
mod several_servers;
