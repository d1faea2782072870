//! Counts, sums and averages over a query's results.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    document::Version,
    error::{Error, Result},
    field_path::FieldPath,
    limits,
    proto::v1::{
        AggregationResult, Value,
        structured_aggregation_query::{Aggregation, aggregation::Operator},
        value::ValueType,
    },
};

/// What to compute, by the name of each result.
#[derive(Debug)]
pub(super) struct Aggregations(BTreeMap<String, Kind>);

#[derive(Debug)]
enum Kind {
    Count { up_to: Option<i64> },
    Sum(FieldPath),
    Average(FieldPath),
}

impl Aggregations {
    pub(super) fn parse(aggregations: Vec<Aggregation>) -> Result<Self> {
        if aggregations.is_empty() {
            return Err(Error::invalid("The query has no aggregations."));
        }
        if aggregations.len() > limits::MAX_AGGREGATIONS {
            return Err(Error::invalid(format!(
                "The query has more than {} aggregations.",
                limits::MAX_AGGREGATIONS
            )));
        }
        let given: BTreeSet<_> = aggregations.iter().map(|a| a.alias.clone()).collect();
        let mut unnamed = (1..)
            .map(|number| format!("field_{number}"))
            .filter(|name| !given.contains(name));
        let mut kinds = BTreeMap::new();
        for aggregation in aggregations {
            let field = |field: Option<super::proto::v1::structured_query::FieldReference>| {
                let field = field.ok_or_else(|| Error::invalid("An aggregation has no field."))?;
                FieldPath::parse(&field.field_path)
            };
            let kind = match aggregation.operator {
                Some(Operator::Count(count)) => match count.up_to {
                    Some(up_to) if up_to <= 0 => {
                        return Err(Error::invalid("up_to must be greater than zero."));
                    }
                    up_to => Kind::Count { up_to },
                },
                Some(Operator::Sum(sum)) => Kind::Sum(field(sum.field)?),
                Some(Operator::Avg(average)) => Kind::Average(field(average.field)?),
                None => return Err(Error::invalid("An aggregation has no operator.")),
            };
            let alias = match aggregation.alias {
                alias if alias.is_empty() => unnamed.next().unwrap_or_default(),
                alias => alias,
            };
            if kinds.insert(alias.clone(), kind).is_some() {
                return Err(Error::invalid(format!(
                    "The alias \"{alias}\" is used more than once."
                )));
            }
        }
        Ok(Self(kinds))
    }

    /// The fields summed or averaged: only documents that have them all are taken.
    pub(super) fn fields(&self) -> Vec<FieldPath> {
        let fields: BTreeSet<_> = self
            .0
            .values()
            .filter_map(|kind| match kind {
                Kind::Count { .. } => None,
                Kind::Sum(field) | Kind::Average(field) => Some(field.clone()),
            })
            .collect();
        fields.into_iter().collect()
    }

    pub(super) fn compute(&self, documents: &[Version]) -> AggregationResult {
        let aggregate_fields = self
            .0
            .iter()
            .map(|(alias, kind)| {
                let value = match kind {
                    Kind::Count { up_to } => {
                        let count = i64::try_from(documents.len()).unwrap_or(i64::MAX);
                        ValueType::IntegerValue(up_to.map_or(count, |up_to| count.min(up_to)))
                    }
                    Kind::Sum(field) => Sum::of(documents, field).total(),
                    Kind::Average(field) => Sum::of(documents, field).average(),
                };
                let value = Value {
                    value_type: Some(value),
                };
                (alias.clone(), value)
            })
            .collect();
        AggregationResult { aggregate_fields }
    }
}

/// A sum that stays exact while all numbers are integers.
#[derive(Debug, Default)]
struct Sum {
    integers: i128,
    doubles: f64,
    any_double: bool,
    numbers: u64,
}

impl Sum {
    fn of(documents: &[Version], field: &FieldPath) -> Self {
        let mut sum = Self::default();
        for value in documents
            .iter()
            .filter_map(|document| field.get(&document.fields))
        {
            match value.value_type {
                Some(ValueType::IntegerValue(value)) => {
                    sum.integers += i128::from(value);
                    sum.numbers += 1;
                }
                Some(ValueType::DoubleValue(value)) => {
                    sum.doubles += value;
                    sum.any_double = true;
                    sum.numbers += 1;
                }
                _ => {}
            }
        }
        sum
    }

    fn as_double(&self) -> f64 {
        self.integers as f64 + self.doubles
    }

    fn total(&self) -> ValueType {
        match i64::try_from(self.integers) {
            Ok(total) if !self.any_double => ValueType::IntegerValue(total),
            _ => ValueType::DoubleValue(self.as_double()),
        }
    }

    fn average(&self) -> ValueType {
        if self.numbers == 0 {
            ValueType::NullValue(0)
        } else {
            ValueType::DoubleValue(self.as_double() / self.numbers as f64)
        }
    }
}
