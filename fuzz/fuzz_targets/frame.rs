//! The items of a frame of the log, and the messages of a run, from a disk that may have changed any byte.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| dms_server::fuzzing::read_frame(bytes));
