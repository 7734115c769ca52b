//! The documented error codes: those in API reference 8.2 and the codes of the service's gateway.

use http::StatusCode;

/// One documented error: its HTTP status, its code and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// The code in the body, including its prefix.
    pub(crate) name: &'static str,
    /// The documented text.
    pub(crate) text: &'static str,
}

/// Declares the codes as constants: name, status, code, text.
macro_rules! codes {
    ($($name:ident = $status:ident $code:literal $text:literal;)*) => {
        $(pub(crate) const $name: Code = Code { status: StatusCode::$status, name: $code, text: $text };)*

        /// Every code, for tests.
        #[cfg(test)]
        pub(crate) const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    BODY_EMPTY = BAD_REQUEST "DMS.00400004" "The request body is empty.";
    PARAMETER = BAD_REQUEST "DMS.00400062" "Invalid request parameter.";
    LABEL = BAD_REQUEST "DMS.10240004" "The tag name is invalid.";
    PROJECT_FORMAT = BAD_REQUEST "DMS.10240005" "The project ID format is invalid.";
    NAME_CHARS = BAD_REQUEST "DMS.10240007" "The name contains invalid characters.";
    BODY_FORMAT = BAD_REQUEST "DMS.10240009" "The message body is not in JSON format or contains invalid characters.";
    DESCRIPTION_CHARS = BAD_REQUEST "DMS.10240010" "The description contains invalid characters.";
    QUEUE_NAME_LENGTH = BAD_REQUEST "DMS.10240011" "The name length must be 1 to 64 characters.";
    GROUP_NAME_LENGTH = BAD_REQUEST "DMS.10240012" "The name length must be 1 to 32 characters.";
    DESCRIPTION_LENGTH = BAD_REQUEST "DMS.10240013" "The description length must not exceed 160 characters.";
    MAX_MSGS = BAD_REQUEST "DMS.10240014" "The number of consumable messages exceeds the maximum limit.";
    QUEUE_ID_FORMAT = BAD_REQUEST "DMS.10240015" "The queue ID format is invalid.";
    GROUP_ID_FORMAT = BAD_REQUEST "DMS.10240016" "The group ID format is invalid.";
    QUEUE_EXISTS = BAD_REQUEST "DMS.10240017" "The queue already exists.";
    GROUP_EXISTS = BAD_REQUEST "DMS.10240018" "The consumer group already exists.";
    GROUP_QUOTA = BAD_REQUEST "DMS.10240019" "The number of consumer groups exceeds the upper limit.";
    QUEUE_QUOTA = BAD_REQUEST "DMS.10240020" "The quota is insufficient.";
    TIME_WAIT = BAD_REQUEST "DMS.10240021" "The value of time_wait is not within the value range of 1-60.";
    MAX_CONSUME_COUNT = BAD_REQUEST "DMS.10240022" "The value of max Consume Count must be within the range of 1-100.";
    RETENTION_RANGE = BAD_REQUEST "DMS.10240027" "The value of retention_hours must be an integer in the range of 1-72.";
    RETENTION_MODE = BAD_REQUEST "DMS.10240028" "Non-kafka queues do not support retention_hours.";
    BEING_CREATED = BAD_REQUEST "DMS.10240032" "The queue is being created.";
    TAG_KEY_LENGTH = BAD_REQUEST "DMS.10240035" "The tag key is empty or too long.";
    TAG_KEY_CHARS = BAD_REQUEST "DMS.10240036" "The tag key contains invalid characters.";
    TAG_VALUE_LENGTH = BAD_REQUEST "DMS.10240038" "The tag value is too long.";
    TAG_VALUE_CHARS = BAD_REQUEST "DMS.10240039" "The tag value contains invalid characters.";
    TAG_ACTION = BAD_REQUEST "DMS.10240040" "You can only create or delete tags.";
    TAG_SEARCH_ACTION = BAD_REQUEST "DMS.10240041" "You can only filter or count tags.";
    PAGE_LIMIT = BAD_REQUEST "DMS.10240042" "The number of records on each page for pagination query exceeds the upper limit.";
    PAGE_OFFSET = BAD_REQUEST "DMS.10240043" "The number of skipped records for pagination query exceeds the upper limit.";
    TAG_QUOTA = BAD_REQUEST "DMS.10240044" "A maximum of 10 tags can be created.";
    TAG_KEY_USED = BAD_REQUEST "DMS.10240045" "The tag key has been used.";
    ACK_STATUS = BAD_REQUEST "DMS.10540003" "Message ack status must be either 'success' or 'fail'.";
    FOREIGN_HANDLER = BAD_REQUEST "DMS.10540004" "Request error: the handler belongs to another queue or consumer group.";
    REQUEST_FORMAT = BAD_REQUEST "DMS.10540010" "The request format is incorrect.";
    MESSAGE_SIZE = BAD_REQUEST "DMS.10540011" "The message is larger than the size limit.";
    MESSAGE_JSON = BAD_REQUEST "DMS.10540012" "The message body is not in JSON format or contains invalid characters.";
    URL_PARAMETER = BAD_REQUEST "DMS.10540014" "The URL contains invalid parameters.";
    CONSUME_FAILED = BAD_REQUEST "DMS.10542204" "Failed to consume messages.";
    ACK_WAIT = BAD_REQUEST "DMS.10542206" "The value of ack_wait must be within the range of 15-300.";
    UNKNOWN_HANDLER = BAD_REQUEST "DMS.10542209" "The handler does not exist because the handler fails to be parsed, the message consumption times out, or the message consumption is repeatedly acknowledged.";

    TOKEN_INVALID = UNAUTHORIZED "DMS.10240101" "Invalid token.";
    TOKEN_EXPIRED = UNAUTHORIZED "DMS.10240102" "Expired token.";
    TOKEN_MISSING = UNAUTHORIZED "DMS.10240103" "Missing token.";
    PROJECT_MISMATCH = UNAUTHORIZED "DMS.10240104" "The project ID and token do not match.";
    CREDENTIALS = UNAUTHORIZED "IAM.0001" "The user name, its domain, the password or the project of the scope is wrong.";
    SIGNATURE = UNAUTHORIZED "APIGW.0301" "Incorrect IAM authentication information:";

    NO_RIGHT = FORBIDDEN "DMS.10240311" "This role does not have the permissions to perform this operation.";

    QUEUE_NOT_FOUND = NOT_FOUND "DMS.10240401" "The queue ID is incorrect or not found.";
    GROUP_NOT_FOUND = NOT_FOUND "DMS.10240405" "The consumption group ID is incorrect or not found.";
    URL_NOT_FOUND = NOT_FOUND "DMS.10240406" "The URL or endpoint does not exist.";
    TOO_FREQUENT = NOT_FOUND "DMS.10240407" "The request is too frequent. Flow control is being performed. Please try again later.";
    TAG_NOT_FOUND = NOT_FOUND "DMS.10240426" "No tag containing this key exists.";
    METHOD = METHOD_NOT_ALLOWED "DMS.00405001" "This request method is not allowed.";

    HOST = BAD_REQUEST "APIGW.0201" "The Host header is missing, repeated or malformed.";
    WEB_PAGE = FORBIDDEN "APIGW.0201" "Web pages may not use this server.";
    FOREIGN_HOST = MISDIRECTED_REQUEST "APIGW.0201" "This server does not answer to this name.";
    BODY_TIMEOUT = REQUEST_TIMEOUT "APIGW.0201" "The request body did not arrive in time.";
    URI_SIZE = URI_TOO_LONG "APIGW.0201" "The URI is longer than 32 KB.";
    HEADER_SIZE = REQUEST_HEADER_FIELDS_TOO_LARGE "APIGW.0201" "A header is larger than 32 KB.";
    BODY_SIZE = PAYLOAD_TOO_LARGE "APIGW.0201" "The request body is larger than 12 MB.";

    INTERNAL = INTERNAL_SERVER_ERROR "DMS.10250002" "Internal service error.";
    TAG_TYPE = INTERNAL_SERVER_ERROR "DMS.10550035" "tag_type must be either or or and.";
    NOT_SERVING = SERVICE_UNAVAILABLE "DMS.10250003" "Internal service error: this server does not serve the queues now.";
    STOPPING = SERVICE_UNAVAILABLE "DMS.10250003" "Internal service error: the server is stopping.";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `docs/api.md` lists every code with its status and text.
    #[test]
    fn the_documentation_lists_every_code() {
        let page = include_str!("../../../../docs/api.md");
        for code in ALL {
            let row = format!("| {} | {} | {} |", code.status.as_u16(), code.name, code.text);
            assert!(page.contains(&row), "docs/api.md lacks the row {row}");
        }
    }
}
