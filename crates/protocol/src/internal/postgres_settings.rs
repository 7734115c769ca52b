//! Settings of connections to PostgreSQL that the server and the library share.

use tokio_postgres::{Config, config::SslMode};

use crate::secret::Secret;

/// The longest name that PostgreSQL keeps in full.
const MAX_NAME: usize = 63;

/// Reads a connection string.
///
/// # Errors
/// A sentence about the string, which never contains a part of it: if it cannot be parsed, or requires TLS and there are no
/// authorities to check the server by.
pub fn connection_string(url: &Secret, has_authorities: bool) -> Result<Config, String> {
    // With authorities the server's name is always checked, which tokio-postgres has no word for.
    let text = url.expose().trim().replace("sslmode=verify-full", "sslmode=require");
    let config: Config = text.parse().map_err(|error| reason_of(&error))?;
    if config.get_ssl_mode() == SslMode::Require && !has_authorities {
        return Err("it requires TLS, for which ca_file has to name the authorities' certificates".to_owned());
    }
    Ok(config)
}

/// The error of tokio-postgres about a connection string. Only the name of a known option is shown: where a string is taken apart
/// wrongly, the name of an "unknown option" is a piece of a password.
fn reason_of(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    match cause.filter(|cause| cause.starts_with("invalid value for option")) {
        Some(cause) => format!("it is no connection string of PostgreSQL ({cause})"),
        None => "it is no connection string of PostgreSQL, as postgres://dms@db1,db2/dms or host=db1,db2 user=dms dbname=dms".to_owned(),
    }
}

/// Checks the name of a schema, which is put into statements as it is.
///
/// # Errors
/// A sentence with the name, if it would need escaping in SQL.
pub fn check_schema(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let is_identifier = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(fits)
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.starts_with("pg_");
    if is_identifier {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no name of a schema: it has 1 to {MAX_NAME} lowercase letters, digits and underscores and does not begin with a digit or pg_"
    ))
}
