//! The AK/SK signature of requests.

pub mod canonical;
pub mod signer;

pub use self::canonical::{CanonicalRequest, MissingHeader, RequestParts};
pub use self::signer::SignatureError;
