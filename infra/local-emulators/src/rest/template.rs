//! Path templates of `google.api.http`: `/v1/{topic=projects/*/topics/*}:publish`.

use std::collections::HashMap;

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// `*`
    One,
    /// `**`
    Rest,
}

#[derive(Debug)]
struct Variable {
    field: String,
    from: usize,
    to: usize,
}

/// One path template, read.
#[derive(Debug)]
pub(super) struct Template {
    segments: Vec<Segment>,
    variables: Vec<Variable>,
    /// What follows the colon after the last segment.
    verb: Option<String>,
}

impl Template {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let unreadable = || format!("{text:?} is no path template");
        // A colon counts only after the variables.
        let after = text.rfind('}').map_or(0, |end| end + 1);
        let (path, verb) = match text[after..].rsplit_once(':') {
            Some((head, verb)) => (&text[..after + head.len()], Some(verb.to_owned())),
            None => (text, None),
        };
        let mut segments = Vec::new();
        let mut variables = Vec::new();
        let mut rest = path.strip_prefix('/').ok_or_else(unreadable)?;
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('{') {
                let (variable, after) = inside.split_once('}').ok_or_else(unreadable)?;
                let (field, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
                let from = segments.len();
                segments.extend(pattern.split('/').map(segment));
                variables.push(Variable {
                    field: field.to_owned(),
                    from,
                    to: segments.len(),
                });
                rest = after.strip_prefix('/').unwrap_or(after);
            } else {
                let (literal, after) = rest.split_once('/').unwrap_or((rest, ""));
                segments.push(segment(literal));
                rest = after;
            }
        }
        Ok(Self {
            segments,
            variables,
            verb,
        })
    }

    /// The variables of a path, by the fields they belong to; `None` when it doesn't match.
    pub(super) fn matches(&self, path: &str) -> Option<HashMap<String, String>> {
        let path = match &self.verb {
            Some(verb) => path.strip_suffix(verb.as_str())?.strip_suffix(':')?,
            None => path,
        };
        let parts: Vec<String> = path
            .strip_prefix('/')?
            .split('/')
            .map(percent_decoded)
            .collect();
        let rest = self.segments.last() == Some(&Segment::Rest);
        if parts.len() != self.segments.len() && !(rest && parts.len() > self.segments.len()) {
            return None;
        }
        let fits = self
            .segments
            .iter()
            .zip(&parts)
            .all(|(segment, part)| match segment {
                Segment::Literal(literal) => literal == part,
                Segment::One | Segment::Rest => !part.is_empty(),
            });
        if !fits {
            return None;
        }
        let last = self.segments.len();
        let variables = self.variables.iter().map(|variable| {
            let to = if variable.to == last {
                parts.len()
            } else {
                variable.to
            };
            (variable.field.clone(), parts[variable.from..to].join("/"))
        });
        Some(variables.collect())
    }
}

fn segment(text: &str) -> Segment {
    match text {
        "*" => Segment::One,
        "**" => Segment::Rest,
        literal => Segment::Literal(literal.to_owned()),
    }
}

fn percent_decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let [first, after @ ..] = rest {
        let code = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(template: &str, path: &str) -> Option<Vec<(String, String)>> {
        let template = Template::parse(template).expect("a template");
        let mut variables: Vec<_> = template.matches(path)?.into_iter().collect();
        variables.sort();
        Some(variables)
    }

    #[test]
    fn variables_span_segments() {
        assert_eq!(
            matched(
                "/v1/{topic=projects/*/topics/*}/subscriptions",
                "/v1/projects/p/topics/t%2Bu/subscriptions"
            ),
            Some(vec![(
                "topic".to_owned(),
                "projects/p/topics/t+u".to_owned()
            )])
        );
    }

    #[test]
    fn verbs_and_lengths_tell_paths_apart() {
        let publish = "/v1/{topic=projects/*/topics/*}:publish";
        assert!(matched(publish, "/v1/projects/p/topics/t:publish").is_some());
        assert!(matched(publish, "/v1/projects/p/topics/t").is_none());
        assert!(matched(publish, "/v1/projects/p/topics/t:seek").is_none());
        let list = "/v1/{project=projects/*}/topics";
        assert!(matched(list, "/v1/projects/p/topics").is_some());
        assert!(matched(list, "/v1/projects/p/topics/t").is_none());
    }
}
