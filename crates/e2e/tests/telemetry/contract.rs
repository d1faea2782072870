//! infra/pulumi/metrics.json, and what it says about a process's metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use infrachat_e2e::{Family, Scrape};
use serde_json::Value;

/// The file.
pub(crate) struct Contract(Value);

/// What the process was told to be.
pub(crate) struct Identity<'a> {
    pub(crate) service: &'a str,
    pub(crate) region: &'a str,
    pub(crate) shard: Option<&'a str>,
    pub(crate) regions: &'a [&'a str],
}

impl Contract {
    pub(crate) fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/pulumi/metrics.json");
        let text = std::fs::read_to_string(file).expect("metrics.json");
        Self(serde_json::from_str(&text).expect("JSON"))
    }

    fn metrics(&self) -> impl Iterator<Item = &Value> {
        self.0["metrics"].as_array().expect("a list").iter()
    }

    /// The metrics that a service exports.
    pub(crate) fn names(&self, service: &str) -> BTreeSet<&str> {
        let of_service = self.metrics().filter(|metric| {
            let services = metric["services"].as_array().expect("a list");
            services.iter().any(|listed| listed == service)
        });
        of_service
            .map(|metric| metric["name"].as_str().expect("a name"))
            .collect()
    }

    /// What a process exports otherwise than the file says.
    pub(crate) fn problems(&self, scrape: &Scrape, who: &Identity<'_>) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, family) in &scrape.families {
            let metric = self
                .metrics()
                .find(|metric| metric["name"] == name.as_str());
            let Some(metric) = metric else {
                problems.push(format!("{name} is not in the file"));
                continue;
            };
            if !self.names(who.service).contains(name.as_str()) {
                problems.push(format!("{name} is not a metric of {}", who.service));
            }
            let found = self.family_problems(metric, family, who);
            problems.extend(
                found
                    .into_iter()
                    .map(|problem| format!("{name}: {problem}")),
            );
        }
        problems
    }

    fn family_problems(&self, metric: &Value, family: &Family, who: &Identity<'_>) -> Vec<String> {
        let mut problems = Vec::new();
        if metric["type"] != family.kind.as_str() {
            problems.push(format!("is a {}", family.kind));
        }
        if metric["help"] != family.help.as_str() {
            problems.push(format!("says {:?}", family.help));
        }
        let own = metric["labels"].as_object().expect("labels");
        let mut common = BTreeMap::from([("service", who.service), ("region", who.region)]);
        common.extend(who.shard.map(|shard| ("shard", shard)));
        for series in &family.series {
            let buckets = series.name.ends_with("_bucket");
            let expected: BTreeSet<&str> = own
                .keys()
                .map(String::as_str)
                .chain(common.keys().copied())
                .chain(buckets.then_some("le"))
                .collect();
            let labels: BTreeSet<&str> = series.labels.keys().map(String::as_str).collect();
            if labels != expected {
                problems.push(format!("has the labels {labels:?}, not {expected:?}"));
                continue;
            }
            for (label, value) in &series.labels {
                let allowed = match common.get(label.as_str()) {
                    Some(common) => common == value,
                    None if label == "le" => self.is_bucket(metric, value),
                    None => allows(&own[label], value, who),
                };
                if !allowed {
                    problems.push(format!("{label} must not be {value:?}"));
                }
            }
        }
        problems
    }

    fn is_bucket(&self, metric: &Value, bound: &str) -> bool {
        let name = metric["buckets"].as_str().expect("buckets");
        let bounds = self.0["buckets"][name].as_array().expect("bounds");
        let bound: f64 = bound.parse().expect("a number");
        bound.is_infinite() || bounds.iter().any(|listed| listed.as_f64() == Some(bound))
    }
}

fn allows(values: &Value, value: &str, who: &Identity<'_>) -> bool {
    match values {
        Value::Array(listed) => listed.iter().any(|listed| listed == value),
        Value::String(set) if set == "@regions" => who.regions.contains(&value),
        Value::String(set) if set == "@one" => !value.is_empty(),
        _ => false,
    }
}
