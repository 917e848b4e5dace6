//! The text for Prometheus.
//!
//! Names and units follow <https://prometheus.io/docs/practices/naming/>. The id of a job is in the label `job_id`: a
//! server of Prometheus gives `job` to all that it scrapes. Everything that may be long or change, such as a reason, is
//! on the page and not in a label.

mod families;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::health::runs_elsewhere;
use super::status_json::seconds;
use crate::status::StatusBoard;
use crate::status::board::Snapshot;
use families::{DAEMON, Family, JOB, JOB_DEVICE_UP, JOB_INFO, JOB_STATE, JOB_WAL_STATUS, Labels};

/// Version 0.0.4 of the text format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of the daemon, of the jobs that it runs, and of those that none runs. Other daemons show theirs, so that
/// a sum over all daemons counts each job once.
pub(super) fn render(snapshot: &Snapshot, board: &StatusBoard) -> Vec<u8> {
    let mut snapshot = snapshot.clone();
    let this = &snapshot.daemon.name;
    snapshot.jobs.retain(|job| !runs_elsewhere(job, this));
    let published = board
        .published()
        .map_or(0.0, |published| seconds(published.time));
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics {
        snapshot,
        published,
    }));
    let mut text = String::new();
    // A string takes everything.
    let _ = prometheus_text::encode(&mut text, &registry);
    text.into_bytes()
}

#[derive(Debug)]
struct Metrics {
    snapshot: Snapshot,
    published: f64,
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in DAEMON {
            family.encode(
                &mut encoder,
                (family.samples)(&self.snapshot, self.published),
            )?;
        }
        let jobs = || self.snapshot.jobs.iter();
        for family in [JOB_INFO, JOB_STATE, JOB_DEVICE_UP, JOB_WAL_STATUS] {
            family.encode(&mut encoder, jobs().flat_map(family.samples))?;
        }
        for family in JOB {
            let sample = |job| Some((families::names(job), (family.samples)(job)?));
            family.encode(&mut encoder, jobs().filter_map(sample))?;
        }
        Ok(())
    }
}

impl<R> Family<R> {
    /// Head and samples. A family without samples has its head alone, so that a dashboard knows of it.
    fn encode(
        &self,
        encoder: &mut DescriptorEncoder,
        samples: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        let kind = match self.is_counter {
            true => MetricType::Counter,
            false => MetricType::Gauge,
        };
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for (labels, value) in samples {
            self.encode_sample(metric.encode_family(&labels)?, value)?;
        }
        Ok(())
    }

    fn encode_sample(&self, metric: MetricEncoder, value: f64) -> fmt::Result {
        match self.is_counter {
            true => ConstCounter::new(value).encode(metric),
            false => ConstGauge::new(value).encode(metric),
        }
    }
}
