//! The vectors were computed with the vendor's unmodified Python signer.
#![allow(clippy::unwrap_used)]

use http::Method;
use proptest::prelude::*;

use super::*;

const ACCESS_KEY: &str = "CONFORMANCEAK0000001";
const SECRET_KEY: &str = "ConformanceSecretKey0123456789abcdefghij";
const EMPTY_HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const PROJECT: &str = "b78a90ae2a134b4b8b2ba30acab4e23a";

struct Vector {
    method: Method,
    /// The path after `/v2/{project}`.
    target: &'static str,
    canonical_target: &'static str,
    body: &'static [u8],
    body_hash: &'static str,
    security_token: Option<&'static str>,
    hash: &'static str,
    signature: &'static str,
}

impl Vector {
    fn path_and_query(&self) -> (String, String) {
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        (format!("/v2/{PROJECT}{path}"), query.to_owned())
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        headers.insert("host", HeaderValue::from_static("127.0.0.1:9301"));
        headers.insert("user-agent", HeaderValue::from_static("dms-vector/1"));
        headers.insert("x-project-id", HeaderValue::from_static(PROJECT));
        headers.insert("x-sdk-date", HeaderValue::from_static("20261122T203300Z"));
        if let Some(token) = self.security_token {
            headers.insert("x-security-token", HeaderValue::from_static(token));
        }
        headers
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.headers().keys().map(|name| name.as_str().to_owned()).collect();
        names.sort_unstable();
        names
    }

    fn canonical_text(&self) -> String {
        let token = self.security_token.map(|token| format!("x-security-token:{token}\n")).unwrap_or_default();
        format!(
            "{}\n/v2/{PROJECT}{}\ncontent-type:application/json\nhost:127.0.0.1:9301\nuser-agent:dms-vector/1\n\
             x-project-id:{PROJECT}\nx-sdk-date:20261122T203300Z\n{token}\n{}\n{}",
            self.method,
            self.canonical_target,
            self.names().join(";"),
            self.body_hash,
        )
    }
}

fn vectors() -> [Vector; 4] {
    [
        Vector {
            method: Method::GET,
            target: "/queues",
            canonical_target: "/queues/\n",
            body: b"",
            body_hash: EMPTY_HASH,
            security_token: None,
            hash: "bdfccb50b2df179bd10524ebed0582e49f9b439577bb408fbefdbe2dc5fe1f6e",
            signature: "da64ac2444086e54ff434251bc2ba7b4a122a925dc55809273de4c5dfeb2effc",
        },
        Vector {
            method: Method::GET,
            target: "/queues/075ae7da-6ce5-4966-940c-17c19fb5175e/groups/g-5ec247fd-d4a2-4d4f-9876-e4ff3280c461/messages\
                     ?tag=tag2&tag=tag1&ack_wait=30&max_msgs=10&tag_type=or&time_wait=3",
            canonical_target: "/queues/075ae7da-6ce5-4966-940c-17c19fb5175e/groups/\
                               g-5ec247fd-d4a2-4d4f-9876-e4ff3280c461/messages/\n\
                               ack_wait=30&max_msgs=10&tag=tag1&tag=tag2&tag_type=or&time_wait=3",
            body: b"",
            body_hash: EMPTY_HASH,
            security_token: None,
            hash: "20e64a8f078b5fefeb3262f6d8fd94b459fbcc7bae7f3cbc8f15658eb8814cd4",
            signature: "ad6f834761a8444f305609cbb70380c8bd7ede60b6f2ad58747197dac7484074",
        },
        Vector {
            method: Method::POST,
            target: "/queues",
            canonical_target: "/queues/\n",
            body: b"{\"name\": \"queue-001\", \"description\": \"\xe9\x98\x9f\xe5\x88\x97\"}",
            body_hash: "5d2a8a4362a20a4fe65dc5f36def108c40aabe0ce8c54ad4497f729dc63fc63f",
            security_token: Some("SECTOKEN+/=abc"),
            hash: "1c8474d0582ad1762d508f390b468f672bd65da8cf66276d8992f1f7fa1d7335",
            signature: "8f2eb9b27e1d716a9741722cdb377b71fdcee7db843ed95b314e0cfae1855559",
        },
        Vector {
            method: Method::GET,
            target: "/queues/a%20b~c?include_deadletter=true&x=a%20b%3Dc%2A",
            canonical_target: "/queues/a%20b~c/\ninclude_deadletter=true&x=a%20b%3Dc%2A",
            body: b"",
            body_hash: EMPTY_HASH,
            security_token: None,
            hash: "b60d4999326bfa5817e1d9a53a695c802f3ab282b93bfcd9e6b6b1d50329dbbc",
            signature: "e6aaad6a05fde7bd6275ea41eadd56b7a4535dc949c09572d5e1c01477b9724d",
        },
    ]
}

fn secret() -> Secret {
    Secret::from(SECRET_KEY)
}

fn signing_time() -> Timestamp {
    "2026-11-22T20:33:00Z".parse().unwrap()
}

/// Calls `check` with each vector's request.
fn each_vector(check: impl Fn(&Vector, &RequestParts<'_>)) {
    for vector in vectors() {
        let (path, query) = vector.path_and_query();
        let headers = vector.headers();
        let parts =
            RequestParts { method: &vector.method, path: &path, query: &query, headers: &headers, body: vector.body };
        check(&vector, &parts);
    }
}

#[test]
fn canonical_requests_are_those_of_the_vendors_signer() {
    each_vector(|vector, parts| {
        let canonical = CanonicalRequest::new(parts, &vector.names()).unwrap();
        assert_eq!(String::from_utf8_lossy(canonical.as_bytes()), vector.canonical_text());
        assert_eq!(canonical.hash(), vector.hash);
    });
}

#[test]
fn signatures_are_those_of_the_vendors_signer() {
    each_vector(|vector, parts| {
        let header = sign(ACCESS_KEY, &secret(), parts).unwrap();
        let expected = format!(
            "SDK-HMAC-SHA256 Access={ACCESS_KEY}, SignedHeaders={}, Signature={}",
            vector.names().join(";"),
            vector.signature
        );
        assert_eq!(header.to_str().unwrap(), expected);
        assert!(header.is_sensitive());
    });
}

#[test]
fn a_signature_holds_within_a_quarter_of_an_hour() {
    each_vector(|_, parts| {
        let header = sign(ACCESS_KEY, &secret(), parts).unwrap();
        let authorization = Authorization::parse(header.to_str().unwrap()).unwrap();
        assert_eq!(authorization.access_key, ACCESS_KEY);
        for seconds in [-900, 0, 900] {
            let now = SystemTime::from(signing_time() + jiff::SignedDuration::from_secs(seconds));
            assert_eq!(authorization.verify(&secret(), parts, now), Ok(()), "{seconds} s");
        }
        for seconds in [-901, 901] {
            let now = SystemTime::from(signing_time() + jiff::SignedDuration::from_secs(seconds));
            assert_eq!(authorization.verify(&secret(), parts, now), Err(SignatureError::Expired(901)));
        }
    });
}

#[test]
fn any_change_of_what_is_signed_breaks_the_signature() {
    each_vector(|_, parts| {
        let header = sign(ACCESS_KEY, &secret(), parts).unwrap();
        let authorization = Authorization::parse(header.to_str().unwrap()).unwrap();
        let refused = |parts: &RequestParts<'_>, key: &str| {
            let result = authorization.verify(&Secret::from(key), parts, signing_time().into());
            assert!(matches!(result, Err(SignatureError::Mismatch(_))), "{result:?}");
        };
        refused(parts, "another key");
        refused(&RequestParts { method: &Method::DELETE, ..*parts }, SECRET_KEY);
        refused(&RequestParts { path: "/v2/other/queues", ..*parts }, SECRET_KEY);
        refused(&RequestParts { query: "a=b", ..*parts }, SECRET_KEY);
        refused(&RequestParts { body: b"{}", ..*parts }, SECRET_KEY);
        let mut headers = parts.headers.clone();
        headers.append("x-project-id", HeaderValue::from_static("second"));
        refused(&RequestParts { headers: &headers, ..*parts }, SECRET_KEY);
    });
}

#[test]
fn a_declared_body_hash_must_be_that_of_the_body() {
    let mut headers = vectors()[2].headers();
    headers.insert(CONTENT_HASH_HEADER, HeaderValue::from_static("UNSIGNED-PAYLOAD"));
    let parts = RequestParts { method: &Method::POST, path: "/", query: "", headers: &headers, body: b"{}" };
    let header = sign(ACCESS_KEY, &secret(), &parts).unwrap();
    let authorization = Authorization::parse(header.to_str().unwrap()).unwrap();
    assert_eq!(authorization.verify(&secret(), &parts, signing_time().into()), Err(SignatureError::BodyHash));
}

#[test]
fn malformed_headers_are_refused() {
    for bad in [
        "",
        "Bearer x",
        "SDK-HMAC-SHA256",
        "SDK-HMAC-SHA256Access=a, SignedHeaders=host, Signature=00",
        "SDK-HMAC-SHA256 Access=a, SignedHeaders=host",
        "SDK-HMAC-SHA256 Access=, SignedHeaders=host, Signature=00",
        "SDK-HMAC-SHA256 Access=a, SignedHeaders=host;host, Signature=00",
        "SDK-HMAC-SHA256 Access=a, SignedHeaders=, Signature=00",
        "SDK-HMAC-SHA256 Access=a, Access=b, SignedHeaders=host, Signature=00",
        "SDK-HMAC-SHA256 Access=a, SignedHeaders=host, Signature=xyz",
        "SDK-HMAC-SHA256 Access=a, SignedHeaders=host, Signature=00, Extra=1",
    ] {
        assert!(matches!(Authorization::parse(bad), Err(SignatureError::Malformed(_))), "{bad:?} passed");
    }
}

#[test]
fn a_signed_header_that_is_missing_is_named() {
    let headers = vectors()[0].headers();
    let parts = RequestParts { method: &Method::GET, path: "/", query: "", headers: &headers, body: b"" };
    let authorization =
        Authorization::parse("SDK-HMAC-SHA256 Access=a, SignedHeaders=host;x-gone;b\u{e4}d, Signature=00").unwrap();
    assert_eq!(
        authorization.verify(&secret(), &parts, signing_time().into()),
        Err(SignatureError::MissingHeader(MissingHeader("x-gone".to_owned())))
    );
}

proptest! {
    #[test]
    fn hostile_requests_are_refused_without_a_panic(
        header in "(SDK-HMAC-SHA256 )?[ -~]{0,120}", path in "\\PC{0,60}", query in "\\PC{0,60}", date in "[ -~]{0,20}",
    ) {
        let mut headers = HeaderMap::new();
        headers.insert(DATE_HEADER, HeaderValue::from_str(&date).unwrap());
        let parts = RequestParts { method: &Method::GET, path: &path, query: &query, headers: &headers, body: b"" };
        let _ = CanonicalRequest::new(&parts, &[]).unwrap();
        if let Ok(authorization) = Authorization::parse(&header) {
            prop_assert!(authorization.verify(&secret(), &parts, signing_time().into()).is_err());
        }
    }
}
