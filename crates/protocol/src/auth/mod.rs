//! The AK/SK signature of requests (`SDK-HMAC-SHA256`, API reference 3.2).
//!
//! A client signs a request with [`signer::sign`]. A server parses the header with [`signer::Authorization`] and verifies it. Both
//! hash the same [`CanonicalRequest`]. A signature is valid for [`signer::MAX_SKEW`] before and after its time.
//!
//! # Examples
//! ```
//! use std::time::SystemTime;
//!
//! use dms_protocol::{
//!     auth::{RequestParts, signer::{self, Authorization}},
//!     secret::Secret,
//! };
//! use http::{HeaderMap, Method};
//!
//! let secret_key = Secret::from("secret");
//! let mut headers = HeaderMap::new();
//! headers.insert("host", "dms.example.com".parse()?);
//! headers.insert(signer::DATE_HEADER, signer::format_date(SystemTime::now()).parse()?);
//! let request =
//!     RequestParts { method: &Method::GET, path: "/v2/shop/queues", query: "", headers: &headers, body: b"" };
//! let header = signer::sign("AK", &secret_key, &request)?;
//!
//! let authorization = Authorization::parse(header.to_str()?)?;
//! assert_eq!(authorization.access_key, "AK");
//! authorization.verify(&secret_key, &request, SystemTime::now())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod canonical;
pub mod signer;

pub use self::canonical::{CanonicalRequest, MissingHeader, RequestParts};
pub use self::signer::SignatureError;
