//! Messages in messages: `google.protobuf.Any`.

use prost::Name;
use prost_types::Any;

use crate::grpc::core::Error;

/// Wraps a message.
pub(super) fn pack<M: Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// The name of the message in it, without the domain: `apipb.IPAddressPrefix`.
pub(super) fn name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// The message in it, which is of this type.
pub(super) fn unpack<M: Name + Default>(any: &Any) -> Result<M, Error> {
    M::decode(any.value.as_slice())
        .map_err(|error| Error::invalid(format!("{} cannot be decoded: {error}", shown(name(any)))))
}

/// Text of a client in a message: not too much of it.
pub(super) fn shown(text: &str) -> String {
    const LENGTH: usize = 80;
    let mut short: String = text.chars().take(LENGTH).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
