//! Field transforms: changes that depend on what the document holds.

use super::{
    error::{Error, Result},
    field_path::{FieldPath, Fields},
    order,
    proto::v1::{
        ArrayValue, Value,
        document_transform::{
            FieldTransform,
            field_transform::{ServerValue, TransformType},
        },
        value::ValueType,
    },
    time::Time,
    value,
};

/// A field and what is done to it.
#[derive(Debug)]
pub(super) struct Transform {
    field: FieldPath,
    change: Change,
}

#[derive(Debug)]
enum Change {
    RequestTime,
    Increment(Number),
    Maximum(Number),
    Minimum(Number),
    Append(Vec<Value>),
    Remove(Vec<Value>),
}

#[derive(Debug, Clone, Copy)]
enum Number {
    Integer(i64),
    Double(f64),
}

impl Transform {
    pub(super) fn parse(transform: FieldTransform) -> Result<Self> {
        let field = FieldPath::parse(&transform.field_path)?;
        field.check_writable()?;
        let number = |value: Value| {
            Number::of(&value).ok_or_else(|| {
                Error::invalid(format!(
                    "The transform of property \"{field}\" requires a number."
                ))
            })
        };
        let change = match transform.transform_type {
            Some(TransformType::SetToServerValue(value)) => {
                if value != ServerValue::RequestTime as i32 {
                    return Err(Error::invalid(format!(
                        "Unknown server value for property \"{field}\"."
                    )));
                }
                Change::RequestTime
            }
            Some(TransformType::Increment(value)) => Change::Increment(number(value)?),
            Some(TransformType::Maximum(value)) => Change::Maximum(number(value)?),
            Some(TransformType::Minimum(value)) => Change::Minimum(number(value)?),
            Some(TransformType::AppendMissingElements(array)) => Change::Append(elements(array)?),
            Some(TransformType::RemoveAllFromArray(array)) => Change::Remove(elements(array)?),
            None => {
                return Err(Error::invalid(format!(
                    "The transform of property \"{field}\" has no type."
                )));
            }
        };
        Ok(Self { field, change })
    }

    /// Changes the field and returns what the write's result tells of it.
    pub(super) fn apply(&self, fields: &mut Fields, time: Time) -> Value {
        let current = self.field.get(fields);
        let (stored, told) = match &self.change {
            Change::RequestTime => {
                let now = of(ValueType::TimestampValue(time.to_millisecond().into()));
                (now.clone(), now)
            }
            Change::Increment(by) => number(current, *by, Number::plus),
            Change::Maximum(other) => number(current, *other, Number::max),
            Change::Minimum(other) => number(current, *other, Number::min),
            Change::Append(elements) => (append(current, elements), null()),
            Change::Remove(elements) => (remove(current, elements), null()),
        };
        self.field.set(fields, stored);
        told
    }
}

fn elements(mut array: ArrayValue) -> Result<Vec<Value>> {
    array.values.iter_mut().try_for_each(value::normalize)?;
    Ok(array.values)
}

fn number(
    current: Option<&Value>,
    operand: Number,
    combine: fn(Number, Number) -> Number,
) -> (Value, Value) {
    let combined = match current.and_then(Number::of) {
        Some(current) => combine(current, operand),
        None => operand,
    };
    (combined.into(), combined.into())
}

fn append(current: Option<&Value>, elements: &[Value]) -> Value {
    let mut values = array(current);
    let mut present: std::collections::HashSet<_> = values.iter().map(order::key).collect();
    for element in elements {
        if present.insert(order::key(element)) {
            values.push(element.clone());
        }
    }
    of(ValueType::ArrayValue(ArrayValue { values }))
}

fn remove(current: Option<&Value>, elements: &[Value]) -> Value {
    let removed: std::collections::HashSet<_> = elements.iter().map(order::key).collect();
    let mut values = array(current);
    values.retain(|value| !removed.contains(&order::key(value)));
    of(ValueType::ArrayValue(ArrayValue { values }))
}

fn array(current: Option<&Value>) -> Vec<Value> {
    match current.and_then(|value| value.value_type.as_ref()) {
        Some(ValueType::ArrayValue(array)) => array.values.clone(),
        _ => Vec::new(),
    }
}

fn of(value: ValueType) -> Value {
    Value {
        value_type: Some(value),
    }
}

fn null() -> Value {
    of(ValueType::NullValue(0))
}

impl Number {
    fn of(value: &Value) -> Option<Self> {
        match value.value_type {
            Some(ValueType::IntegerValue(value)) => Some(Self::Integer(value)),
            Some(ValueType::DoubleValue(value)) => Some(Self::Double(value)),
            _ => None,
        }
    }

    fn double(self) -> f64 {
        match self {
            Self::Integer(value) => value as f64,
            Self::Double(value) => value,
        }
    }

    fn is_nan(self) -> bool {
        matches!(self, Self::Double(value) if value.is_nan())
    }

    /// Integers stop at their bounds.
    fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => Self::Integer(a.saturating_add(b)),
            (a, b) => Self::Double(a.double() + b.double()),
        }
    }

    fn key(self) -> Vec<u8> {
        order::key(&self.into())
    }

    /// Not a number wins; of equals the one that is there stays.
    fn max(self, other: Self) -> Self {
        if other.is_nan() || (!self.is_nan() && other.key() > self.key()) {
            other
        } else {
            self
        }
    }

    fn min(self, other: Self) -> Self {
        if other.key() < self.key() {
            other
        } else {
            self
        }
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        of(match number {
            Number::Integer(value) => ValueType::IntegerValue(value),
            Number::Double(value) => ValueType::DoubleValue(value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(current: Option<ValueType>, change: TransformType) -> ValueType {
        let mut fields = Fields::new();
        if let Some(current) = current {
            fields.insert("f".to_owned(), of(current));
        }
        let transform = Transform::parse(FieldTransform {
            field_path: "f".to_owned(),
            transform_type: Some(change),
        })
        .expect("valid transform");
        transform.apply(&mut fields, Time::from_micros(1_234_567));
        fields["f"].value_type.clone().expect("has a value")
    }

    fn int(value: i64) -> ValueType {
        ValueType::IntegerValue(value)
    }

    #[test]
    fn increments_stop_at_the_bounds_and_mix_types() {
        let by = |value| TransformType::Increment(of(value));
        assert_eq!(apply(Some(int(2)), by(int(3))), int(5));
        assert_eq!(apply(Some(int(i64::MAX)), by(int(1))), int(i64::MAX));
        assert_eq!(
            apply(Some(int(2)), by(ValueType::DoubleValue(0.5))),
            ValueType::DoubleValue(2.5)
        );
        assert_eq!(
            apply(Some(ValueType::StringValue("x".into())), by(int(1))),
            int(1)
        );
        assert_eq!(apply(None, by(int(1))), int(1));
    }

    #[test]
    fn of_equal_numbers_the_stored_one_stays() {
        let stored = ValueType::DoubleValue(3.0);
        let maximum = TransformType::Maximum(of(int(3)));
        assert_eq!(apply(Some(stored.clone()), maximum), stored);
        let minimum = TransformType::Minimum(of(int(3)));
        assert_eq!(apply(Some(stored.clone()), minimum), stored);
        assert_eq!(
            apply(Some(int(3)), TransformType::Minimum(of(int(2)))),
            int(2)
        );
    }

    #[test]
    fn array_changes_take_equal_numbers_of_both_types_as_one() {
        let values = |values: Vec<ValueType>| ArrayValue {
            values: values.into_iter().map(of).collect(),
        };
        let stored = ValueType::ArrayValue(values(vec![int(1), int(2), int(1)]));
        let one = ValueType::DoubleValue(1.0);
        assert_eq!(
            apply(
                Some(stored.clone()),
                TransformType::AppendMissingElements(values(vec![one.clone(), int(3), int(3)]))
            ),
            ValueType::ArrayValue(values(vec![int(1), int(2), int(1), int(3)]))
        );
        assert_eq!(
            apply(
                Some(stored),
                TransformType::RemoveAllFromArray(values(vec![one]))
            ),
            ValueType::ArrayValue(values(vec![int(2)]))
        );
    }

    #[test]
    fn server_time_has_milliseconds() {
        assert_eq!(
            apply(
                None,
                TransformType::SetToServerValue(ServerValue::RequestTime as i32)
            ),
            ValueType::TimestampValue(prost_types::Timestamp {
                seconds: 1,
                nanos: 234_000_000
            })
        );
    }
}
