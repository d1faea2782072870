//! What a value may be, how large it is, and the form in which it is kept.

use super::{
    error::{Error, Result},
    field_path::Fields,
    limits,
    path::{DocumentPath, Id, parse_parent},
    proto::v1::{MapValue, Value, value::ValueType},
    time::Time,
};

const VECTOR_TYPE: &str = "__type__";
const VECTOR: &str = "__vector__";
const VECTOR_VALUE: &str = "value";

/// The elements of a map that stands for a vector.
pub(super) fn vector_elements(map: &MapValue) -> Option<&[Value]> {
    let is_vector = matches!(
        &map.fields.get(VECTOR_TYPE)?.value_type,
        Some(ValueType::StringValue(kind)) if kind == VECTOR
    );
    match &map.fields.get(VECTOR_VALUE)?.value_type {
        Some(ValueType::ArrayValue(array)) if is_vector && map.fields.len() == 2 => {
            Some(&array.values)
        }
        _ => None,
    }
}

/// Checks a document's fields and brings them into the form they are kept in.
pub(super) fn normalize_fields(fields: &mut Fields) -> Result<()> {
    normalize_map(fields, 1)
}

/// The same for one value, as transforms carry.
pub(super) fn normalize(value: &mut Value) -> Result<()> {
    normalize_value(value, "value", 1, false)
}

fn normalize_map(fields: &mut Fields, depth: usize) -> Result<()> {
    for (name, value) in fields {
        if name.is_empty() {
            return Err(Error::invalid("Property names must not be empty."));
        }
        if limits::is_reserved(name) {
            return Err(Error::invalid(format!(
                "Property name \"{name}\" is reserved."
            )));
        }
        if name.len() > limits::MAX_FIELD_NAME_BYTES {
            return Err(Error::invalid(format!(
                "Property name is longer than {} bytes.",
                limits::MAX_FIELD_NAME_BYTES
            )));
        }
        normalize_value(value, name, depth, false)?;
    }
    Ok(())
}

fn normalize_value(value: &mut Value, name: &str, depth: usize, in_array: bool) -> Result<()> {
    let Some(value) = &mut value.value_type else {
        return Err(Error::invalid(format!(
            "Property \"{name}\" has no value: the value type is not set."
        )));
    };
    let too_long = |length: usize| {
        if length > limits::MAX_VALUE_BYTES {
            return Err(Error::invalid(format!(
                "The value of property \"{name}\" is longer than {} bytes.",
                limits::MAX_VALUE_BYTES
            )));
        }
        Ok(())
    };
    match value {
        ValueType::NullValue(null) => *null = 0,
        ValueType::BooleanValue(_) | ValueType::IntegerValue(_) | ValueType::DoubleValue(_) => {}
        ValueType::TimestampValue(timestamp) => *timestamp = Time::try_from(*timestamp)?.into(),
        ValueType::StringValue(text) => too_long(text.len())?,
        ValueType::BytesValue(bytes) => too_long(bytes.len())?,
        ValueType::ReferenceValue(name) => {
            parse_parent(name)?;
        }
        ValueType::GeoPointValue(point) => {
            let valid = (-90.0..=90.0).contains(&point.latitude)
                && (-180.0..=180.0).contains(&point.longitude);
            if !valid {
                return Err(Error::invalid(format!(
                    "Property \"{name}\" holds an invalid geographical point: latitude {}, longitude {}.",
                    point.latitude, point.longitude
                )));
            }
        }
        ValueType::ArrayValue(array) => {
            if in_array {
                return Err(Error::invalid(
                    "Cannot convert an array value in an array value.",
                ));
            }
            check_depth(name, depth)?;
            for value in &mut array.values {
                normalize_value(value, name, depth + 1, true)?;
            }
        }
        ValueType::MapValue(map) => {
            check_depth(name, depth)?;
            if vector_elements(map).is_none() {
                normalize_map(&mut map.fields, depth + 1)?;
            }
        }
        ValueType::FieldReferenceValue(_)
        | ValueType::VariableReferenceValue(_)
        | ValueType::FunctionValue(_)
        | ValueType::PipelineValue(_) => {
            return Err(Error::invalid(format!(
                "Property \"{name}\" holds a value that only pipelines may use."
            )));
        }
    }
    Ok(())
}

fn check_depth(name: &str, depth: usize) -> Result<()> {
    if depth > limits::MAX_DEPTH {
        return Err(Error::invalid(format!(
            "Property \"{name}\" is nested more than {} levels deep.",
            limits::MAX_DEPTH
        )));
    }
    Ok(())
}

/// A document's size, by Google's formula.
pub(super) fn document_size(path: &DocumentPath, fields: &Fields) -> usize {
    path_size(path.segments()) + fields_size(fields) + 32
}

fn fields_size(fields: &Fields) -> usize {
    fields
        .iter()
        .map(|(name, value)| name.len() + 1 + value_size(value))
        .sum()
}

fn path_size(path: &[Id]) -> usize {
    16 + path.iter().map(|id| id.as_str().len() + 1).sum::<usize>()
}

fn value_size(value: &Value) -> usize {
    match &value.value_type {
        None | Some(ValueType::NullValue(_) | ValueType::BooleanValue(_)) => 1,
        Some(
            ValueType::IntegerValue(_) | ValueType::DoubleValue(_) | ValueType::TimestampValue(_),
        ) => 8,
        Some(ValueType::GeoPointValue(_)) => 16,
        Some(ValueType::StringValue(text)) => text.len() + 1,
        Some(ValueType::BytesValue(bytes)) => bytes.len(),
        Some(ValueType::ReferenceValue(name)) => {
            parse_parent(name).map_or(name.len(), |(_, path)| path_size(&path))
        }
        Some(ValueType::ArrayValue(array)) => array.values.iter().map(value_size).sum(),
        Some(ValueType::MapValue(map)) => fields_size(&map.fields),
        Some(
            ValueType::FieldReferenceValue(_)
            | ValueType::VariableReferenceValue(_)
            | ValueType::FunctionValue(_)
            | ValueType::PipelineValue(_),
        ) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firestore::proto::v1::ArrayValue;

    fn value(value: ValueType) -> Value {
        Value {
            value_type: Some(value),
        }
    }

    fn nested_maps(levels: usize) -> Value {
        (0..levels).fold(value(ValueType::IntegerValue(1)), |inner, _| {
            value(ValueType::MapValue(MapValue {
                fields: Fields::from([("m".to_owned(), inner)]),
            }))
        })
    }

    #[test]
    fn the_documented_example_has_the_documented_size() {
        let (_, path) =
            DocumentPath::parse("projects/p/databases/d/documents/users/jeff/tasks/my_task_id")
                .expect("valid name");
        let fields = Fields::from([
            (
                "type".to_owned(),
                value(ValueType::StringValue("Personal".to_owned())),
            ),
            ("done".to_owned(), value(ValueType::BooleanValue(false))),
            ("priority".to_owned(), value(ValueType::IntegerValue(1))),
            (
                "description".to_owned(),
                value(ValueType::StringValue("Learn Cloud Firestore".to_owned())),
            ),
        ]);
        assert_eq!(document_size(&path, &fields), 147);
    }

    #[test]
    fn twenty_levels_are_kept_and_the_next_is_refused() {
        for (levels, kept) in [(20, true), (21, false)] {
            let mut fields = Fields::from([("top".to_owned(), nested_maps(levels))]);
            assert_eq!(normalize_fields(&mut fields).is_ok(), kept, "{levels}");
        }
    }

    #[test]
    fn an_array_directly_in_an_array_is_refused() {
        let array = |values| value(ValueType::ArrayValue(ArrayValue { values }));
        let mut fields = Fields::from([("a".to_owned(), array(vec![array(vec![])]))]);
        assert!(normalize_fields(&mut fields).is_err());
    }
}
