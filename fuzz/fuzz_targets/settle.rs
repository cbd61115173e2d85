#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| receiptd_fuzz::settle::check(data));
