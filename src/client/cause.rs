//! [`RefusalCause`]: why the service refused a key, read from its text.

/// The cause that the text of a refusal names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalCause {
    /// The key or the user is locked after wrong signatures or passwords, which anybody can have sent.
    Locked,
    /// The time of the signature is too far from the service's clock.
    Clock,
    /// The request had neither a signature nor a token.
    Missing,
    /// Any other cause, such as a wrong key, secret, token or project.
    Other,
}

impl RefusalCause {
    /// Reads the text of a refusal.
    pub(super) fn of(message: &str) -> Self {
        // The rest of the text quotes the caller's own request.
        let text = message.split("canonical request").next().unwrap_or_default().to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        // "AK access failed to reach the limit,forbidden", "The account is locked."
        if has(&["reach the limit", "locked"]) {
            return Self::Locked;
        }
        // "Missing token. X-Auth-Token or a signature is required"
        if has(&["missing token"]) {
            return Self::Missing;
        }
        // "signature expired", "the request time is too skewed". An expired token is not meant.
        let about_time = has(&["expire", "skew"]);
        if about_time && !text.contains("token") { Self::Clock } else { Self::Other }
    }

    /// Returns whether the service may accept the same key later, even if it never has.
    pub(super) fn is_passing(self) -> bool {
        matches!(self, Self::Locked | Self::Clock)
    }

    /// The remedy, for an error.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Locked => {
                "the lock ends by itself; find out who uses this key with a wrong secret, and give its owner a new key"
            }
            Self::Clock => "set the clock of this machine, by NTP best",
            Self::Missing => {
                "this client has no access key: configure one, or name the configuration or the context that has one"
            }
            Self::Other => "check the access key or the token, and the clock",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_gateways_and_of_iam_are_understood() {
        for (text, cause) in [
            (
                "Incorrect IAM authentication information: AK access failed to reach the limit,forbidden",
                RefusalCause::Locked,
            ),
            ("The account is locked.", RefusalCause::Locked),
            (
                "calc ak sk signature fail:signature expired: X-Sdk-Date is 1000 s off, 900 s are allowed",
                RefusalCause::Clock,
            ),
            ("Incorrect IAM authentication information: Signature is expired", RefusalCause::Clock),
            ("Incorrect IAM authentication information: decrypt token fail", RefusalCause::Other),
            ("The token has expired.", RefusalCause::Other),
            ("verify aksk signature fail", RefusalCause::Other),
            ("verify aksk signature fail: SignedHeaders does not have x-sdk-date", RefusalCause::Other),
            ("verify aksk signature fail, canonical request: \"GET\\nexpired=locked\"", RefusalCause::Other),
            ("Get secretKey failed,ak:AK,err:ak not exist", RefusalCause::Other),
            ("Missing token. X-Auth-Token or a signature is required", RefusalCause::Missing),
            ("", RefusalCause::Other),
        ] {
            assert_eq!(RefusalCause::of(text), cause, "{text}");
        }
    }
}
