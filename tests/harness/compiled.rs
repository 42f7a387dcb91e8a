//! The shipped components, compiled once for all gateways of a test run.
//!
//! A gateway with an empty data folder compiles them before it is ready, which takes seconds of
//! both cores. Their machine code is the same in each data folder, so the tests start with it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::LazyLock;

use super::gateway::Setup;

/// The files that a gateway keeps of the components that it has compiled, by their names.
static FILES: LazyLock<Vec<(OsString, Vec<u8>)>> = LazyLock::new(|| {
    let gateway = Setup::new().uncompiled().start();
    let files = fs::read_dir(gateway.data_dir.join("cache")).unwrap();
    let files = files.map(|file| file.unwrap());
    files
        .map(|file| (file.file_name(), fs::read(file.path()).unwrap()))
        .collect()
});

/// What the folder of a gateway says that was killed in its first start, before it made its store.
const NEW: &str = "pointsman data, format 2, not yet set up\n";

/// Makes a data folder that holds the compiled components and nothing else, unless one is there
/// that is not empty.
pub(super) fn provide(data_dir: &Path) {
    if fs::read_dir(data_dir).is_ok_and(|mut files| files.next().is_some()) {
        return;
    }
    let cache = data_dir.join("cache");
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&cache);
    made.unwrap();
    fs::write(data_dir.join("FORMAT"), NEW).unwrap();
    for (name, content) in FILES.iter() {
        let mut options = fs::OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(cache.join(name)).unwrap();
        std::io::Write::write_all(&mut file, content).unwrap();
    }
}
