//! The `dms-worker` command.

use std::process::ExitCode;

/// A server's requests allocate on one thread and free on another: the system's allocator costs a sixth more instructions.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dms_worker_cli::cli::main()
}
