//! [`ErrorCode`]: the service's error codes, and the class of each.
//!
//! The code decides, not the HTTP status: a 404 can mean throttling, and a 500 the caller's mistake (API reference
//! 8.2).

use std::fmt;

use http::StatusCode;

/// An error code of the service (`DMS.10240401`) or of its API gateway (`APIGW.0301`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode {
    gateway: bool,
    number: u32,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $kind:ident($number:literal);)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: Self = Self::$kind($number);)*
        }
    };
}

codes! {
    /// The request parameter is invalid.
    INVALID_PARAMETER = dms(400_062);
    /// The queue exists already.
    QUEUE_EXISTS = dms(10_240_017);
    /// The consumer group exists already.
    GROUP_EXISTS = dms(10_240_018);
    /// The queue has the most consumer groups that are allowed.
    TOO_MANY_GROUPS = dms(10_240_019);
    /// The project's quota is used up.
    QUOTA_EXCEEDED = dms(10_240_020);
    /// The queue is being created. Wait one to three seconds.
    BEING_CREATED = dms(10_240_032);
    /// The queue has the most resource tags that are allowed.
    TOO_MANY_TAGS = dms(10_240_044);
    /// The request has the same tag key twice.
    TAG_EXISTS = dms(10_240_045);
    /// The token is invalid.
    INVALID_TOKEN = dms(10_240_101);
    /// The token has expired.
    EXPIRED_TOKEN = dms(10_240_102);
    /// The token is missing.
    MISSING_TOKEN = dms(10_240_103);
    /// The token is for another project than the path.
    WRONG_PROJECT = dms(10_240_104);
    /// There is no such queue.
    QUEUE_NOT_FOUND = dms(10_240_401);
    /// There is no such consumer group.
    GROUP_NOT_FOUND = dms(10_240_405);
    /// There is no such URL.
    URL_NOT_FOUND = dms(10_240_406);
    /// Too many requests, although the status is 404.
    FLOW_CONTROL = dms(10_240_407);
    /// The queue has no tag with that key.
    TAG_NOT_FOUND = dms(10_240_426);
    /// An acknowledgement's status is neither `success` nor `fail`.
    BAD_ACK_STATUS = dms(10_540_003);
    /// The handle belongs to another queue or group.
    FOREIGN_HANDLE = dms(10_540_004);
    /// The request's format is wrong.
    BAD_FORMAT = dms(10_540_010);
    /// The message is too large.
    TOO_LARGE = dms(10_540_011);
    /// The URL has invalid parameters.
    BAD_URL_PARAMETER = dms(10_540_014);
    /// The queue's name does not exist.
    QUEUE_NAME_NOT_FOUND = dms(10_540_401);
    /// Consuming failed for the reason in the text, such as another label rule.
    CONSUME_FAILED = dms(10_542_204);
    /// The consumer instance was released before the acknowledgement arrived.
    INSTANCE_RELEASED = dms(10_542_205);
    /// The lease is over, or the message was acknowledged before.
    LEASE_LOST = dms(10_542_209);
    /// The type of a label filter is neither `or` nor `and`, although the status is 500.
    BAD_TAG_TYPE = dms(10_550_035);
    /// The gateway knows no such API.
    GATEWAY_NOT_FOUND = gateway(101);
    /// The gateway refuses the request, or the service is gone.
    GATEWAY_BAD_REQUEST = gateway(201);
    /// The gateway refuses the signature, the key or the token.
    GATEWAY_AUTH = gateway(301);
    /// The gateway refuses the user.
    GATEWAY_FORBIDDEN = gateway(302);
    /// The gateway wants a new token.
    GATEWAY_TOKEN = gateway(307);
    /// The gateway throttles.
    GATEWAY_FLOW_CONTROL = gateway(308);
}

impl ErrorCode {
    const fn dms(number: u32) -> Self {
        Self { gateway: false, number }
    }

    const fn gateway(number: u32) -> Self {
        Self { gateway: true, number }
    }

    /// Reads `DMS.10240401`, `10240401`, `400062` (a number that lost its zeros), `APIGW.0301` or `APIC.0301`.
    ///
    /// Returns `None` for other texts, such as an HTTP status repeated in a body.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.split_whitespace().collect();
        let (family, digits) = digits.split_once('.').unwrap_or(("", &digits));
        if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number: u32 = digits.parse().ok()?;
        match family {
            "DMS" => Some(Self::dms(number)),
            "APIGW" | "APIC" => Some(Self::gateway(number)),
            "" if digits.len() > 4 => Some(Self::dms(number)),
            _ => None,
        }
    }

    /// Returns whether the code is the service's own and not its gateway's.
    pub(super) fn is_of_service(self) -> bool {
        !self.gateway
    }

    /// The number without the prefix, such as `10240401`.
    pub fn number(self) -> u32 {
        self.number
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.gateway { write!(f, "APIGW.{:04}", self.number) } else { write!(f, "DMS.{:08}", self.number) }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The class of an error: what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The service failed. Repeat the request later; it may have taken effect.
    Transient,
    /// The queue or group is being created. Repeat the request in a second; it took no effect.
    BeingCreated,
    /// Too many requests. Repeat the request later; it took no effect.
    Throttled,
    /// The key or token is refused.
    Auth,
    /// The caller may not do this.
    Forbidden,
    /// A quota is used up.
    Quota,
    /// The resource exists already.
    Exists,
    /// The resource does not exist.
    NotFound,
    /// The lease is over.
    LostLease,
    /// The request itself is wrong.
    Caller,
}

/// The class of an answer. The code decides before the status.
pub(crate) fn classify(status: StatusCode, code: Option<ErrorCode>) -> Class {
    code.and_then(known).unwrap_or_else(|| by_status(status))
}

fn known(code: ErrorCode) -> Option<Class> {
    Some(match (code.gateway, code.number) {
        (false, 10_240_032) => Class::BeingCreated,
        (false, 10_240_407) | (true, 308) => Class::Throttled,
        (false, 10_240_101..=10_240_104) | (true, 301 | 307) => Class::Auth,
        (false, 403_002 | 403_003 | 10_240_306 | 10_240_309..=10_240_312) | (true, 302) => Class::Forbidden,
        (false, 400_039 | 10_240_019 | 10_240_020 | 10_240_044) => Class::Quota,
        (false, 10_240_017 | 10_240_018 | 10_240_045) => Class::Exists,
        (false, 404_001 | 10_240_401 | 10_240_405 | 10_240_406 | 10_240_426 | 10_540_401) | (true, 101) => {
            Class::NotFound
        }
        (false, 10_542_205 | 10_542_209) => Class::LostLease,
        (false, 10_550_035) | (true, 201) => Class::Caller,
        (false, 500_000..=500_999 | 10_250_000..=10_250_999) | (true, 103 | 202 | 203) => Class::Transient,
        (false, 400_000..=400_999 | 10_240_001..=10_240_099 | 10_540_001..=10_540_399 | 10_542_200..=10_542_299) => {
            Class::Caller
        }
        _ => return None,
    })
}

fn by_status(status: StatusCode) -> Class {
    match status.as_u16() {
        401 => Class::Auth,
        403 => Class::Forbidden,
        404 => Class::NotFound,
        429 => Class::Throttled,
        408 | 425 | 500..=599 => Class::Transient,
        _ => Class::Caller,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, code: &str, class: Class) {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        let code = ErrorCode::parse(code);
        assert_eq!(classify(status, code), class, "{code:?} with {status}");
    }

    #[test]
    fn the_code_counts_before_the_status() {
        check(404, "DMS.10240407", Class::Throttled);
        check(404, "DMS.10240401", Class::NotFound);
        check(400, "DMS.10240032", Class::BeingCreated);
        check(500, "DMS.10550035", Class::Caller);
        check(500, "DMS.10250002", Class::Transient);
        check(500, "500006", Class::Transient);
        check(400, "10542209", Class::LostLease);
        check(400, "DMS.10542205", Class::LostLease);
        check(400, "DMS.10542204", Class::Caller);
        check(401, "APIGW.0301", Class::Auth);
        check(429, "APIGW.0308", Class::Throttled);
        check(400, "DMS.00400039", Class::Quota);
        check(403, "DMS.10240306", Class::Forbidden);
        check(400, "APIGW.0201", Class::Caller);
        check(502, "APIGW.0202", Class::Transient);
    }

    #[test]
    fn an_unknown_code_leaves_it_to_the_status() {
        check(503, "DMS.99999999", Class::Transient);
        check(429, "", Class::Throttled);
        check(408, "", Class::Transient);
        check(401, "IAM.0001", Class::Auth);
        check(404, "404", Class::NotFound);
        check(418, "", Class::Caller);
        check(302, "", Class::Caller);
    }

    #[test]
    fn codes_are_read_in_every_spelling() {
        for spelling in ["DMS.00400062", "DMS. 00400062", "400062", " 00400062 "] {
            assert_eq!(ErrorCode::parse(spelling), Some(ErrorCode::INVALID_PARAMETER), "{spelling}");
        }
        assert_eq!(ErrorCode::parse("APIC.0301"), Some(ErrorCode::GATEWAY_AUTH));
        for other in ["", "401", "IAM.0011", "DMS.", "DMS.x", "DMS.99999999999", "a.b.c"] {
            assert_eq!(ErrorCode::parse(other), None, "{other}");
        }
        assert_eq!(ErrorCode::INVALID_PARAMETER.to_string(), "DMS.00400062");
        assert_eq!(ErrorCode::GATEWAY_AUTH.to_string(), "APIGW.0301");
    }
}
