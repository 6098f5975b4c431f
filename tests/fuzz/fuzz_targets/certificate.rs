#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgsluice::net::certificate::fuzz_certificate(data));
