#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgsluice::wire::frame::fuzz_frame(data));
