//! The order of values across types, as bytes: `a` sorts before `b` exactly when its key does, and
//! two values are equal to a query exactly when their keys are.
//!
//! Null < booleans < NaN < numbers < timestamps < strings < bytes < references < geographical points
//! < arrays < vectors < maps. Integers and doubles compare by value. No key is the start of another,
//! so keys can be joined to order by several fields, and turned over bit by bit to descend.

use super::{
    field_path::Fields,
    path::{DatabaseName, DocumentPath, Id, parse_parent},
    proto::v1::{Value, value::ValueType},
    time::Time,
    value::vector_elements,
};

/// The kinds that range filters don't cross.
mod tag {
    pub(super) const NULL: u8 = 0x10;
    pub(super) const BOOLEAN: u8 = 0x18;
    pub(super) const NUMBER: u8 = 0x20;
    pub(super) const TIMESTAMP: u8 = 0x28;
    pub(super) const STRING: u8 = 0x30;
    pub(super) const BYTES: u8 = 0x38;
    pub(super) const REFERENCE: u8 = 0x40;
    pub(super) const GEO_POINT: u8 = 0x48;
    pub(super) const ARRAY: u8 = 0x50;
    pub(super) const VECTOR: u8 = 0x58;
    pub(super) const MAP: u8 = 0x60;
    /// Below every other tag: ends arrays, maps and paths.
    pub(super) const END: u8 = 0x00;
}

/// A value's key. Its first byte is the value's kind.
pub(super) fn key(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    push(&mut out, value);
    out
}

pub(super) fn is_null(key: &[u8]) -> bool {
    key.first() == Some(&tag::NULL)
}

/// The key of a document's name.
pub(super) fn push_name(out: &mut Vec<u8>, database: &DatabaseName, path: &DocumentPath) {
    push_reference(out, database, path.segments());
}

/// Turns a key over, so that it sorts the other way round.
pub(super) fn invert(key: &mut [u8]) {
    for byte in key {
        *byte = !*byte;
    }
}

pub(super) fn push(out: &mut Vec<u8>, value: &Value) {
    let Some(value) = &value.value_type else {
        out.push(tag::NULL);
        return;
    };
    match value {
        ValueType::NullValue(_) => out.push(tag::NULL),
        ValueType::BooleanValue(value) => out.extend([tag::BOOLEAN, u8::from(*value)]),
        ValueType::IntegerValue(value) => push_integer(out, *value),
        ValueType::DoubleValue(value) => push_number(out, *value, 0),
        ValueType::TimestampValue(value) => {
            out.push(tag::TIMESTAMP);
            let micros = Time::try_from(*value).map_or(i64::MIN, Time::micros);
            out.extend(ordered_integer(micros));
        }
        ValueType::StringValue(value) => {
            out.push(tag::STRING);
            push_bytes(out, value.as_bytes());
        }
        ValueType::BytesValue(value) => {
            out.push(tag::BYTES);
            push_bytes(out, value);
        }
        ValueType::ReferenceValue(name) => match parse_parent(name) {
            Ok((database, path)) => push_reference(out, &database, &path),
            Err(_) => {
                out.push(tag::REFERENCE);
                push_bytes(out, name.as_bytes());
            }
        },
        ValueType::GeoPointValue(point) => {
            out.push(tag::GEO_POINT);
            out.extend(ordered_double(point.latitude));
            out.extend(ordered_double(point.longitude));
        }
        ValueType::ArrayValue(array) => {
            out.push(tag::ARRAY);
            array.values.iter().for_each(|value| push(out, value));
            out.push(tag::END);
        }
        ValueType::MapValue(map) => match vector_elements(map) {
            Some(elements) => {
                out.push(tag::VECTOR);
                out.extend((elements.len() as u64).to_be_bytes());
                elements.iter().for_each(|value| push(out, value));
            }
            None => push_map(out, &map.fields),
        },
        // Only pipelines have these, and documents refuse them.
        ValueType::FieldReferenceValue(_)
        | ValueType::VariableReferenceValue(_)
        | ValueType::FunctionValue(_)
        | ValueType::PipelineValue(_) => out.push(tag::NULL),
    }
}

fn push_map(out: &mut Vec<u8>, fields: &Fields) {
    out.push(tag::MAP);
    for (name, value) in fields {
        out.push(tag::STRING);
        push_bytes(out, name.as_bytes());
        push(out, value);
    }
    out.push(tag::END);
}

fn push_reference(out: &mut Vec<u8>, database: &DatabaseName, path: &[Id]) {
    out.push(tag::REFERENCE);
    push_bytes(out, database.project.as_bytes());
    push_bytes(out, database.database.as_bytes());
    for id in path {
        match id.number() {
            Some(number) => {
                out.push(0x01);
                out.extend(ordered_integer(number));
            }
            None => {
                out.push(0x02);
                push_bytes(out, id.as_str().as_bytes());
            }
        }
    }
    out.push(tag::END);
}

/// Zero bytes are escaped, so that the end sorts before every continuation.
fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out.extend([0x00, 0x01]);
}

/// The nearest double, then how far the integer is from it: exact for all of 64 bits.
fn push_integer(out: &mut Vec<u8>, value: i64) {
    let nearest = value as f64;
    let distance = i128::from(value) - nearest as i128;
    push_number(out, nearest, distance as i16);
}

fn push_number(out: &mut Vec<u8>, value: f64, distance: i16) {
    out.push(tag::NUMBER);
    out.extend(ordered_double(value));
    out.extend(((distance as u16) ^ 0x8000).to_be_bytes());
}

fn ordered_integer(value: i64) -> [u8; 8] {
    ((value as u64) ^ (1 << 63)).to_be_bytes()
}

fn ordered_double(value: f64) -> [u8; 8] {
    if value.is_nan() {
        return [0; 8];
    }
    // Adding zero makes one zero of both.
    let bits = (value + 0.0).to_bits();
    let ordered = if bits >> 63 == 1 {
        !bits
    } else {
        bits ^ (1 << 63)
    };
    ordered.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firestore::proto::{
        google::r#type::LatLng,
        v1::{ArrayValue, MapValue},
    };

    fn value(value: ValueType) -> Value {
        Value {
            value_type: Some(value),
        }
    }
    fn int(i: i64) -> Value {
        value(ValueType::IntegerValue(i))
    }
    fn double(d: f64) -> Value {
        value(ValueType::DoubleValue(d))
    }
    fn text(s: &str) -> Value {
        value(ValueType::StringValue(s.into()))
    }
    fn array(values: Vec<Value>) -> Value {
        value(ValueType::ArrayValue(ArrayValue { values }))
    }
    fn map(fields: &[(&str, Value)]) -> Value {
        let fields = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        value(ValueType::MapValue(MapValue { fields }))
    }
    fn reference(path: &str) -> Value {
        let name = format!("projects/p/databases/d/documents/{path}");
        value(ValueType::ReferenceValue(name))
    }
    fn vector(elements: Vec<Value>) -> Value {
        map(&[("__type__", text("__vector__")), ("value", array(elements))])
    }

    #[test]
    fn values_of_all_types_are_ordered_as_documented() {
        let at = |seconds| {
            value(ValueType::TimestampValue(prost_types::Timestamp {
                seconds,
                nanos: 0,
            }))
        };
        let point = |latitude, longitude| {
            value(ValueType::GeoPointValue(LatLng {
                latitude,
                longitude,
            }))
        };
        let ascending = [
            value(ValueType::NullValue(0)),
            value(ValueType::BooleanValue(false)),
            value(ValueType::BooleanValue(true)),
            double(f64::NAN),
            double(f64::NEG_INFINITY),
            int(i64::MIN + 1),
            double(-1.5),
            int(-1),
            int(0),
            double(f64::MIN_POSITIVE),
            double(0.5),
            int(1),
            double(1.5),
            int((1 << 53) - 1),
            int(1 << 53),
            int((1 << 53) + 1),
            double(9_007_199_254_740_994.0),
            int(i64::MAX - 1),
            int(i64::MAX),
            double(9_223_372_036_854_775_808.0),
            double(f64::INFINITY),
            at(-1),
            at(0),
            at(1),
            text(""),
            text("\0"),
            text("\0a"),
            text("a"),
            text("a\0"),
            text("ab"),
            text("b"),
            text("é"),
            text("\u{ffff}"),
            text("\u{1f600}"),
            value(ValueType::BytesValue(vec![])),
            value(ValueType::BytesValue(vec![0])),
            value(ValueType::BytesValue(vec![255])),
            reference("a/__id2__"),
            reference("a/__id10__"),
            reference("a/b"),
            reference("a/b/c/d"),
            reference("a/bb"),
            point(-90.0, 0.0),
            point(0.0, -1.0),
            point(0.0, 1.0),
            array(vec![]),
            array(vec![int(1)]),
            array(vec![int(1), int(2)]),
            array(vec![int(2)]),
            array(vec![text("a")]),
            vector(vec![double(9.0)]),
            vector(vec![double(1.0), double(2.0)]),
            vector(vec![double(1.0), double(3.0)]),
            map(&[]),
            map(&[("a", int(1))]),
            map(&[("a", int(1)), ("b", int(1))]),
            map(&[("a", int(2))]),
            map(&[("b", int(0))]),
        ];
        for pair in ascending.windows(2) {
            assert!(key(&pair[0]) < key(&pair[1]), "{pair:?}");
            let (mut low, mut high) = (key(&pair[0]), key(&pair[1]));
            assert!(!high.starts_with(&low), "{pair:?}");
            invert(&mut low);
            invert(&mut high);
            assert!(low > high, "{pair:?}");
        }
    }

    #[test]
    fn equal_numbers_of_both_types_are_equal() {
        assert_eq!(key(&int(3)), key(&double(3.0)));
        assert_eq!(key(&double(0.0)), key(&double(-0.0)));
        assert_eq!(key(&int(1 << 60)), key(&double((1_i64 << 60) as f64)));
        assert_ne!(key(&int((1 << 60) + 1)), key(&double((1_i64 << 60) as f64)));
        assert_eq!(key(&double(f64::NAN)), key(&double(-f64::NAN)));
    }
}
