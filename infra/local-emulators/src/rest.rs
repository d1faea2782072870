//! REST with JSON, in front of gRPC: the `google.api.http` options of the contracts say which path
//! and verb belong to which method, and Protobuf's JSON mapping says the rest. A call is handed to the
//! gRPC service as if it had come by gRPC, so both surfaces behave alike.

mod template;

use std::collections::HashMap;

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Method, Request, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt;
use prost::{Message, bytes::BufMut};
use prost_reflect::{
    DescriptorPool, DynamicMessage, Kind, MessageDescriptor, SerializeOptions, Value as Field,
};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};
use tower::ServiceExt;

use self::template::Template;

/// The largest request, a publish of 10 MB in base64 with room to spare.
const LARGEST: usize = 16 * 1024 * 1024;

/// Why the contracts don't give a REST surface.
#[derive(Debug, thiserror::Error)]
#[error("the contracts' REST paths can't be read: {0}")]
pub struct RestError(String);

/// Answers REST calls with what a gRPC router answers.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    bindings: std::sync::Arc<Vec<Binding>>,
    grpc: axum::Router,
}

#[derive(Debug)]
struct Binding {
    verb: Method,
    template: Template,
    whole_body: bool,
    input: MessageDescriptor,
    output: MessageDescriptor,
    /// `/google.pubsub.v1.Publisher/Publish`
    path: String,
}

impl Rest {
    /// Reads the paths from the contracts; calls go to `grpc`.
    pub(crate) fn new(contracts: &DescriptorPool, grpc: axum::Router) -> Result<Self, RestError> {
        let rule = contracts
            .get_extension_by_name("google.api.http")
            .ok_or_else(|| RestError("google.api.http is missing".to_owned()))?;
        let mut bindings = Vec::new();
        for service in contracts.services() {
            for method in service.methods() {
                let options = method.options();
                if !options.has_extension(&rule) {
                    continue;
                }
                let value = options.get_extension(&rule);
                let Some(rule) = value.as_message() else {
                    continue;
                };
                let path = format!("/{}/{}", service.full_name(), method.name());
                bindings.push(Binding::new(rule, &method, path)?);
            }
        }
        Ok(Self {
            bindings: std::sync::Arc::new(bindings),
            grpc,
        })
    }

    /// Answers one call.
    pub(crate) async fn call(self, request: Request<Body>) -> Response {
        let numbers = request
            .uri()
            .query()
            .is_some_and(|query| query.contains("enum-encoding"));
        match self.answer(request).await {
            Ok(message) => answer_json(&message, numbers),
            Err(status) => error_json(&status),
        }
    }

    async fn answer(self, request: Request<Body>) -> Result<DynamicMessage, Status> {
        let (parts, body) = request.into_parts();
        let (binding, variables) = self
            .bindings
            .iter()
            .filter(|binding| binding.verb == parts.method)
            .find_map(|binding| Some((binding, binding.template.matches(parts.uri.path())?)))
            .ok_or_else(|| {
                let (method, path) = (&parts.method, parts.uri.path());
                Status::not_found(format!("The requested URL {method} {path} was not found."))
            })?;
        let body = axum::body::to_bytes(body, LARGEST)
            .await
            .map_err(|err| Status::invalid_argument(format!("The body can't be read: {err}")))?;
        let input = binding.input(&body, &parts.uri, variables)?;
        let answer = exchange(self.grpc, &binding.path, &input).await?;
        DynamicMessage::decode(binding.output.clone(), answer)
            .map_err(|err| Status::internal(err.to_string()))
    }
}

impl Binding {
    fn new(
        rule: &DynamicMessage,
        method: &prost_reflect::MethodDescriptor,
        path: String,
    ) -> Result<Self, RestError> {
        let text = |name: &str| {
            let value = rule.get_field_by_name(name);
            let text = value.as_deref().and_then(Field::as_str).unwrap_or_default();
            text.to_owned()
        };
        let (verb, template) = [
            (Method::GET, "get"),
            (Method::PUT, "put"),
            (Method::POST, "post"),
            (Method::DELETE, "delete"),
            (Method::PATCH, "patch"),
        ]
        .into_iter()
        .map(|(verb, name)| (verb, text(name)))
        .find(|(_, template)| !template.is_empty())
        .ok_or_else(|| RestError(format!("{path} has no path")))?;
        Ok(Self {
            verb,
            template: Template::parse(&template).map_err(RestError)?,
            whole_body: text("body") == "*",
            input: method.input(),
            output: method.output(),
            path,
        })
    }

    /// The request message, from body, query and path.
    fn input(
        &self,
        body: &Bytes,
        uri: &Uri,
        variables: HashMap<String, String>,
    ) -> Result<DynamicMessage, Status> {
        let invalid =
            |err: String| Status::invalid_argument(format!("Invalid JSON payload received. {err}"));
        let mut fields = if self.whole_body && !body.is_empty() {
            serde_json::from_slice::<Map<String, Value>>(body)
                .map_err(|err| invalid(err.to_string()))?
        } else {
            Map::new()
        };
        let query: Vec<(String, String)> = axum::extract::Query::try_from_uri(uri)
            .map_err(|err| invalid(err.to_string()))?
            .0;
        // `$alt`, `alt`, `key` and their like are about the call, not of the message.
        let own = query.into_iter().filter(|(name, _)| {
            !name.starts_with('$')
                && !["alt", "key", "prettyPrint", "fields"].contains(&name.as_str())
        });
        for (path, text) in own.chain(variables) {
            place(&mut fields, &self.input, &path, text);
        }
        for field in self.input.fields() {
            if matches!(field.kind(), Kind::Message(of) if of.full_name() == "google.protobuf.FieldMask")
                && let Some(Value::String(mask)) = fields.get_mut(field.json_name())
            {
                *mask = camel_case(mask);
            }
        }
        DynamicMessage::deserialize(self.input.clone(), Value::Object(fields))
            .map_err(|err| invalid(err.to_string()))
    }
}

/// Puts a text at a dotted path of a message in JSON.
fn place(fields: &mut Map<String, Value>, message: &MessageDescriptor, path: &str, text: String) {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let field = message
        .get_field_by_name(name)
        .or_else(|| message.get_field_by_json_name(name));
    // A name that isn't known is left in, for the reader to complain about.
    let key = field.as_ref().map_or(name, |field| field.json_name());
    let kind = field.as_ref().map(prost_reflect::FieldDescriptor::kind);
    match (rest, &kind) {
        (Some(rest), Some(Kind::Message(inner))) => {
            let below = fields
                .entry(key)
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(below) = below {
                place(below, inner, rest, text);
            }
        }
        (_, Some(Kind::Bool)) => {
            fields.insert(key.to_owned(), Value::Bool(text == "true"));
        }
        _ => {
            fields.insert(key.to_owned(), Value::String(text));
        }
    }
}

/// The JSON form of a field mask; clients send the other one too.
fn camel_case(mask: &str) -> String {
    let mut upper = false;
    let mut out = String::with_capacity(mask.len());
    for letter in mask.chars() {
        if letter == '_' {
            upper = true;
        } else {
            out.push(if upper {
                letter.to_ascii_uppercase()
            } else {
                letter
            });
            upper = false;
        }
    }
    out
}

/// One unary gRPC call, within the process.
async fn exchange(grpc: axum::Router, path: &str, input: &DynamicMessage) -> Result<Bytes, Status> {
    let internal = |err: String| Status::internal(err);
    let mut frame = Vec::new();
    frame.put_u8(0);
    let length = u32::try_from(input.encoded_len()).map_err(|err| internal(err.to_string()))?;
    frame.put_u32(length);
    input
        .encode(&mut frame)
        .map_err(|err| internal(err.to_string()))?;
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Body::from(frame))
        .map_err(|err| internal(err.to_string()))?;
    let response = grpc
        .oneshot(request)
        .await
        .unwrap_or_else(|never| match never {});
    if let Some(status) = Status::from_header_map(response.headers())
        && status.code() != Code::Ok
    {
        return Err(status);
    }
    let answer = response
        .into_body()
        .collect()
        .await
        .map_err(|err| internal(err.to_string()))?;
    match answer.trailers().and_then(Status::from_header_map) {
        Some(status) if status.code() != Code::Ok => return Err(status),
        _ => {}
    }
    let mut bytes = answer.to_bytes();
    if bytes.len() < 5 {
        return Err(internal("the service answered nothing".to_owned()));
    }
    Ok(bytes.split_off(5))
}

fn answer_json(message: &DynamicMessage, numbers: bool) -> Response {
    let options = SerializeOptions::new().use_enum_numbers(numbers);
    let mut out = Vec::new();
    let written =
        message.serialize_with_options(&mut serde_json::Serializer::new(&mut out), &options);
    match written {
        Ok(()) => {
            let json = HeaderValue::from_static("application/json; charset=UTF-8");
            ([(header::CONTENT_TYPE, json)], out).into_response()
        }
        Err(err) => error_json(&Status::internal(err.to_string())),
    }
}

fn error_json(status: &Status) -> Response {
    let (http, name) = http_status(status.code());
    let error = json!({
        "error": { "code": http.as_u16(), "message": status.message(), "status": name }
    });
    (http, axum::Json(error)).into_response()
}

/// `google.rpc.Code`'s own mapping.
fn http_status(code: Code) -> (StatusCode, &'static str) {
    match code {
        Code::Ok => (StatusCode::OK, "OK"),
        Code::Cancelled => (
            StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            "CANCELLED",
        ),
        Code::Unknown => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        Code::InvalidArgument => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
        Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"),
        Code::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
        Code::AlreadyExists => (StatusCode::CONFLICT, "ALREADY_EXISTS"),
        Code::PermissionDenied => (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
        Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED"),
        Code::FailedPrecondition => (StatusCode::BAD_REQUEST, "FAILED_PRECONDITION"),
        Code::Aborted => (StatusCode::CONFLICT, "ABORTED"),
        Code::OutOfRange => (StatusCode::BAD_REQUEST, "OUT_OF_RANGE"),
        Code::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "UNIMPLEMENTED"),
        Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
        Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        Code::DataLoss => (StatusCode::INTERNAL_SERVER_ERROR, "DATA_LOSS"),
        Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
    }
}

#[cfg(test)]
mod tests {
    use super::camel_case;

    #[test]
    fn masks_of_both_forms_read_alike() {
        assert_eq!(
            camel_case("labels,retry_policy.minimum_backoff"),
            "labels,retryPolicy.minimumBackoff"
        );
        assert_eq!(camel_case("retryPolicy"), "retryPolicy");
    }
}
