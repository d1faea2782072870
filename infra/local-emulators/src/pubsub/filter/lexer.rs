//! The words and signs of a filter.

use std::{fmt, iter::Peekable, str::Chars};

use super::FilterError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    /// A string in quotes, its escapes resolved.
    Text(String),
    Colon,
    Dot,
    Comma,
    Equal,
    NotEqual,
    Minus,
    Open,
    Close,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "'{word}'"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Colon => f.write_str("':'"),
            Self::Dot => f.write_str("'.'"),
            Self::Comma => f.write_str("','"),
            Self::Equal => f.write_str("'='"),
            Self::NotEqual => f.write_str("'!='"),
            Self::Minus => f.write_str("'-'"),
            Self::Open => f.write_str("'('"),
            Self::Close => f.write_str("')'"),
        }
    }
}

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, FilterError> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(first) = chars.next() {
        let token = match first {
            space if space.is_whitespace() => continue,
            ':' => Token::Colon,
            '.' => Token::Dot,
            ',' => Token::Comma,
            '=' => Token::Equal,
            '!' if chars.next_if_eq(&'=').is_some() => Token::NotEqual,
            '-' => Token::Minus,
            '(' => Token::Open,
            ')' => Token::Close,
            '"' => Token::Text(quoted(&mut chars)?),
            letter if is_word(letter) => {
                let mut word = String::from(letter);
                while let Some(letter) = chars.next_if(|&next| is_word(next) || next == '-') {
                    word.push(letter);
                }
                Token::Word(word)
            }
            other => return Err(FilterError(format!("{other:?} has no meaning here"))),
        };
        tokens.push(token);
    }
    Ok(tokens)
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

fn quoted(chars: &mut Peekable<Chars<'_>>) -> Result<String, FilterError> {
    let open = || FilterError("a string in quotes doesn't end".to_owned());
    let mut text = String::new();
    loop {
        match chars.next().ok_or_else(open)? {
            '"' => return Ok(text),
            '\\' => text.push(escaped(chars)?),
            other => text.push(other),
        }
    }
}

fn escaped(chars: &mut Peekable<Chars<'_>>) -> Result<char, FilterError> {
    let escape = chars.next();
    let code = match escape {
        Some(same @ ('"' | '\\' | '\'' | '?' | '`')) => return Ok(same),
        Some('n') => return Ok('\n'),
        Some('r') => return Ok('\r'),
        Some('t') => return Ok('\t'),
        Some('a') => return Ok('\u{7}'),
        Some('b') => return Ok('\u{8}'),
        Some('f') => return Ok('\u{c}'),
        Some('v') => return Ok('\u{b}'),
        Some('x' | 'X') => digits(chars, 2, 16, 0),
        Some('u') => digits(chars, 4, 16, 0),
        Some('U') => digits(chars, 8, 16, 0),
        Some(octal @ '0'..='3') => digits(chars, 2, 8, octal.to_digit(8).unwrap_or(0)),
        _ => None,
    };
    code.and_then(char::from_u32)
        .ok_or_else(|| FilterError("an escape in a string has no meaning".to_owned()))
}

fn digits(chars: &mut Peekable<Chars<'_>>, count: u32, radix: u32, first: u32) -> Option<u32> {
    (0..count).try_fold(first, |code, _| {
        let digit = chars.next()?.to_digit(radix)?;
        code.checked_mul(radix)?.checked_add(digit)
    })
}
