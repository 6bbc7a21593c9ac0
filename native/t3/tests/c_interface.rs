//! The engine through its C interface: the same bits for all instruction sets, and what is refused.

#![allow(missing_docs, clippy::unwrap_used)]

use std::ffi::{CStr, CString};
use std::ptr::{null, null_mut};

use chatterbex_t3::ffi::*;
use chatterbex_t3::philox::philox;

const CONFIG: T3Config = T3Config {
    backbone: 0,
    layers: 2,
    dim: 128,
    heads: 2,
    ffn: 72,
    vocab: 50,
    positions: 64,
    norm_eps: 1e-5,
    rope_theta: 500_000.0,
    rope_factor: 8.0,
    rope_low_freq_factor: 1.0,
    rope_high_freq_factor: 4.0,
    rope_original_positions: 8192.0,
    precision: 0,
};

const INVALID: i32 = 1;

fn message() -> String {
    // SAFETY: the text is valid until the next call of this thread.
    unsafe { CStr::from_ptr(t3_message()) }
        .to_string_lossy()
        .into_owned()
}

fn numbers(seed: u32, count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| philox([i as u32, 0, 0, 0], [seed, 1])[0] as f32 / 4_294_967_296.0 - 0.5)
        .collect()
}

fn tensors(config: &T3Config) -> Vec<(String, Vec<u64>)> {
    let [dim, ffn, vocab] = [config.dim, config.ffn, config.vocab].map(u64::from);
    let mut tensors = vec![("speech_head.weight".to_string(), vec![vocab, dim])];
    let mut add = |name: &str, shape: &[u64]| tensors.push((name.into(), shape.into()));
    if config.backbone == 0 {
        add("speech_head.bias", &[vocab]);
        add("tfmr.ln_f.weight", &[dim]);
        add("tfmr.ln_f.bias", &[dim]);
    } else {
        add("tfmr.norm.weight", &[dim]);
    }
    for layer in 0..config.layers {
        if config.backbone == 0 {
            for (name, shape) in [
                ("ln_1", vec![dim]),
                ("ln_2", vec![dim]),
                ("attn.c_attn", vec![dim, 3 * dim]),
                ("attn.c_proj", vec![dim, dim]),
                ("mlp.c_fc", vec![dim, ffn]),
                ("mlp.c_proj", vec![ffn, dim]),
            ] {
                add(&format!("tfmr.h.{layer}.{name}.weight"), &shape);
                add(
                    &format!("tfmr.h.{layer}.{name}.bias"),
                    &shape[shape.len() - 1..],
                );
            }
        } else {
            for (name, shape) in [
                ("input_layernorm", vec![dim]),
                ("post_attention_layernorm", vec![dim]),
                ("self_attn.q_proj", vec![dim, dim]),
                ("self_attn.k_proj", vec![dim, dim]),
                ("self_attn.v_proj", vec![dim, dim]),
                ("self_attn.o_proj", vec![dim, dim]),
                ("mlp.gate_proj", vec![ffn, dim]),
                ("mlp.up_proj", vec![ffn, dim]),
                ("mlp.down_proj", vec![dim, ffn]),
            ] {
                add(&format!("tfmr.layers.{layer}.{name}.weight"), &shape);
            }
        }
    }
    tensors
}

/// An engine, ended when it is dropped.
struct Engine(u64, T3Config);

impl Engine {
    fn empty(config: T3Config, set: &str) -> Self {
        let (mut number, set) = (0, CString::new(set).unwrap());
        // SAFETY: valid pointers.
        let code = unsafe { t3_new(&config, set.as_ptr(), &mut number) };
        assert_eq!(code, 0, "{}", message());
        Self(number, config)
    }

    fn new(config: T3Config, set: &str) -> Self {
        let engine = Self::empty(config, set);
        for (seed, (name, shape)) in tensors(&config).into_iter().enumerate() {
            let count = shape.iter().product::<u64>() as usize;
            let tensor = numbers(seed as u32, count);
            assert_eq!(engine.take(&name, &tensor, &shape), 0, "{}", message());
        }
        engine
    }

    fn take(&self, name: &str, tensor: &[f32], shape: &[u64]) -> i32 {
        let strides = [shape.get(1).copied().unwrap_or(1), 1];
        let (mut used, name) = (0, CString::new(name).unwrap());
        // SAFETY: valid pointers; the tensor is as long as its shape says.
        unsafe {
            let sizes = shape.len() as u32;
            let (name, strides) = (name.as_ptr(), strides.as_ptr());
            t3_take(
                self.0,
                name,
                tensor.as_ptr(),
                sizes,
                shape.as_ptr(),
                strides,
                2,
                &mut used,
            )
        }
    }

    fn open(&self, prefix: u64) -> u64 {
        let mut id = 0;
        // SAFETY: a valid pointer.
        let code = unsafe { t3_open(self.0, 64, prefix, &mut id) };
        assert_eq!(code, 0, "{}", message());
        id
    }

    fn forward(&self, ids: &[u64], counts: &[u32], x: &[f32], threads: u32) -> Vec<u32> {
        let mut logits = vec![0.0; ids.len() * self.1.vocab as usize];
        let (wanted, mut finite) = (vec![1; ids.len()], vec![9; ids.len()]);
        let batch = batch(ids, counts, &wanted, x, &mut logits, &mut finite, threads);
        // SAFETY: valid pointers.
        assert_eq!(unsafe { t3_forward(self.0, &batch) }, 0, "{}", message());
        assert!(finite.iter().all(|finite| *finite == 1));
        logits.iter().map(|x| x.to_bits()).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        assert_eq!(t3_free(self.0), 0);
    }
}

fn batch(
    ids: &[u64],
    counts: &[u32],
    wanted: &[u8],
    x: &[f32],
    logits: &mut [f32],
    finite: &mut [u8],
    threads: u32,
) -> T3Batch {
    T3Batch {
        sequences: ids.len() as u32,
        threads,
        ids: ids.as_ptr(),
        counts: counts.as_ptr(),
        wanted: wanted.as_ptr(),
        x: x.as_ptr(),
        x_numbers: x.len() as u64,
        logits: logits.as_mut_ptr(),
        logits_numbers: logits.len() as u64,
        finite: finite.as_mut_ptr(),
    }
}

fn sets() -> Vec<String> {
    let mut text = [0; 64];
    // SAFETY: there is room for 64 bytes.
    unsafe {
        assert_eq!(t3_instruction_sets(text.as_mut_ptr(), 64), 0);
        let names = CStr::from_ptr(text.as_ptr()).to_str().unwrap();
        names.split(',').map(String::from).collect()
    }
}

#[test]
fn every_way_of_speaking_gives_the_same_bits() {
    for (backbone, precision) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let config = T3Config {
            backbone,
            precision,
            ..CONFIG
        };
        let dim = config.dim as usize;
        let voice = numbers(77, 19 * dim);
        let texts: Vec<Vec<f32>> = (0..9).map(|i| numbers(100 + i, 6 * dim)).collect();
        let mut expected: Vec<Vec<u32>> = Vec::new();
        for set in sets() {
            for threads in [1, 2, 3] {
                let engine = Engine::new(config, &set);
                // each alone, read in whole, then in one batch behind a shared voice, row by row
                let mut alone = Vec::new();
                for text in &texts {
                    let x = [voice.clone(), text.clone()].concat();
                    alone.push(engine.forward(&[engine.open(0)], &[25], &x, threads));
                }
                if expected.is_empty() {
                    expected = alone.clone();
                }
                assert!(alone == expected, "{set} with {threads} threads");
                let first = engine.open(0);
                engine.forward(&[first], &[19], &voice, threads);
                let mut prefix = 0;
                // SAFETY: a valid pointer.
                let code = unsafe { t3_prefix(engine.0, first, 19, &mut prefix) };
                assert_eq!(code, 0, "{}", message());
                assert_eq!(t3_close(engine.0, first), 0);
                let ids: Vec<u64> = texts.iter().map(|_| engine.open(prefix)).collect();
                let mut last = Vec::new();
                for step in 0..6 {
                    let x: Vec<f32> = texts
                        .iter()
                        .flat_map(|text| text[step * dim..][..dim].to_vec())
                        .collect();
                    last = engine.forward(&ids, &[1; 9], &x, threads);
                }
                assert!(
                    last == expected.concat(),
                    "{set}: nine together with {threads} threads"
                );
            }
        }
    }
}

/// What is wanted of some sequences changes nothing for the others, now or later.
#[test]
fn rows_that_nobody_asks_for_are_only_remembered() {
    for (backbone, precision) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let config = T3Config {
            backbone,
            precision,
            ..CONFIG
        };
        let (dim, vocab) = (config.dim as usize, config.vocab as usize);
        let counts = [7, 1, 19, 1, 3];
        let x = numbers(5, 31 * dim);
        let next = numbers(6, 5 * dim);
        let engine = Engine::new(config, "");
        let all: Vec<u64> = counts.iter().map(|_| engine.open(0)).collect();
        let expected = engine.forward(&all, &counts, &x, 2);
        let later = engine.forward(&all, &[1; 5], &next, 2);
        for wanted in [
            [0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0],
            [0, 1, 1, 0, 1],
            [0, 0, 0, 1, 0],
        ] {
            let ids: Vec<u64> = counts.iter().map(|_| engine.open(0)).collect();
            let asked: Vec<usize> = (0..5).filter(|i| wanted[*i] == 1).collect();
            let mut logits = vec![f32::NAN; asked.len() * vocab];
            let mut finite = [7; 5];
            let given = batch(&ids, &counts, &wanted, &x, &mut logits, &mut finite, 2);
            // SAFETY: valid pointers.
            assert_eq!(unsafe { t3_forward(engine.0, &given) }, 0, "{}", message());
            assert_eq!(finite, [1; 5]);
            for (number, i) in asked.iter().enumerate() {
                let bits: Vec<u32> = logits[number * vocab..][..vocab]
                    .iter()
                    .map(|x| x.to_bits())
                    .collect();
                assert!(bits == expected[i * vocab..][..vocab], "{wanted:?}: {i}");
            }
            assert!(
                engine.forward(&ids, &[1; 5], &next, 2) == later,
                "{wanted:?}"
            );
        }
    }
}

#[test]
fn a_state_that_is_not_finite_is_told_of_where_it_is() {
    let dim = CONFIG.dim as usize;
    let engine = Engine::new(CONFIG, "");
    for wanted in [[0, 0, 0], [1, 1, 1], [0, 1, 1]] {
        let ids = [engine.open(0), engine.open(0), engine.open(0)];
        let mut x = numbers(5, 9 * dim);
        x[4 * dim] = f32::NAN; // the second row of the second sequence
        let mut logits = vec![0.0; wanted.iter().sum::<u8>() as usize * CONFIG.vocab as usize];
        let mut finite = [7; 3];
        let given = batch(&ids, &[3, 3, 3], &wanted, &x, &mut logits, &mut finite, 1);
        // SAFETY: valid pointers.
        assert_eq!(unsafe { t3_forward(engine.0, &given) }, 0, "{}", message());
        assert_eq!(finite, [1, 0, 1], "{wanted:?}");
    }
}

/// FNV-1a.
fn digest(numbers: &[u32]) -> u64 {
    let bytes = numbers.iter().flat_map(|x| x.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// The same on every machine. They change only where the order of summation does, on purpose.
#[test]
fn golden_logits() {
    let golden = [
        (0, 0, 0xf957_4ca1_c747_87de),
        (1, 0, 0x3a58_7ab5_84ed_8c92),
        (0, 1, 0xd8a6_bbfe_b9ab_d481),
        (1, 1, 0x0023_db9d_9e7e_44ce),
    ];
    for (backbone, precision, expected) in golden {
        let engine = Engine::new(
            T3Config {
                backbone,
                precision,
                ..CONFIG
            },
            "",
        );
        let found = digest(&engine.forward(&[engine.open(0)], &[25], &numbers(77, 25 * 128), 2));
        assert_eq!(found, expected, "{backbone} {precision}: {found:#x}");
    }
}

#[test]
fn null_and_crooked_pointers_are_refused() {
    let engine = Engine::new(CONFIG, "");
    let set = c"".as_ptr();
    let (mut id, mut used) = (0, 0);
    let ids = [engine.open(0)];
    let (counts, wanted, mut finite) = ([1], [1], [0]);
    let x = numbers(1, 128);
    let mut logits = vec![0.0; 50];
    let good = batch(&ids, &counts, &wanted, &x, &mut logits, &mut finite, 1);
    let crooked = |pointer: *const f32| pointer.cast::<u8>().wrapping_add(1).cast::<f32>();
    let draw = T3Draw {
        temperature: 1.0,
        repetition_penalty: 1.0,
        top_p: 1.0,
        min_p: 0.0,
        seed: 0,
        step: 0,
        attempt: 0,
        top_k: 0,
        penalty_first: 0,
    };
    // SAFETY: what is wrong with the pointers is refused before they are followed.
    unsafe {
        assert_eq!(t3_new(null(), set, &mut id), INVALID);
        assert_eq!(t3_new(&CONFIG, null(), &mut id), INVALID);
        assert_eq!(t3_new(&CONFIG, set, null_mut()), INVALID);
        assert_eq!(t3_new(&CONFIG, c"\xff".as_ptr(), &mut id), INVALID);
        assert_eq!(t3_instruction_sets(null_mut(), 5), INVALID);
        assert_eq!(t3_instruction_sets(c"x".as_ptr().cast_mut(), 0), INVALID);
        assert_eq!(t3_forward(engine.0, null()), INVALID);
        assert_eq!(t3_open(engine.0, 5, 0, null_mut()), INVALID);
        assert_eq!(t3_prefix(engine.0, ids[0], 1, null_mut()), INVALID);
        assert_eq!(t3_length(engine.0, ids[0], null_mut()), INVALID);
        assert_eq!(t3_bytes(engine.0, null_mut(), null_mut()), INVALID);
        assert_eq!(t3_missing(engine.0, null_mut(), 9), INVALID);
        let (name, one) = (c"tfmr.ln_f.bias".as_ptr(), [128_u64]);
        let (x, shape) = (x.as_ptr(), one.as_ptr());
        assert_eq!(
            t3_take(engine.0, null(), x, 1, shape, shape, 1, &mut used),
            INVALID
        );
        assert_eq!(
            t3_take(engine.0, name, null(), 1, shape, shape, 1, &mut used),
            INVALID
        );
        assert_eq!(
            t3_take(engine.0, name, crooked(x), 1, shape, shape, 1, &mut used),
            INVALID
        );
        assert_eq!(
            t3_take(engine.0, name, x, 1, null(), shape, 1, &mut used),
            INVALID
        );
        assert_eq!(
            t3_take(engine.0, name, x, 1, shape, shape, 1, null_mut()),
            INVALID
        );
        assert_eq!(
            t3_take(engine.0, name, x, u32::MAX, shape, shape, 1, &mut used),
            INVALID
        );
        for bad in [
            T3Batch {
                ids: null(),
                ..good
            },
            T3Batch {
                counts: null(),
                ..good
            },
            T3Batch {
                wanted: null(),
                ..good
            },
            T3Batch { x: null(), ..good },
            T3Batch {
                x: crooked(good.x),
                ..good
            },
            T3Batch {
                x_numbers: 127,
                ..good
            },
            T3Batch {
                x_numbers: u64::MAX,
                ..good
            },
            T3Batch {
                logits: null_mut(),
                ..good
            },
            T3Batch {
                logits: crooked(good.logits).cast_mut(),
                ..good
            },
            T3Batch {
                logits_numbers: 49,
                ..good
            },
            T3Batch {
                finite: null_mut(),
                ..good
            },
            T3Batch {
                sequences: 0,
                ..good
            },
        ] {
            assert_eq!(t3_forward(engine.0, &bad), INVALID, "{bad:?}");
            assert!(!message().is_empty());
        }
        assert_eq!(t3_forward(engine.0, &good), 0);
        let mut token = 0;
        assert_eq!(t3_draw(null(), x, 1, null(), 0, &mut token), INVALID);
        assert_eq!(t3_draw(&draw, null(), 1, null(), 0, &mut token), INVALID);
        assert_eq!(t3_draw(&draw, x, 1, null(), 1, &mut token), INVALID);
        assert_eq!(t3_draw(&draw, x, 1, null(), 0, null_mut()), INVALID);
        assert_eq!(t3_scores(&draw, x, 1, null(), 0, null_mut()), INVALID);
        assert_eq!(
            t3_draw(&draw, x, 128, [128].as_ptr(), 1, &mut token),
            INVALID
        );
        assert_eq!(t3_draw(&draw, x, 128, null(), 0, &mut token), 0);
    }
}

#[test]
fn layers_refuse_null_and_too_long_arrays() {
    let (set, x) = (c"".as_ptr(), [1.0_f32; 32]);
    let (one, mut to) = (x.as_ptr(), [0.0_f32; 32]);
    let out = to.as_mut_ptr();
    // SAFETY: what is wrong with the pointers and sizes is refused before they are followed.
    unsafe {
        assert_eq!(t3_linear(set, 2, 16, 2, one, one, null(), out), 0);
        assert_eq!(to[..5], [16.0, 16.0, 16.0, 16.0, 0.0]);
        assert_eq!(t3_linear(set, 2, 16, 2, one, one, one, out), 0);
        assert_eq!(to[..5], [17.0, 17.0, 17.0, 17.0, 0.0]);
        assert_eq!(t3_linear(null(), 2, 16, 2, one, one, null(), out), INVALID);
        assert_eq!(t3_linear(set, 2, 16, 2, null(), one, null(), out), INVALID);
        assert_eq!(t3_linear(set, 2, 16, 2, one, null(), null(), out), INVALID);
        assert_eq!(
            t3_linear(set, 2, 16, 2, one, one, null(), null_mut()),
            INVALID
        );
        assert_eq!(
            t3_linear(set, 1 << 40, 1 << 40, 2, one, one, null(), out),
            INVALID
        );
        assert_eq!(t3_linear(set, 0, 0, 2, one, one, null(), out), INVALID);
        assert_eq!(t3_layer_norm(set, 2, 16, one, one, one, 1e-5, out), 0);
        assert_eq!(
            t3_layer_norm(set, 2, 16, null(), one, one, 1e-5, out),
            INVALID
        );
        assert_eq!(
            t3_layer_norm(set, 2, 16, one, null(), one, 1e-5, out),
            INVALID
        );
        assert_eq!(
            t3_layer_norm(set, 2, 16, one, one, null(), 1e-5, out),
            INVALID
        );
        assert_eq!(
            t3_layer_norm(set, 2, 16, one, one, one, 1e-5, null_mut()),
            INVALID
        );
        assert_eq!(t3_layer_norm(set, 2, 8, one, one, one, 1e-5, out), INVALID);
        assert_eq!(
            t3_layer_norm(set, u64::MAX, 16, one, one, one, 1e-5, out),
            INVALID
        );
        assert_eq!(t3_attention(set, 1, 1, 2, 16, one, one, one, out), 0);
        assert_eq!(to[..16], [1.0; 16]);
        assert_eq!(
            t3_attention(set, 1, 1, 2, 16, null(), one, one, out),
            INVALID
        );
        assert_eq!(
            t3_attention(set, 1, 1, 2, 16, one, null(), one, out),
            INVALID
        );
        assert_eq!(
            t3_attention(set, 1, 1, 2, 16, one, one, null(), out),
            INVALID
        );
        assert_eq!(
            t3_attention(set, 1, 1, 2, 16, one, one, one, null_mut()),
            INVALID
        );
        assert_eq!(t3_attention(set, 1, 1, 0, 16, one, one, one, out), INVALID);
        assert_eq!(
            t3_attention(set, 1 << 62, 1, 2, 16, one, one, one, out),
            INVALID
        );
    }
    assert!(!message().is_empty());
}

#[test]
fn numbers_of_nothing_are_refused() {
    let engine = Engine::empty(CONFIG, "");
    let mut id = 0;
    assert_eq!(t3_free(u64::MAX), INVALID);
    assert_eq!(message(), "there is no such engine");
    assert_eq!(t3_close(engine.0, 5), INVALID);
    // SAFETY: valid pointers.
    unsafe {
        assert_eq!(t3_open(engine.0 + 1000, 5, 0, &mut id), INVALID);
        assert_eq!(t3_open(engine.0, 0, 0, &mut id), INVALID);
        assert_eq!(t3_open(engine.0, u64::MAX, 0, &mut id), INVALID);
        assert_eq!(t3_open(engine.0, 5, 77, &mut id), INVALID);
        assert_eq!(t3_length(engine.0, 77, &mut id), INVALID);
    }
    let closed = engine.open(0);
    assert_eq!(t3_close(engine.0, closed), 0);
    assert_eq!(t3_close(engine.0, closed), INVALID);
    // without weights nothing is computed
    let ids = [engine.open(0)];
    let (mut logits, mut finite) = ([0.0; 50], [0]);
    let batch = batch(&ids, &[1], &[1], &[0.0; 128], &mut logits, &mut finite, 1);
    // SAFETY: valid pointers.
    let code = unsafe { t3_forward(engine.0, &batch) };
    assert_eq!(code, INVALID);
    assert!(message().contains("not complete"), "{}", message());
}

#[test]
fn tensors_of_another_shape_or_not_finite_are_refused() {
    let engine = Engine::empty(CONFIG, "");
    let name = "tfmr.h.0.mlp.c_fc.weight";
    let mut tensor = numbers(1, 128 * 72);
    for shape in [&[72, 128][..], &[128, 71], &[128 * 72], &[], &[0, 0]] {
        assert_eq!(engine.take(name, &tensor, shape), INVALID, "{shape:?}");
    }
    tensor[128 * 72 - 1] = f32::NEG_INFINITY;
    assert_eq!(engine.take(name, &tensor, &[128, 72]), INVALID);
    assert_eq!(
        message(),
        "tfmr.h.0.mlp.c_fc.weight: it holds NaN or infinite numbers"
    );
    assert_eq!(engine.take("text_head.weight", &tensor, &[1]), 0);
}

#[test]
fn sizes_that_make_no_model_are_refused() {
    let mut id = 0;
    for config in [
        T3Config {
            backbone: 2,
            ..CONFIG
        },
        T3Config {
            precision: 2,
            ..CONFIG
        },
        T3Config { dim: 127, ..CONFIG },
        T3Config {
            heads: 0,
            dim: 0,
            ..CONFIG
        },
        T3Config {
            layers: u32::MAX,
            ..CONFIG
        },
        T3Config {
            ffn: u32::MAX,
            ..CONFIG
        },
        T3Config { vocab: 0, ..CONFIG },
        T3Config {
            positions: u32::MAX,
            backbone: 1,
            ..CONFIG
        },
        T3Config {
            norm_eps: f32::NAN,
            ..CONFIG
        },
        T3Config {
            rope_theta: 0.0,
            backbone: 1,
            ..CONFIG
        },
    ] {
        // SAFETY: valid pointers.
        let code = unsafe { t3_new(&config, c"".as_ptr(), &mut id) };
        assert_eq!(code, INVALID, "{config:?}");
    }
}

#[test]
fn engines_are_ended_while_others_speak() {
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                let engine = Engine::new(CONFIG, "");
                engine.forward(&[engine.open(0)], &[3], &numbers(5, 3 * 128), 2)
            })
        })
        .collect();
    let logits: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert!(logits.iter().all(|found| *found == logits[0]));
}
