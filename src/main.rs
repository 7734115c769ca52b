//! The `dms-worker` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    dms_worker::cli::main()
}
