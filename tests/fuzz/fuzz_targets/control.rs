#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgsluice::wire::control::fuzz_control(data));
