//! The language of subscription filters: `attributes:KEY`, `attributes.KEY = "value"`, `!=`,
//! `hasPrefix(attributes.KEY, "prefix")`, joined by `AND` or `OR`, negated by `NOT` or `-`, grouped by
//! parentheses. `AND` and `OR` mix only with parentheses.

mod lexer;

use std::collections::HashMap;

use self::lexer::{Token, tokens};

/// The longest filter, in bytes.
const LONGEST: usize = 256;

/// Which messages a subscription has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter(Node);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Has(String),
    Equals(String, String),
    Prefix(String, String),
    Not(Box<Node>),
    All(Vec<Node>),
    Any(Vec<Node>),
}

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FilterError(String);

impl Filter {
    /// Reads a filter.
    pub(crate) fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > LONGEST {
            return Err(FilterError(format!(
                "the filter has {} bytes, at most {LONGEST} are allowed",
                text.len()
            )));
        }
        let mut parser = Parser {
            tokens: tokens(text)?,
            at: 0,
        };
        let node = parser.expression()?;
        match parser.next() {
            None => Ok(Self(node)),
            Some(token) => Err(unexpected(Some(token), "the end, AND or OR")),
        }
    }

    /// Whether a message with these attributes passes.
    pub(crate) fn passes(&self, attributes: &HashMap<String, String>) -> bool {
        self.0.passes(attributes)
    }
}

impl Node {
    fn passes(&self, attributes: &HashMap<String, String>) -> bool {
        match self {
            Self::Has(key) => attributes.contains_key(key),
            Self::Equals(key, value) => attributes.get(key) == Some(value),
            Self::Prefix(key, prefix) => attributes
                .get(key)
                .is_some_and(|value| value.starts_with(prefix)),
            Self::Not(node) => !node.passes(attributes),
            Self::All(nodes) => nodes.iter().all(|node| node.passes(attributes)),
            Self::Any(nodes) => nodes.iter().any(|node| node.passes(attributes)),
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

fn unexpected(token: Option<Token>, wanted: &str) -> FilterError {
    FilterError(match token {
        Some(token) => format!("found {token}, expected {wanted}"),
        None => format!("the filter ends where {wanted} was expected"),
    })
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn expect(&mut self, wanted: &Token) -> Result<(), FilterError> {
        match self.next() {
            Some(token) if token == *wanted => Ok(()),
            other => Err(unexpected(other, &wanted.to_string())),
        }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found)) if found == word)
    }

    fn expression(&mut self) -> Result<Node, FilterError> {
        let mut nodes = vec![self.term()?];
        let joint = match self.peek() {
            Some(Token::Word(word)) if word == "AND" || word == "OR" => word.clone(),
            _ => return Ok(nodes.remove(0)),
        };
        while self.is_word(&joint) {
            self.at += 1;
            nodes.push(self.term()?);
        }
        if self.is_word("AND") || self.is_word("OR") {
            return Err(FilterError(
                "AND and OR can't be combined without parentheses".to_owned(),
            ));
        }
        Ok(match joint.as_str() {
            "AND" => Node::All(nodes),
            _ => Node::Any(nodes),
        })
    }

    fn term(&mut self) -> Result<Node, FilterError> {
        match self.next() {
            Some(Token::Word(word)) if word == "NOT" => Ok(Node::Not(Box::new(self.term()?))),
            Some(Token::Minus) => Ok(Node::Not(Box::new(self.term()?))),
            Some(Token::Open) => {
                let inner = self.expression()?;
                self.expect(&Token::Close)?;
                Ok(inner)
            }
            Some(Token::Word(word)) if word == "hasPrefix" => self.prefix(),
            Some(Token::Word(word)) if word == "attributes" => self.comparison(),
            other => Err(unexpected(
                other,
                "attributes, hasPrefix, NOT or a parenthesis",
            )),
        }
    }

    fn comparison(&mut self) -> Result<Node, FilterError> {
        match self.next() {
            Some(Token::Colon) => Ok(Node::Has(self.key()?)),
            Some(Token::Dot) => {
                let key = self.key()?;
                match self.next() {
                    Some(Token::Equal) => Ok(Node::Equals(key, self.value()?)),
                    Some(Token::NotEqual) => {
                        Ok(Node::Not(Box::new(Node::Equals(key, self.value()?))))
                    }
                    other => Err(unexpected(other, "= or !=")),
                }
            }
            other => Err(unexpected(other, "':' or '.' and an attribute's key")),
        }
    }

    fn prefix(&mut self) -> Result<Node, FilterError> {
        self.expect(&Token::Open)?;
        self.expect(&Token::Word("attributes".to_owned()))?;
        self.expect(&Token::Dot)?;
        let key = self.key()?;
        self.expect(&Token::Comma)?;
        let prefix = self.value()?;
        self.expect(&Token::Close)?;
        Ok(Node::Prefix(key, prefix))
    }

    fn key(&mut self) -> Result<String, FilterError> {
        match self.next() {
            Some(Token::Word(key) | Token::Text(key)) if !key.is_empty() => Ok(key),
            other => Err(unexpected(other, "an attribute's key")),
        }
    }

    fn value(&mut self) -> Result<String, FilterError> {
        match self.next() {
            Some(Token::Text(value)) => Ok(value),
            other => Err(unexpected(other, "a string in quotes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(filter: &str, attributes: &[(&str, &str)]) -> bool {
        let attributes = attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Filter::parse(filter)
            .unwrap_or_else(|err| panic!("{filter}: {err}"))
            .passes(&attributes)
    }

    #[test]
    fn comparisons_look_at_keys_and_values() {
        let com: &[_] = &[("domain", "com"), ("name", "communal")];
        assert!(passes("attributes:domain", com));
        assert!(!passes("attributes:region", com));
        assert!(passes(r#"attributes.domain = "com""#, com));
        assert!(passes(r#"attributes.domain="com""#, com));
        assert!(!passes(r#"attributes.domain = "Com""#, com));
        assert!(!passes(r#"attributes.domain != "com""#, com));
        assert!(passes(r#"attributes.domain != "org""#, com));
        assert!(passes(r#"hasPrefix(attributes.name, "co")"#, com));
        assert!(!passes(r#"hasPrefix(attributes.name, "no")"#, com));
        assert!(!passes(r#"hasPrefix(attributes.region, "")"#, com));
    }

    #[test]
    fn a_missing_attribute_is_unequal_to_anything() {
        assert!(passes(r#"attributes.domain != "com""#, &[]));
        assert!(!passes(
            r#"attributes:domain AND attributes.domain != "com""#,
            &[]
        ));
    }

    #[test]
    fn operators_join_negate_and_group() {
        let both: &[_] = &[("a", "1"), ("b", "2")];
        assert!(passes("attributes:a AND attributes:b", both));
        assert!(!passes("attributes:a AND attributes:c", both));
        assert!(passes("attributes:c OR attributes:b OR attributes:d", both));
        assert!(passes("NOT attributes:c", both));
        assert!(passes("-attributes:c AND NOT -attributes:a", both));
        let grouped = "attributes:a AND (attributes:c OR NOT attributes:d)";
        assert!(passes(grouped, both));
        assert!(!passes("NOT (attributes:a OR attributes:c)", both));
    }

    #[test]
    fn keys_and_values_may_be_quoted_and_escaped() {
        let tags: &[_] = &[("iana.org/language_tag", "a\"b\\é\n")];
        assert!(passes(r#"attributes:"iana.org/language_tag""#, tags));
        assert!(passes(
            r#"attributes."iana.org/language_tag" = "a\"b\\\u00e9\n""#,
            tags
        ));
        assert!(passes(
            r#"attributes."iana.org/language_tag" = "a\x22b\134\u00e9\012""#,
            tags
        ));
        assert!(passes("attributes:with-hyphen_1", &[("with-hyphen_1", "")]));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for bad in [
            "",
            "attributes",
            "attributes.a",
            "attributes.a = b",
            r#"attributes.a = "b"#,
            r#"attributes:a = "b""#,
            "data:a",
            "attributes:a AND",
            "attributes:a attributes:b",
            "attributes:a and attributes:b",
            "attributes:a AND attributes:b OR attributes:c",
            "(attributes:a",
            "attributes:a)",
            r#"hasPrefix(attributes.a, b)"#,
            r#"attributes.a < "b""#,
            r#"attributes.a = "\q""#,
        ] {
            assert!(
                Filter::parse(bad).is_err(),
                "{bad:?} was taken for a filter"
            );
        }
        let long = format!("attributes:{}", "a".repeat(LONGEST));
        assert!(Filter::parse(&long).is_err());
    }
}
