//! `lantern-cli check`: what a job needs, point by point, before it starts and while it runs.

mod advice;
mod points;
mod rights;
mod services;
