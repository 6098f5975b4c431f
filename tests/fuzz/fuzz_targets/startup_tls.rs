#![no_main]

use std::fs;
use std::sync::LazyLock;

use pgsluice::app::StartupFuzz;

/// With a certificate made for this run.
static FUZZ: LazyLock<StartupFuzz> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let base = std::env::temp_dir().join(format!("pgsluice-fuzz-{}", std::process::id()));
    let (cert, key) = (base.with_extension("pem"), base.with_extension("key"));
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    StartupFuzz::new(&cert, &key).unwrap()
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| FUZZ.run(data));
