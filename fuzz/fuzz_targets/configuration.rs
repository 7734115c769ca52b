//! A configuration file of any text: it is read or refused, and each refusal names the place.
#![no_main]

use std::{fs, path::PathBuf, process, sync::LazyLock};

use dms_worker_cli::config::{Request, load};
use libfuzzer_sys::fuzz_target;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = PathBuf::from("/dev/shm");
    let folder = if folder.is_dir() { folder } else { std::env::temp_dir() };
    folder.join(format!("dms-worker-fuzz-{}.yaml", process::id()))
});

fuzz_target!(|text: &[u8]| {
    // A file that a value names is read: none of this machine is needed here.
    if text.windows(5).any(|window| window == b"_file") {
        return;
    }
    fs::write(&*FILE, text).expect("the file is ours");
    if let Err(error) = load(&Request::new().file(FILE.clone())) {
        assert!(!error.problems().is_empty());
        assert!(!error.to_string().is_empty());
    }
});
