//! Every way to connect to a server. Each test runs the daemon until a vector is in the table.

mod addresses;
mod asking_server;
mod certificates;
mod encryption;
mod environment;
mod files_of_jobs;
mod jobs_rows;
mod lent_passwords;
mod passwords;
mod refusals;
mod refused_certificates;
mod secure_server;
mod several_servers;
mod sockets;
