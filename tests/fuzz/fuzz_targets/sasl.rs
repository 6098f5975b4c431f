#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgsluice::auth::fuzz_sasl(data));
