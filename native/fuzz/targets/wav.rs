#![no_main]

libfuzzer_sys::fuzz_target!(|file: &[u8]| chatterbex_fuzz::decode(file));
