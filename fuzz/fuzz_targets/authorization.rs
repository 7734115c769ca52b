//! An `Authorization` header of any text: it is read or refused, and no guess of a signature passes.
#![no_main]

use dms_protocol::auth::{RequestParts, signer::Authorization};
use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &str| {
    let Ok(authorization) = Authorization::parse(header) else { return };
    assert!(!authorization.access_key.is_empty());
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("dms.example"));
    headers.insert("x-sdk-date", HeaderValue::from_static("20260102T030405Z"));
    let request = RequestParts { method: &Method::GET, path: "/v2/p/queues", query: "", headers: &headers, body: b"" };
    let now = Timestamp::from_second(1_767_323_045).expect("a time");
    assert!(authorization.verify(&"secret".into(), &request, now.into()).is_err(), "nobody knows the secret");
});
