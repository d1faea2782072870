//! Paths to fields inside a document: `a.b`, or `` `with-dash`.b `` quoted.

use std::{collections::BTreeMap, fmt};

use super::{
    error::{Error, Result},
    limits,
    proto::v1::{MapValue, Value, value::ValueType},
};

pub(super) type Fields = BTreeMap<String, Value>;

/// The pseudo-field that stands for a document's name.
pub(super) const NAME: &str = "__name__";

/// A path of at least one field name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FieldPath(Vec<String>);

impl FieldPath {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let malformed = || Error::invalid(format!("Invalid property path \"{text}\"."));
        let mut names = Vec::new();
        let mut rest = text;
        loop {
            let (name, after) = match rest.strip_prefix('`') {
                Some(quoted) => unquote(quoted).ok_or_else(malformed)?,
                None => {
                    let end = rest.find('.').unwrap_or(rest.len());
                    let name = &rest[..end];
                    if name.contains(['`', '\\']) {
                        return Err(malformed());
                    }
                    (name.to_owned(), &rest[end..])
                }
            };
            if name.is_empty() {
                return Err(malformed());
            }
            if name.len() > limits::MAX_FIELD_NAME_BYTES {
                return Err(Error::invalid(format!(
                    "Property name is longer than {} bytes.",
                    limits::MAX_FIELD_NAME_BYTES
                )));
            }
            names.push(name);
            match after.strip_prefix('.') {
                Some(more) => rest = more,
                None if after.is_empty() => break,
                None => return Err(malformed()),
            }
        }
        Ok(Self(names))
    }

    pub(super) fn name() -> Self {
        Self(vec![NAME.to_owned()])
    }

    /// Whether it stands for the document's name.
    pub(super) fn is_name(&self) -> bool {
        self.0.len() == 1 && self.0[0] == NAME
    }

    /// Refuses names that are Google's own.
    pub(super) fn check_writable(&self) -> Result<()> {
        match self.0.iter().find(|name| limits::is_reserved(name)) {
            Some(name) => Err(Error::invalid(format!(
                "Property name \"{name}\" is reserved."
            ))),
            None => Ok(()),
        }
    }

    pub(super) fn get<'a>(&self, fields: &'a Fields) -> Option<&'a Value> {
        let (last, parents) = self.0.split_last()?;
        let mut fields = fields;
        for name in parents {
            match fields.get(name)?.value_type.as_ref()? {
                ValueType::MapValue(map) => fields = &map.fields,
                _ => return None,
            }
        }
        fields.get(last)
    }

    /// Sets the field; what is on the way and no map becomes one.
    pub(super) fn set(&self, fields: &mut Fields, value: Value) {
        let Some((last, parents)) = self.0.split_last() else {
            return;
        };
        let mut fields = fields;
        for name in parents {
            let slot = fields.entry(name.clone()).or_default();
            if !matches!(slot.value_type, Some(ValueType::MapValue(_))) {
                slot.value_type = Some(ValueType::MapValue(MapValue::default()));
            }
            let Some(ValueType::MapValue(map)) = &mut slot.value_type else {
                return;
            };
            fields = &mut map.fields;
        }
        fields.insert(last.clone(), value);
    }

    pub(super) fn remove(&self, fields: &mut Fields) {
        let Some((last, parents)) = self.0.split_last() else {
            return;
        };
        let mut fields = fields;
        for name in parents {
            match fields.get_mut(name).and_then(|v| v.value_type.as_mut()) {
                Some(ValueType::MapValue(map)) => fields = &mut map.fields,
                _ => return,
            }
        }
        fields.remove(last);
    }

    /// Whether both name the same field, or one is inside the other.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            let simple = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && !name.as_bytes().first().is_some_and(u8::is_ascii_digit);
            if simple {
                f.write_str(name)?;
            } else {
                write!(f, "`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))?;
            }
        }
        Ok(())
    }
}

/// Reads up to the closing backtick; returns the name and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '`' => return Some((name, &text[at + 1..])),
            '\\' => name.push(chars.next()?.1),
            c => name.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FieldPath {
        FieldPath::parse(text).expect("valid path")
    }

    fn text(value: &str) -> Value {
        Value {
            value_type: Some(ValueType::StringValue(value.to_owned())),
        }
    }

    #[test]
    fn quoted_names_may_hold_anything() {
        assert_eq!(path("a.`b.c`.`d\\`e\\\\`").0, ["a", "b.c", "d`e\\"]);
        for written in ["a.b", "`1a`.b", "`x-y`.`\\``"] {
            assert_eq!(path(written).to_string(), written);
        }
        for malformed in ["", ".", "a.", ".a", "a..b", "`a", "`a`b", "a`b"] {
            assert!(FieldPath::parse(malformed).is_err(), "{malformed}");
        }
    }

    #[test]
    fn setting_makes_the_maps_on_the_way() {
        let mut fields = Fields::from([("a".to_owned(), text("scalar"))]);
        path("a.b.c").set(&mut fields, text("x"));
        assert_eq!(path("a.b.c").get(&fields), Some(&text("x")));
        path("a.b.c").remove(&mut fields);
        assert_eq!(path("a.b.c").get(&fields), None);
        assert!(path("a.b").get(&fields).is_some());
    }
}
