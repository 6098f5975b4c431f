#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgsluice::auth::hba::fuzz_hba(data));
