//! Field masks: which fields of a message an update replaces.

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, ReflectMessage};
use prost_types::FieldMask;
use tonic::Status;

/// `current` with the fields that `mask` names taken from `new`; a field that `new` doesn't have is
/// cleared. `name` is the messages' full name in the contracts.
///
/// # Errors
/// INVALID_ARGUMENT when the mask is empty or names what isn't there.
pub(crate) fn apply<T: Message + Default>(
    contracts: &DescriptorPool,
    name: &str,
    current: &T,
    new: &T,
    mask: Option<&FieldMask>,
) -> Result<T, Status> {
    let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    if paths.is_empty() {
        return Err(Status::invalid_argument(
            "The update_mask must be set, and must contain a non-empty paths list.",
        ));
    }
    let internal = |err: String| Status::internal(err);
    let descriptor = contracts
        .get_message_by_name(name)
        .ok_or_else(|| internal(format!("{name} is not in the contracts")))?;
    let read = |message: &T| {
        DynamicMessage::decode(descriptor.clone(), message.encode_to_vec().as_slice())
            .map_err(|err| internal(err.to_string()))
    };
    let (mut current, new) = (read(current)?, read(new)?);
    for path in paths {
        copy(&mut current, &new, path).ok_or_else(|| {
            let short = descriptor.name();
            Status::invalid_argument(format!(
                "Invalid update_mask provided: '{path}' is not a known {short} field."
            ))
        })?;
    }
    T::decode(current.encode_to_vec().as_slice()).map_err(|err| internal(err.to_string()))
}

fn copy(to: &mut DynamicMessage, from: &DynamicMessage, path: &str) -> Option<()> {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let field = to.descriptor().get_field_by_name(name)?;
    let Some(rest) = rest else {
        if from.has_field(&field) {
            to.set_field(&field, from.get_field(&field).into_owned());
        } else {
            to.clear_field(&field);
        }
        return Some(());
    };
    if field.is_list() || field.is_map() || !matches!(field.kind(), Kind::Message(_)) {
        return None;
    }
    let below = from.get_field(&field);
    copy(
        to.get_field_mut(&field).as_message_mut()?,
        below.as_message()?,
        rest,
    )
}
