#![no_main]

libfuzzer_sys::fuzz_target!(|file: &[u8]| chatterbex_fuzz::decode(file));

libfuzzer_sys::fuzz_mutator!(|file: &mut [u8], size: usize, most: usize, _seed: u32| {
    let size = libfuzzer_sys::fuzzer_mutate(file, size, most);
    chatterbex_fuzz::repair::flac(&mut file[..size]);
    size
});
