//! The Prometheus text exposition format 0.0.4, read by a checker of the tests' own that refuses what a scraper might forgive.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Family to `counter`, `gauge`, `histogram`, ...
    pub types: BTreeMap<String, String>,
    /// In the order of the text.
    pub samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Metrics {
    /// Reads a scrape. Fails with the line and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut metrics = Self::default();
        let mut helped = BTreeSet::new();
        let mut family = String::new();
        if !text.ends_with('\n') {
            return Err("the last line does not end".to_owned());
        }
        for line in text.lines() {
            let fault = |what: &str| format!("{what}: {line:?}");
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').ok_or_else(|| fault("help without text"))?;
                if words.trim().is_empty() || !helped.insert(name.to_owned()) {
                    return Err(fault("empty or second help"));
                }
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').ok_or_else(|| fault("type without a type"))?;
                if !matches!(kind, "counter" | "gauge" | "histogram") || !is_name(name) {
                    return Err(fault("no such type, or no name"));
                }
                if metrics.types.insert(name.to_owned(), kind.to_owned()).is_some() {
                    return Err(fault("a family in two places"));
                }
                family = name.to_owned();
            } else if line.starts_with('#') || line.is_empty() {
                return Err(fault("neither help, type nor sample"));
            } else {
                let sample = sample(line).ok_or_else(|| fault("not a sample"))?;
                metrics.admit(&family, sample).map_err(|what| fault(&what))?;
            }
        }
        if let Some(family) = metrics.types.keys().find(|family| !helped.contains(*family)) {
            return Err(format!("{family} has no help"));
        }
        metrics.check_histograms()?;
        Ok(metrics)
    }

    /// The sum of the samples of this name that have all these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has =
            |sample: &&Sample| labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|it| it == value));
        let mut samples = self.samples.iter().filter(|sample| sample.name == name).filter(has).peekable();
        assert!(samples.peek().is_some(), "no {name} with {labels:?}");
        samples.map(|sample| sample.value).sum()
    }

    fn admit(&mut self, family: &str, sample: Sample) -> Result<(), String> {
        let suffix = sample.name.strip_prefix(family).ok_or("a sample outside its family")?;
        let kind = self.types.get(family).map_or("", String::as_str);
        let fits = match suffix {
            "" => kind != "histogram",
            "_bucket" => kind == "histogram" && sample.labels.contains_key("le"),
            "_sum" | "_count" => kind == "histogram",
            _ => false,
        };
        if !fits {
            return Err(format!("no sample of a {kind}"));
        }
        if kind == "counter" && !(sample.value >= 0.0 && sample.value.is_finite()) {
            return Err("a counter that is not a count".to_owned());
        }
        if self.samples.iter().any(|other| other.name == sample.name && other.labels == sample.labels) {
            return Err("a second sample of one series".to_owned());
        }
        self.samples.push(sample);
        Ok(())
    }

    /// Buckets are cumulative and in order, the last is infinite and equals the count.
    fn check_histograms(&self) -> Result<(), String> {
        for family in self.types.iter().filter(|(_, kind)| *kind == "histogram").map(|(family, _)| family) {
            let (bucket, count) = (format!("{family}_bucket"), format!("{family}_count"));
            for count in self.samples.iter().filter(|sample| sample.name == count) {
                let is_of_series = |sample: &&Sample| {
                    let has = |(name, value): (&String, &String)| sample.labels.get(name) == Some(value);
                    sample.name == bucket && count.labels.iter().all(has)
                };
                let mut last = (f64::NEG_INFINITY, 0.0);
                for sample in self.samples.iter().filter(is_of_series) {
                    let bound = number(&sample.labels["le"]).ok_or("a bound that is no number")?;
                    if bound <= last.0 || sample.value < last.1 {
                        return Err(format!("buckets out of order at {sample:?}"));
                    }
                    last = (bound, sample.value);
                }
                if last != (f64::INFINITY, count.value) {
                    return Err(format!("the last bucket is not all of {count:?}"));
                }
            }
        }
        Ok(())
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = number(value)?;
    let Some((name, labels)) = series.split_once('{') else {
        return is_name(series).then(|| Sample { name: series.to_owned(), labels: BTreeMap::new(), value });
    };
    let labels = labels_of(labels.strip_suffix('}')?)?;
    is_name(name).then(|| Sample { name: name.to_owned(), labels, value })
}

fn labels_of(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    escaped @ ('\\' | '"') => escaped,
                    _ => return None,
                }),
                (_, plain) => value.push(plain),
            }
        };
        if !is_name(name) || name.contains(':') || labels.insert(name.to_owned(), value).is_some() {
            return None;
        }
        match &rest[end + 1..] {
            "" => return Some(labels),
            more => text = more.strip_prefix(',')?,
        }
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ if text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) => text.parse().ok(),
        _ => None,
    }
}

fn is_name(text: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    text.bytes().next().is_some_and(is_first) && text.bytes().all(|byte| is_first(byte) || byte.is_ascii_digit())
}
