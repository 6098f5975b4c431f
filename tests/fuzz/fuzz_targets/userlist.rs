#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgsluice::config::fuzz_userlist(data));
