//! Who is calling: AK/SK signatures.

mod canonical;
pub mod signer;

pub use canonical::{CanonicalRequest, RequestParts};
