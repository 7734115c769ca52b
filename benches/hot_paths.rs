//! The hot paths, each alone and on one thread; all but the last ones without sockets.
//!
//! ```text
//! cargo bench                        times, with criterion
//! cargo bench -- broker              those whose name has `broker` in it
//! benches/instructions.sh            instructions instead of times: they hold on a busy machine too
//! ```
//!
//! All code is called through its public API: the wire and the signer through a client whose transport has ready-made
//! answers, the worker's pipeline through a worker on the same transport, the batcher through a producer, and the
//! broker's state through the broker. `HOT_PATH=name:count` runs one path this number of times, for `instructions.sh`.

#[path = "hot_paths/canned.rs"]
mod canned;
#[path = "hot_paths/paths.rs"]
mod paths;
#[path = "hot_paths/sockets.rs"]
mod sockets;

use std::time::Instant;

use criterion::Criterion;

use paths::PATHS;

fn main() {
    if let Ok(asked) = std::env::var("HOT_PATH") {
        return run_one(&asked);
    }
    let mut criterion = Criterion::default().configure_from_args();
    for (name, path) in PATHS {
        criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let mut run = path();
                let started = Instant::now();
                run(count);
                started.elapsed()
            });
        });
    }
    criterion.final_summary();
}

fn run_one(asked: &str) {
    let parts = asked.split_once(':').and_then(|(name, count)| Some((name, count.parse().ok()?)));
    let Some((name, count)) = parts else { panic!("HOT_PATH is {asked:?}, not name:count") };
    let Some((_, path)) = PATHS.iter().find(|(known, _)| *known == name) else { panic!("there is no path {name:?}") };
    path()(count);
}
