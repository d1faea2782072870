//! Filters: read, checked and matched.

use std::collections::BTreeSet;

use crate::firestore::{
    document::Document,
    error::{Error, Result},
    field_path::FieldPath,
    limits, order,
    path::DatabaseName,
    proto::v1::{
        Value,
        structured_query::{
            self, CompositeFilter, FieldFilter, UnaryFilter, composite_filter, field_filter,
            filter::FilterType, unary_filter,
        },
        value::ValueType,
    },
};

/// A condition on a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Field(FieldPath, Test),
}

/// A condition on one field, against keys of [`order`]. A field that the document lacks meets none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    Equal(Vec<u8>),
    /// Neither null nor the value.
    NotEqual(Vec<u8>),
    /// Of the value's kind, and above or below it.
    Less {
        than: Vec<u8>,
        or_equal: bool,
    },
    Greater {
        than: Vec<u8>,
        or_equal: bool,
    },
    In(BTreeSet<Vec<u8>>),
    /// Neither null nor among the values.
    NotIn(BTreeSet<Vec<u8>>),
    ArrayContainsAny(BTreeSet<Vec<u8>>),
    /// What nothing meets: a comparison with null.
    Never,
}

impl Test {
    /// Whether the query must be ordered by the field.
    pub(super) fn is_inequality(&self) -> bool {
        matches!(
            self,
            Self::NotEqual(_) | Self::Less { .. } | Self::Greater { .. } | Self::NotIn(_)
        )
    }

    fn matches(&self, value: Option<&Value>, key: &[u8]) -> bool {
        let same_kind = |than: &[u8]| than.first() == key.first();
        match self {
            Self::Equal(other) => key == other,
            Self::NotEqual(other) => !order::is_null(key) && key != other,
            Self::Less { than, or_equal } => {
                same_kind(than) && (key < than.as_slice() || (*or_equal && key == than))
            }
            Self::Greater { than, or_equal } => {
                same_kind(than) && (key > than.as_slice() || (*or_equal && key == than))
            }
            Self::In(values) => values.contains(key),
            Self::NotIn(values) => !order::is_null(key) && !values.contains(key),
            Self::ArrayContainsAny(values) => {
                match value.and_then(|value| value.value_type.as_ref()) {
                    Some(ValueType::ArrayValue(array)) => array
                        .values
                        .iter()
                        .any(|element| values.contains(&order::key(element))),
                    _ => false,
                }
            }
            Self::Never => false,
        }
    }
}

impl Filter {
    pub(super) fn parse(filter: structured_query::Filter) -> Result<Self> {
        match filter.filter_type {
            Some(FilterType::CompositeFilter(filter)) => parse_composite(filter),
            Some(FilterType::FieldFilter(filter)) => parse_field(filter),
            Some(FilterType::UnaryFilter(filter)) => parse_unary(filter),
            None => Err(Error::invalid("Filter is not set.")),
        }
    }

    pub(super) fn matches(&self, database: &DatabaseName, document: &Document) -> bool {
        match self {
            Self::And(filters) => filters
                .iter()
                .all(|filter| filter.matches(database, document)),
            Self::Or(filters) => filters
                .iter()
                .any(|filter| filter.matches(database, document)),
            Self::Field(field, test) => document
                .key(database, field)
                .is_some_and(|key| test.matches(field.get(&document.fields), &key)),
        }
    }

    /// Visits every condition on a field.
    pub(super) fn each<'a>(&'a self, visit: &mut impl FnMut(&'a FieldPath, &'a Test)) {
        match self {
            Self::And(filters) | Self::Or(filters) => {
                filters.iter().for_each(|filter| filter.each(visit));
            }
            Self::Field(field, test) => visit(field, test),
        }
    }

    /// The conditions that every match meets.
    pub(super) fn required(&self) -> Vec<(&FieldPath, &Test)> {
        match self {
            Self::And(filters) => filters.iter().flat_map(Self::required).collect(),
            Self::Or(filters) if filters.len() == 1 => filters[0].required(),
            Self::Or(_) => Vec::new(),
            Self::Field(field, test) => vec![(field, test)],
        }
    }

    /// How many alternatives the filter has once written as a disjunction of conjunctions.
    fn disjunctions(&self) -> usize {
        match self {
            Self::And(filters) => filters
                .iter()
                .map(Self::disjunctions)
                .fold(1, usize::saturating_mul),
            Self::Or(filters) => filters
                .iter()
                .map(Self::disjunctions)
                .fold(0, usize::saturating_add),
            Self::Field(_, Test::In(values) | Test::ArrayContainsAny(values)) => {
                values.len().max(1)
            }
            Self::Field(..) => 1,
        }
    }

    /// The rules on what may be combined.
    pub(super) fn check(&self) -> Result<()> {
        if self.disjunctions() > limits::MAX_DISJUNCTIONS {
            return Err(Error::invalid(format!(
                "The query has more than {} disjunctions after it is converted to disjunctive normal form.",
                limits::MAX_DISJUNCTIONS
            )));
        }
        let (mut not_in, mut not_equal, mut disjunctive, mut conditions) = (0, 0, self.has_or(), 0);
        self.each(&mut |_, test| {
            conditions += 1;
            match test {
                Test::NotIn(_) => not_in += 1,
                Test::NotEqual(_) => not_equal += 1,
                Test::In(_) => disjunctive = true,
                Test::ArrayContainsAny(values) if values.len() > 1 => disjunctive = true,
                _ => {}
            }
        });
        if not_in > 1 {
            return Err(Error::invalid("Only a single 'NOT_IN' filter is allowed."));
        }
        if not_in == 1 && not_equal > 0 {
            return Err(Error::invalid(
                "'NOT_IN' cannot be used in the same query with 'NOT_EQUAL'.",
            ));
        }
        if not_in == 1 && disjunctive {
            return Err(Error::invalid(
                "'NOT_IN' cannot be used in the same query with 'IN', 'ARRAY_CONTAINS_ANY' or 'OR'.",
            ));
        }
        if conditions > limits::MAX_FILTERS_AND_ORDERS {
            return Err(Error::invalid(format!(
                "The query has more than {} filters.",
                limits::MAX_FILTERS_AND_ORDERS
            )));
        }
        self.array_conditions().map(|_| ())
    }

    fn has_or(&self) -> bool {
        match self {
            Self::Or(filters) => filters.len() > 1 || filters.iter().any(Self::has_or),
            Self::And(filters) => filters.iter().any(Self::has_or),
            Self::Field(..) => false,
        }
    }

    /// The most array conditions in one alternative; more than one is refused.
    fn array_conditions(&self) -> Result<usize> {
        let count = match self {
            Self::Field(_, Test::ArrayContainsAny(_)) => 1,
            Self::Field(..) => 0,
            Self::Or(filters) => {
                let mut most = 0;
                for filter in filters {
                    most = most.max(filter.array_conditions()?);
                }
                most
            }
            Self::And(filters) => {
                let mut sum = 0;
                for filter in filters {
                    sum += filter.array_conditions()?;
                }
                sum
            }
        };
        if count > 1 {
            return Err(Error::invalid(
                "Only a single 'ARRAY_CONTAINS' or 'ARRAY_CONTAINS_ANY' filter is allowed per disjunction.",
            ));
        }
        Ok(count)
    }
}

fn parse_composite(filter: CompositeFilter) -> Result<Filter> {
    let op = filter.op();
    if filter.filters.is_empty() {
        return Err(Error::invalid("Composite filter has no filters."));
    }
    let filters = filter
        .filters
        .into_iter()
        .map(Filter::parse)
        .collect::<Result<_>>()?;
    match op {
        composite_filter::Operator::And => Ok(Filter::And(filters)),
        composite_filter::Operator::Or => Ok(Filter::Or(filters)),
        composite_filter::Operator::Unspecified => {
            Err(Error::invalid("Composite filter has no operator."))
        }
    }
}

fn parse_unary(filter: UnaryFilter) -> Result<Filter> {
    let op = filter.op();
    let Some(unary_filter::OperandType::Field(field)) = filter.operand_type else {
        return Err(Error::invalid("Unary filter has no field."));
    };
    let field = FieldPath::parse(&field.field_path)?;
    let key = |value| {
        order::key(&Value {
            value_type: Some(value),
        })
    };
    let null = || key(ValueType::NullValue(0));
    let nan = || key(ValueType::DoubleValue(f64::NAN));
    let test = match op {
        unary_filter::Operator::IsNull => Test::Equal(null()),
        unary_filter::Operator::IsNotNull => Test::NotEqual(null()),
        unary_filter::Operator::IsNan => Test::Equal(nan()),
        unary_filter::Operator::IsNotNan => Test::NotEqual(nan()),
        unary_filter::Operator::Unspecified => {
            return Err(Error::invalid("Unary filter has no operator."));
        }
    };
    Ok(Filter::Field(field, test))
}

fn parse_field(filter: FieldFilter) -> Result<Filter> {
    use field_filter::Operator;
    let op = filter.op();
    let field = filter
        .field
        .ok_or_else(|| Error::invalid("Field filter has no field."))?;
    let field = FieldPath::parse(&field.field_path)?;
    let value = filter
        .value
        .ok_or_else(|| Error::invalid("Field filter has no value."))?;
    if field.is_name() {
        check_name_operand(op, &value)?;
    }
    let key = order::key(&value);
    let null = order::is_null(&key);
    let test = match op {
        Operator::Equal => Test::Equal(key),
        Operator::NotEqual => Test::NotEqual(key),
        Operator::LessThan
        | Operator::LessThanOrEqual
        | Operator::GreaterThan
        | Operator::GreaterThanOrEqual
            if null =>
        {
            Test::Never
        }
        Operator::LessThan | Operator::LessThanOrEqual => Test::Less {
            than: key,
            or_equal: op == Operator::LessThanOrEqual,
        },
        Operator::GreaterThan | Operator::GreaterThanOrEqual => Test::Greater {
            than: key,
            or_equal: op == Operator::GreaterThanOrEqual,
        },
        Operator::ArrayContains => Test::ArrayContainsAny(BTreeSet::from([key])),
        Operator::ArrayContainsAny => {
            Test::ArrayContainsAny(keys(op, &value, limits::MAX_DISJUNCTIONS)?)
        }
        Operator::In => {
            let mut keys = keys(op, &value, limits::MAX_DISJUNCTIONS)?;
            keys.retain(|key| !order::is_null(key));
            Test::In(keys)
        }
        Operator::NotIn => {
            let keys = keys(op, &value, limits::MAX_NOT_IN_VALUES)?;
            if keys.iter().any(|key| order::is_null(key)) {
                Test::Never
            } else {
                Test::NotIn(keys)
            }
        }
        Operator::Unspecified => return Err(Error::invalid("Field filter has no operator.")),
    };
    Ok(Filter::Field(field, test))
}

fn keys(op: field_filter::Operator, value: &Value, most: usize) -> Result<BTreeSet<Vec<u8>>> {
    match &value.value_type {
        Some(ValueType::ArrayValue(array)) if !array.values.is_empty() => {
            if array.values.len() > most {
                return Err(Error::invalid(format!(
                    "'{}' supports up to {most} comparison values.",
                    op.as_str_name()
                )));
            }
            Ok(array.values.iter().map(order::key).collect())
        }
        _ => Err(Error::invalid(format!(
            "'{}' requires a non-empty ArrayValue.",
            op.as_str_name()
        ))),
    }
}

fn check_name_operand(op: field_filter::Operator, value: &Value) -> Result<()> {
    use field_filter::Operator;
    let is_reference =
        |value: &Value| matches!(value.value_type, Some(ValueType::ReferenceValue(_)));
    let valid = match (op, &value.value_type) {
        (Operator::ArrayContains | Operator::ArrayContainsAny, _) => false,
        (Operator::In | Operator::NotIn, Some(ValueType::ArrayValue(array))) => {
            array.values.iter().all(is_reference)
        }
        _ => is_reference(value),
    };
    if valid {
        Ok(())
    } else {
        Err(Error::invalid("__key__ filter value must be a Key"))
    }
}
