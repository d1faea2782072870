//! Metrics as Prometheus reads them.

use std::collections::BTreeMap;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What one process answered.
#[derive(Debug, Default)]
pub struct Scrape {
    /// By name.
    pub families: BTreeMap<String, Family>,
}

/// A metric.
#[derive(Debug, Default)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// For people.
    pub help: String,
    /// All of it.
    pub series: Vec<Series>,
}

/// One number of it.
#[derive(Debug)]
pub struct Series {
    /// With the ending of a histogram's parts.
    pub name: String,
    /// With their values.
    pub labels: BTreeMap<String, String>,
    /// What it shows.
    pub value: f64,
}

impl Scrape {
    /// What the process that serves metrics here says now.
    pub async fn of(address: &str) -> Self {
        let mut connection = TcpStream::connect(address).await.expect("listens");
        let request = b"GET /metrics HTTP/1.0\r\n\r\n";
        connection.write_all(request).await.expect("takes it");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        assert!(head.contains("text/plain"), "{head}");
        Self::parse(body)
    }

    fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some((name, help)) = about(line, "HELP") {
                help.clone_into(&mut scrape.family(name).help);
            } else if let Some((name, kind)) = about(line, "TYPE") {
                kind.clone_into(&mut scrape.family(name).kind);
            } else {
                scrape.add(series(line));
            }
        }
        scrape
    }

    fn family(&mut self, name: &str) -> &mut Family {
        self.families.entry(name.to_owned()).or_default()
    }

    fn add(&mut self, series: Series) {
        let endings = ["_bucket", "_sum", "_count"].iter();
        let base = endings
            .filter_map(|ending| series.name.strip_suffix(ending))
            .find(|base| {
                let family = self.families.get(*base);
                family.is_some_and(|family| family.kind == "histogram")
            });
        let name = base.unwrap_or(&series.name).to_owned();
        self.family(&name).series.push(series);
    }

    /// The sum of the series of this name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let all = self.families.values().flat_map(|family| &family.series);
        let wanted = |series: &&Series| {
            let has = |(label, value): &(&str, &str)| {
                series
                    .labels
                    .get(*label)
                    .is_some_and(|found| found == value)
            };
            series.name == name && labels.iter().all(has)
        };
        all.filter(wanted).map(|series| series.value).sum()
    }
}

fn about<'a>(line: &'a str, what: &str) -> Option<(&'a str, &'a str)> {
    let rest = line.strip_prefix("# ")?.strip_prefix(what)?;
    rest.trim_start().split_once(' ')
}

fn series(line: &str) -> Series {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').expect("an end");
    // No label's value here has a comma or a quote in it.
    let labels = labels
        .split(',')
        .filter(|label| !label.is_empty())
        .map(|label| {
            let (label, value) = label.split_once('=').expect("a value");
            (label.to_owned(), value.trim_matches('"').to_owned())
        });
    Series {
        name: name.to_owned(),
        labels: labels.collect(),
        value: value.parse().expect("a number"),
    }
}
