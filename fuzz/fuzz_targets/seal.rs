#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| receiptd_fuzz::seal::check(data));
