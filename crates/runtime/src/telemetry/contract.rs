//! The contract between the programs and what looks at them: names, help texts and buckets are in
//! one file, which the dashboards and alerts are held to as well.

use std::collections::BTreeMap;

use serde::Deserialize;

const FILE: &str = include_str!("../../../../infra/pulumi/metrics.json");

#[derive(Debug, Deserialize)]
pub(super) struct Contract {
    pub(super) metrics: Vec<Metric>,
    buckets: BTreeMap<String, Vec<f64>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Metric {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    pub(super) unit: String,
    pub(super) help: String,
    buckets: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Contract {
    pub(super) fn read() -> Result<Self, serde_json::Error> {
        serde_json::from_str(FILE)
    }

    /// Of a histogram.
    pub(super) fn buckets(&self, metric: &Metric) -> Option<&[f64]> {
        let buckets = self.buckets.get(metric.buckets.as_ref()?)?;
        Some(buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_histogram_has_rising_buckets() {
        let contract = Contract::read().expect("the file is valid");
        let mut histograms = 0;
        for metric in &contract.metrics {
            let buckets = contract.buckets(metric);
            assert_eq!(
                buckets.is_some(),
                metric.kind == Kind::Histogram,
                "{metric:?}"
            );
            if let Some(buckets) = buckets {
                histograms += 1;
                assert!(
                    buckets.windows(2).all(|pair| pair[0] < pair[1]),
                    "{metric:?}"
                );
            }
        }
        assert!(histograms > 0);
    }
}
