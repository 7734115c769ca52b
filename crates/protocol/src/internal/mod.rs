//! Parts that only the other packages of this project use. They are not covered by semantic versioning.
//!
//! | module | content |
//! |---|---|
//! | [`json`] | a JSON grammar that keeps texts byte for byte and reports where a fault is |
//! | [`text`] | reading text files: byte order marks, other encodings |
//! | [`suggest`] | "did you mean": the known word nearest to a mistyped one |
//! | [`setting_checks`] | all mistakes in the settings of a worker or a server |
//! | [`secret_url`] | URLs that may contain secrets, and are shown without them |
//! | [`visible`] | text of others, shown without terminal control sequences |
//! | [`private`] | files and directories that only their user may read |
//! | [`file_lock`] | a file that one process has locked |
//! | `postgres_settings` | connection strings and names of schemas, with the feature `postgres-tls` |
//! | `postgres_tls` | TLS for connections to PostgreSQL, with the feature `postgres-tls` |
//! | [`current`] | a value that is replaced while others read it |
//! | [`clock`] | the wall clock |
//! | [`panics`] | panics of code that must not end the task around it |
//! | [`duration`] | durations as a person writes them |

pub mod clock;
pub mod current;
pub mod duration;
pub mod file_lock;
pub mod json;
pub mod panics;
#[cfg(feature = "postgres-tls")]
pub mod postgres_settings;
#[cfg(feature = "postgres-tls")]
pub mod postgres_tls;
pub mod private;
pub mod secret_url;
pub mod setting_checks;
pub mod suggest;
pub mod text;
pub mod visible;
