//! Describes certificate errors in words, because rustls shows most of them as the names of its enum variants.

use std::borrow::Cow;

/// How such an error begins.
const REFUSED: &str = "invalid peer certificate: ";

/// The name of an error in rustls, and its meaning for the operator.
const EXPLANATIONS: [(&str, &str); 11] = [
    ("UnknownIssuer", "no trusted authority signed it; if it is private, trust its authority with ca_file"),
    (
        "CaUsedAsEndEntity",
        "it is the certificate of an authority (CA:TRUE), which servers cannot use: issue one for the server (CA:FALSE)",
    ),
    ("Expired", "it has expired: renew it, or correct the clock of this machine"),
    ("NotValidYet", "it is not valid yet: compare the clocks"),
    ("NotValidForName", "it is for another name"),
    ("InvalidPurpose", "it is not for servers"),
    ("Revoked", "it is revoked"),
    (
        "BadSignature",
        "a trusted authority has its issuer's name, and another key: name the authority that signed it with ca_file",
    ),
    ("BadEncoding", "it is malformed"),
    ("UnhandledCriticalExtension", "it has a critical extension that is not known"),
    ("UnsupportedSignatureAlgorithm", "it is signed with an algorithm that is not supported"),
];

/// An error text for users: problems of a certificate in words, everything else unchanged.
pub fn in_words(error: &str) -> Cow<'_, str> {
    if error.starts_with("received corrupt message") {
        return Cow::Borrowed("the answer is not TLS: does the address serve http instead of https?");
    }
    let Some((before, cause)) = error.split_once(REFUSED) else { return Cow::Borrowed(error) };
    let known = EXPLANATIONS.iter().find(|(variant, _)| cause == *variant || cause.contains(&format!("({variant}")));
    let words = match known {
        Some((_, words)) => Cow::Borrowed(*words),
        None if cause.starts_with("certificate not valid for name") => {
            Cow::Owned(format!("{cause}: use one of its names in the address"))
        }
        None => Cow::Borrowed(cause),
    };
    Cow::Owned(format!("{before}the server's certificate is not accepted: {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_become_words_and_sentences_stay() {
        for (error, expected) in [
            (
                "invalid peer certificate: UnknownIssuer",
                "the server's certificate is not accepted: no trusted authority signed it; if it is private, trust its authority with ca_file",
            ),
            (
                "invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
                "the server's certificate is not accepted: it is the certificate of an authority (CA:TRUE), which servers cannot use: issue one for the server (CA:FALSE)",
            ),
            (
                "invalid peer certificate: certificate not valid for name \"a\"",
                "the server's certificate is not accepted: certificate not valid for name \"a\": use one of its names in the address",
            ),
            (
                "received corrupt message of type InvalidContentType",
                "the answer is not TLS: does the address serve http instead of https?",
            ),
            ("connection refused", "connection refused"),
        ] {
            assert_eq!(in_words(error), expected);
        }
    }
}
