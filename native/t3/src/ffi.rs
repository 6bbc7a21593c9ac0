//! The C interface.
//!
//! Functions return 0, or the [`Code`](crate::error::Code) of an error. [`t3_message`] returns its text. Engines have
//! numbers, not pointers, so an unknown number is an error. No panic leaves a function.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::bandwidth::bandwidth;
use crate::engine::{Batch, Engine, Handle};
use crate::error::{Error, Result};
use crate::functional;
use crate::model::{Backbone, Config, Given, Precision};
use crate::rope::Rope;
use crate::sampler::{Draw, Sampling};
use crate::simd::InstructionSet;

/// The version of this interface. It changes with every change of a function or a struct.
const VERSION: u32 = 3;

/// Sizes of a model; see [`Config`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct T3Config {
    /// 0 for GPT-2, 1 for Llama.
    pub backbone: u32,
    /// Number of layers.
    pub layers: u32,
    /// Width of the hidden state.
    pub dim: u32,
    /// Attention heads.
    pub heads: u32,
    /// Width inside the feed-forward part.
    pub ffn: u32,
    /// Number of speech token ids.
    pub vocab: u32,
    /// Most positions of one sequence.
    pub positions: u32,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// See [`Rope`].
    pub rope_theta: f32,
    /// See [`Rope`].
    pub rope_factor: f32,
    /// See [`Rope`].
    pub rope_low_freq_factor: f32,
    /// See [`Rope`].
    pub rope_high_freq_factor: f32,
    /// See [`Rope`].
    pub rope_original_positions: f32,
    /// 0 for float32, 1 for 8 bits.
    pub precision: u32,
}

/// A forward pass; see [`Batch`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct T3Batch {
    /// Number of sequences.
    pub sequences: u32,
    /// Most threads that may work.
    pub threads: u32,
    /// `sequences` numbers of sequences.
    pub ids: *const u64,
    /// `sequences` counts of positions.
    pub counts: *const u32,
    /// `sequences` flags, 0 or 1: whether a sequence's logits are wanted.
    pub wanted: *const u8,
    /// Embeddings.
    pub x: *const f32,
    /// How many numbers `x` has.
    pub x_numbers: u64,
    /// Where the wanted logits go.
    pub logits: *mut f32,
    /// How many numbers there is room for.
    pub logits_numbers: u64,
    /// Receives whether each sequence's hidden state is finite: `sequences` bytes, 0 or 1.
    pub finite: *mut u8,
}

/// How a token is drawn; see [`Sampling`] and [`Draw`].
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct T3Draw {
    /// See [`Sampling`].
    pub temperature: f64,
    /// See [`Sampling`].
    pub repetition_penalty: f64,
    /// See [`Sampling`].
    pub top_p: f64,
    /// See [`Sampling`].
    pub min_p: f64,
    /// See [`Draw`].
    pub seed: u64,
    /// See [`Draw`].
    pub step: u32,
    /// See [`Draw`].
    pub attempt: u32,
    /// See [`Sampling`].
    pub top_k: u32,
    /// 1 if the penalty comes first.
    pub penalty_first: u32,
}

#[derive(Default)]
struct Engines {
    last: u64,
    all: HashMap<u64, Handle>,
}

static ENGINES: Mutex<Option<Engines>> = Mutex::new(None);

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn guarded(work: impl FnOnce() -> Result<()>) -> i32 {
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(Error::internal(format!(
            "a fault of the engine: {}",
            said(&*panic)
        )))
    });
    match result {
        Ok(()) => 0,
        Err(Error { code, message }) => {
            let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
            MESSAGE.with(|kept| *kept.borrow_mut() = message);
            code as i32
        }
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn engine(number: u64) -> Result<Handle> {
    let engines = locked(&ENGINES);
    let engine = engines
        .as_ref()
        .and_then(|engines| engines.all.get(&number));
    engine
        .cloned()
        .ok_or_else(|| Error::invalid("there is no such engine"))
}

/// # Safety
/// If `start` is not null, it may be read for `count` numbers as long as the result is used.
unsafe fn slice<'a, T>(name: &str, start: *const T, count: usize) -> Result<&'a [T]> {
    checked(name, start, count)?;
    match count {
        0 => Ok(&[]),
        // SAFETY: not null, aligned, not too long; the rest is the caller's promise.
        _ => Ok(unsafe { std::slice::from_raw_parts(start, count) }),
    }
}

/// # Safety
/// If `start` is not null, it may be written for `count` numbers, and nobody else uses them meanwhile.
unsafe fn slice_mut<'a, T>(name: &str, start: *mut T, count: usize) -> Result<&'a mut [T]> {
    checked(name, start, count)?;
    match count {
        0 => Ok(&mut []),
        // SAFETY: not null, aligned, not too long; the rest is the caller's promise.
        _ => Ok(unsafe { std::slice::from_raw_parts_mut(start, count) }),
    }
}

fn checked<T>(name: &str, start: *const T, count: usize) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    if start.is_null() {
        return Err(Error::invalid(format!("{name} is null")));
    }
    if !start.is_aligned() {
        return Err(Error::invalid(format!(
            "{name} is not aligned to {} bytes",
            align_of::<T>()
        )));
    }
    match count.checked_mul(size_of::<T>()) {
        Some(bytes) if bytes <= isize::MAX as usize => Ok(()),
        _ => Err(Error::invalid(format!("{name} is too long"))),
    }
}

/// # Safety
/// If `text` is not null, it ends with a zero.
unsafe fn text<'a>(name: &str, text: *const c_char) -> Result<&'a str> {
    if text.is_null() {
        return Err(Error::invalid(format!("{name} is null")));
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str()
        .map_err(|_| Error::invalid(format!("{name} is not UTF-8")))
}

/// # Safety
/// If `to` is not null, it may be written.
unsafe fn put<T>(name: &str, to: *mut T, value: T) -> Result<()> {
    checked(name, to.cast_const(), 1)?;
    // SAFETY: not null and aligned; the rest is the caller's promise.
    unsafe { to.write(value) };
    Ok(())
}

/// # Safety
/// If `to` is not null, it may be written for `room` bytes.
unsafe fn put_text(to: *mut c_char, room: u64, text: &str) -> Result<()> {
    let room = usize::try_from(room).map_err(|_| Error::invalid("there is too much room"))?;
    // SAFETY: the caller's promise.
    let to = unsafe { slice_mut("the text", to.cast::<u8>(), room)? };
    let Some(most) = room.checked_sub(1) else {
        return Err(Error::invalid("there is no room for a text"));
    };
    let count = text.len().min(most);
    to[..count].copy_from_slice(&text.as_bytes()[..count]);
    to[count] = 0;
    Ok(())
}

/// Returns the version of this interface. Call it first after loading the library. From then on, a panic that becomes
/// an error prints nothing: the library has its own standard library, and its own panic hook.
#[unsafe(no_mangle)]
pub extern "C" fn t3_version() -> u32 {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    VERSION
}

/// Returns the text of this thread's last error. It is valid until the thread's next call.
#[unsafe(no_mangle)]
pub extern "C" fn t3_message() -> *const c_char {
    MESSAGE.with(|kept| kept.borrow().as_ptr())
}

/// Writes the names of this processor's instruction sets, the fastest first, with commas between.
///
/// # Safety
/// `to` may be written for `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_instruction_sets(to: *mut c_char, room: u64) -> i32 {
    guarded(|| {
        let names: Vec<_> = InstructionSet::available()
            .into_iter()
            .map(InstructionSet::name)
            .collect();
        // SAFETY: the caller's promise.
        unsafe { put_text(to, room, &names.join(",")) }
    })
}

/// Writes how fast `threads` threads read `bytes` of memory, in bytes per second.
///
/// # Safety
/// `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_bandwidth(bytes: u64, threads: u32, to: *mut f64) -> i32 {
    guarded(|| {
        let speed = bandwidth(
            InstructionSet::best(),
            bytes as usize,
            threads.max(1) as usize,
        )?;
        // SAFETY: the caller's promise.
        unsafe { put("the result", to, speed) }
    })
}

/// Creates an engine without weights.
///
/// # Safety
/// `config` may be read; `set` is a text, empty for the best instruction set; `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_new(config: *const T3Config, set: *const c_char, to: *mut u64) -> i32 {
    guarded(|| {
        checked("the result", to.cast_const(), 1)?;
        // SAFETY: the caller's promise.
        let (config, set) = unsafe {
            (
                slice("the configuration", config, 1)?[0],
                text("the instruction set", set)?,
            )
        };
        let engine = Engine::new(
            Config {
                backbone: match config.backbone {
                    0 => Backbone::Gpt2,
                    1 => Backbone::Llama,
                    other => {
                        return Err(Error::invalid(format!(
                            "backbone must be 0 or 1, not {other}"
                        )));
                    }
                },
                layers: config.layers as usize,
                dim: config.dim as usize,
                heads: config.heads as usize,
                ffn: config.ffn as usize,
                vocab: config.vocab as usize,
                positions: config.positions as usize,
                eps: config.norm_eps,
                precision: match config.precision {
                    0 => Precision::Float32,
                    1 => Precision::Int8,
                    other => {
                        return Err(Error::invalid(format!(
                            "precision must be 0 or 1, not {other}"
                        )));
                    }
                },
                rope: Rope {
                    theta: config.rope_theta,
                    factor: config.rope_factor,
                    low_freq_factor: config.rope_low_freq_factor,
                    high_freq_factor: config.rope_high_freq_factor,
                    original_positions: config.rope_original_positions,
                },
            },
            InstructionSet::named(set)?,
        )?;
        let mut engines = locked(&ENGINES);
        let engines = engines.get_or_insert_default();
        engines.last += 1;
        engines
            .all
            .insert(engines.last, Arc::new(Mutex::new(engine)));
        // SAFETY: the caller's promise.
        unsafe { put("the result", to, engines.last) }
    })
}

/// Ends an engine. Calls on other threads finish first.
#[unsafe(no_mangle)]
pub extern "C" fn t3_free(number: u64) -> i32 {
    guarded(|| {
        let engine = locked(&ENGINES)
            .as_mut()
            .and_then(|engines| engines.all.remove(&number));
        // dropped here, outside the lock: it waits for its threads
        engine
            .map(drop)
            .ok_or_else(|| Error::invalid("there is no such engine"))
    })
}

/// Gives an engine a tensor of a checkpoint; `used` becomes 1 if it was needed.
///
/// # Safety
/// `name` is a text; `shape` and `strides` have `sizes` numbers each (strides in float32 numbers); `start` may be read
/// at all places that they give; `used` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_take(
    number: u64,
    name: *const c_char,
    start: *const f32,
    sizes: u32,
    shape: *const u64,
    strides: *const u64,
    threads: u32,
    used: *mut u8,
) -> i32 {
    guarded(|| {
        checked("used", used.cast_const(), 1)?;
        checked("the tensor", start, 1)?;
        if sizes > 8 {
            return Err(Error::invalid("a tensor has too many sizes"));
        }
        // SAFETY: the caller's promise.
        let (name, shape, strides) = unsafe {
            (
                text("the name", name)?,
                slice("the shape", shape, sizes as usize)?,
                slice("the strides", strides, sizes as usize)?,
            )
        };
        let numbers = |list: &[u64]| -> Vec<usize> { list.iter().map(|x| *x as usize).collect() };
        let (shape, strides) = (numbers(shape), numbers(strides));
        let given = Given {
            start,
            shape: &shape,
            strides: &strides,
        };
        let engine = engine(number)?;
        // SAFETY: the caller's promise.
        unsafe {
            let taken = locked(&engine).take(name, &given, threads as usize)?;
            put("used", used, u8::from(taken))
        }
    })
}

/// Writes the names of missing tensors, with commas between, as far as there is room.
///
/// # Safety
/// `to` may be written for `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_missing(number: u64, to: *mut c_char, room: u64) -> i32 {
    guarded(|| {
        let engine = engine(number)?;
        let names = locked(&engine).missing().join(",");
        // SAFETY: the caller's promise.
        unsafe { put_text(to, room, &names) }
    })
}

/// Writes the bytes of the weights and of the KV cache.
///
/// # Safety
/// `weights` and `cache` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_bytes(number: u64, weights: *mut u64, cache: *mut u64) -> i32 {
    guarded(|| {
        let engine = engine(number)?;
        let bytes = locked(&engine).bytes();
        // SAFETY: the caller's promise.
        unsafe {
            put("weights", weights, bytes.0 as u64)?;
            put("cache", cache, bytes.1 as u64)
        }
    })
}

/// Begins a sequence of at most `positions`, starting with those of a prefix unless that is 0.
///
/// # Safety
/// `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_open(number: u64, positions: u64, prefix: u64, to: *mut u64) -> i32 {
    guarded(|| {
        checked("the result", to.cast_const(), 1)?;
        let engine = engine(number)?;
        let id = locked(&engine).open(positions as usize, (prefix != 0).then_some(prefix))?;
        // SAFETY: the caller's promise.
        unsafe { put("the result", to, id) }
    })
}

/// Keeps the first positions of a sequence.
///
/// # Safety
/// `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_prefix(number: u64, sequence: u64, length: u64, to: *mut u64) -> i32 {
    guarded(|| {
        checked("the result", to.cast_const(), 1)?;
        let engine = engine(number)?;
        let id = locked(&engine).prefix(sequence, length as usize)?;
        // SAFETY: the caller's promise.
        unsafe { put("the result", to, id) }
    })
}

/// Ends a sequence, or releases a prefix.
#[unsafe(no_mangle)]
pub extern "C" fn t3_close(number: u64, id: u64) -> i32 {
    guarded(|| match locked(&*engine(number)?).close(id) {
        true => Ok(()),
        false => Err(Error::invalid("there is no such sequence or prefix")),
    })
}

/// Writes how many positions of a sequence have been written.
///
/// # Safety
/// `to` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_length(number: u64, sequence: u64, to: *mut u64) -> i32 {
    guarded(|| {
        let engine = engine(number)?;
        let length = locked(&engine).length(sequence)?;
        // SAFETY: the caller's promise.
        unsafe { put("the result", to, length as u64) }
    })
}

/// Continues sequences; see [`Engine::forward`].
///
/// # Safety
/// `batch` may be read, and its pointers as its fields say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_forward(number: u64, batch: *const T3Batch) -> i32 {
    guarded(|| {
        let engine = engine(number)?;
        let mut engine = locked(&engine);
        // SAFETY: the caller's promise.
        unsafe {
            let batch = slice("the batch", batch, 1)?[0];
            let count = batch.sequences as usize;
            let counts: Vec<usize> = numbers(slice("counts", batch.counts, count)?);
            let wanted: Vec<bool> = slice("wanted", batch.wanted, count)?
                .iter()
                .map(|wanted| *wanted != 0)
                .collect();
            let ids = slice("ids", batch.ids, count)?;
            let finite = slice_mut("finite", batch.finite, count)?;
            let logits = slice_mut("the logits", batch.logits, batch.logits_numbers as usize)?;
            let batch = Batch {
                sequences: ids,
                counts: &counts,
                wanted: &wanted,
                x: slice("x", batch.x, batch.x_numbers as usize)?,
                threads: batch.threads as usize,
            };
            let answers = engine.forward(&batch, logits)?;
            finite
                .iter_mut()
                .zip(answers)
                .for_each(|(to, answer)| *to = u8::from(answer));
        }
        Ok(())
    })
}

fn numbers(list: &[u32]) -> Vec<usize> {
    list.iter().map(|x| *x as usize).collect()
}

/// Writes `x * weight^T + bias`; see [`functional::linear`].
///
/// # Safety
/// `set` is a text, empty for the best instruction set. `x` may be read for `rows * inputs` numbers, `weight` for
/// `outputs * inputs`, and `bias` for `outputs`; a null `bias` means no bias. `to` may be written for
/// `rows * outputs`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_linear(
    set: *const c_char,
    rows: u64,
    inputs: u64,
    outputs: u64,
    x: *const f32,
    weight: *const f32,
    bias: *const f32,
    to: *mut f32,
) -> i32 {
    guarded(|| {
        // SAFETY: the caller's promise.
        unsafe {
            let set = InstructionSet::named(text("the instruction set", set)?)?;
            let x = slice("x", x, product("x", &[rows, inputs])?)?;
            let weight = slice("weight", weight, product("weight", &[outputs, inputs])?)?;
            let bias = match bias.is_null() {
                true => None,
                false => Some(slice("bias", bias, outputs as usize)?),
            };
            let to = slice_mut("the result", to, product("the result", &[rows, outputs])?)?;
            functional::linear(set, inputs as usize, x, weight, bias, to)
        }
    })
}

/// Writes the LayerNorm of each row of `x`; see [`functional::layer_norm`].
///
/// # Safety
/// `set` is a text, empty for the best instruction set. `x` may be read, and `to` written, for `rows * width`
/// numbers; `weight` and `bias` may be read for `width`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_layer_norm(
    set: *const c_char,
    rows: u64,
    width: u64,
    x: *const f32,
    weight: *const f32,
    bias: *const f32,
    eps: f32,
    to: *mut f32,
) -> i32 {
    guarded(|| {
        // SAFETY: the caller's promise.
        unsafe {
            let set = InstructionSet::named(text("the instruction set", set)?)?;
            let (numbers, width) = (product("x", &[rows, width])?, width as usize);
            let (x, to) = (
                slice("x", x, numbers)?,
                slice_mut("the result", to, numbers)?,
            );
            let (weight, bias) = (slice("weight", weight, width)?, slice("bias", bias, width)?);
            functional::layer_norm(set, x, weight, bias, eps, to)
        }
    })
}

/// Writes the attention of each head; see [`functional::attention`].
///
/// # Safety
/// `set` is a text, empty for the best instruction set. `q` may be read, and `to` written, for
/// `heads * queries * width` numbers; `k` and `v` may be read for `heads * positions * width`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_attention(
    set: *const c_char,
    heads: u64,
    queries: u64,
    positions: u64,
    width: u64,
    q: *const f32,
    k: *const f32,
    v: *const f32,
    to: *mut f32,
) -> i32 {
    guarded(|| {
        // SAFETY: the caller's promise.
        unsafe {
            let set = InstructionSet::named(text("the instruction set", set)?)?;
            let asked = product("q", &[heads, queries, width])?;
            let seen = product("k", &[heads, positions, width])?;
            let (q, to) = (slice("q", q, asked)?, slice_mut("the result", to, asked)?);
            let (k, v) = (slice("k", k, seen)?, slice("v", v, seen)?);
            functional::attention(set, heads as usize, width as usize, q, k, v, to)
        }
    })
}

fn product(name: &str, sizes: &[u64]) -> Result<usize> {
    let numbers = sizes
        .iter()
        .try_fold(1_u64, |all, size| all.checked_mul(*size));
    numbers
        .and_then(|numbers| usize::try_from(numbers).ok())
        .ok_or_else(|| Error::invalid(format!("{name} is too long")))
}

/// Draws a token from `count` logits; `seen` has the ids that the penalty applies to.
///
/// # Safety
/// `draw`, `logits` and `seen` may be read; `token` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_draw(
    draw: *const T3Draw,
    logits: *const f32,
    count: u64,
    seen: *const u32,
    seen_count: u64,
    token: *mut u32,
) -> i32 {
    guarded(|| {
        checked("the token", token.cast_const(), 1)?;
        // SAFETY: the caller's promise.
        unsafe {
            let draw = slice("the draw", draw, 1)?[0];
            let logits = slice("the logits", logits, count as usize)?;
            let seen = slice("the ids", seen, seen_count as usize)?;
            let which = Draw {
                seed: draw.seed,
                step: draw.step,
                attempt: draw.attempt,
            };
            put(
                "the token",
                token,
                sampling(&draw).draw(logits, seen, which)?,
            )
        }
    })
}

/// Writes the scores that [`t3_draw`] would draw from.
///
/// # Safety
/// As there; `scores` may be written for `count` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn t3_scores(
    draw: *const T3Draw,
    logits: *const f32,
    count: u64,
    seen: *const u32,
    seen_count: u64,
    scores: *mut f32,
) -> i32 {
    guarded(|| {
        // SAFETY: the caller's promise.
        unsafe {
            let draw = slice("the draw", draw, 1)?[0];
            let logits = slice("the logits", logits, count as usize)?;
            let seen = slice("the ids", seen, seen_count as usize)?;
            let found = sampling(&draw).scores(logits, seen)?;
            slice_mut("the scores", scores, found.len())?.copy_from_slice(&found);
        }
        Ok(())
    })
}

fn sampling(draw: &T3Draw) -> Sampling {
    Sampling {
        temperature: draw.temperature,
        repetition_penalty: draw.repetition_penalty,
        top_p: draw.top_p,
        min_p: draw.min_p,
        top_k: draw.top_k as usize,
        penalty_first: draw.penalty_first != 0,
    }
}
