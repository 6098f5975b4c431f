#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pgsluice::sql::fuzz_lexer(data));
