//! A setting that may differ by region.

use std::{collections::BTreeMap, str::FromStr};

use infrachat_types::Region;

/// A value for all regions, or one for each: `localhost:8085`, or `us-west1=a:1,asia-northeast1=b:2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Regional {
    /// The same everywhere.
    All(String),
    /// By region.
    Each(BTreeMap<Region, String>),
}

/// The text names no regions, or one that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not valid: write one value for all regions, or region=value,region=value")]
pub struct BadRegional(String);

impl FromStr for Regional {
    type Err = BadRegional;

    fn from_str(text: &str) -> Result<Self, BadRegional> {
        let bad = || BadRegional(text.to_owned());
        if text.is_empty() {
            return Err(bad());
        }
        // A URL may have "=" in its query, but not before its scheme.
        let has_region = |part: &str| {
            let name = part.split_once('=').map(|(name, _)| name);
            name.is_some_and(|name| !name.contains([':', '/']))
        };
        if !has_region(text) {
            return Ok(Self::All(text.to_owned()));
        }
        let mut each = BTreeMap::new();
        for part in text.split(',') {
            let (region, value) = part.split_once('=').ok_or_else(bad)?;
            let region = Region::new(region).map_err(|_| bad())?;
            if value.is_empty() || each.insert(region, value.to_owned()).is_some() {
                return Err(bad());
            }
        }
        Ok(Self::Each(each))
    }
}

impl Regional {
    /// The region's value, if it has one.
    #[must_use]
    pub fn of(&self, region: &Region) -> Option<&str> {
        match self {
            Self::All(value) => Some(value),
            Self::Each(each) => each.get(region).map(String::as_str),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> Region {
        Region::new(name).expect("a region")
    }

    #[test]
    fn one_value_is_for_all_regions() {
        for text in ["localhost:8085", "redis://host:6379/0?protocol=resp3"] {
            let regional: Regional = text.parse().expect("parses");
            assert_eq!(regional.of(&region("us-west1")), Some(text));
        }
    }

    #[test]
    fn each_region_may_have_its_own() {
        let regional: Regional = "us-west1=a:1,asia-northeast1=b:2".parse().expect("parses");
        assert_eq!(regional.of(&region("us-west1")), Some("a:1"));
        assert_eq!(regional.of(&region("asia-northeast1")), Some("b:2"));
        assert_eq!(regional.of(&region("europe-west1")), None);
    }

    #[test]
    fn what_is_neither_is_refused() {
        for bad in [
            "",
            "us-west1=",
            "us-west1=a,b",
            "us-west1=a,us-west1=b",
            "X Y=a",
        ] {
            assert!(bad.parse::<Regional>().is_err(), "{bad}");
        }
    }
}
