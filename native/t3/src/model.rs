//! The sizes of a model, and its weights by their names in checkpoints.

use std::collections::HashMap;

use crate::HEAD;
use crate::error::{Error, Result};
use crate::int8::Weights8;
use crate::memory::Memory;
use crate::norm::Norm;
use crate::pool::Pool;
use crate::product::{PANEL, Source, Weights};
use crate::rope::Rope;
use crate::simd::LANES;

/// Kind of transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backbone {
    /// LayerNorm, biases, GELU; positions are in the embeddings.
    Gpt2,
    /// RMSNorm, rotary positions, SwiGLU.
    Llama,
}

/// Sizes of a model.
#[derive(Debug, Clone)]
pub struct Config {
    /// Kind of transformer.
    pub backbone: Backbone,
    /// Number of layers.
    pub layers: usize,
    /// Width of the hidden state: 64 for each head.
    pub dim: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width inside the feed-forward part.
    pub ffn: usize,
    /// Number of speech token ids.
    pub vocab: usize,
    /// Most positions of one sequence.
    pub positions: usize,
    /// Epsilon of the norms.
    pub eps: f32,
    /// Rotary positions; Llama only.
    pub rope: Rope,
    /// How the matrices are stored.
    pub precision: Precision,
}

impl Config {
    /// Refuses invalid sizes.
    pub fn check(&self) -> Result<()> {
        let within = |name: &str, value: usize, most: usize| {
            if (1..=most).contains(&value) {
                return Ok(());
            }
            Err(Error::invalid(format!(
                "{name} must be from 1 to {most}, not {value}"
            )))
        };
        within("layers", self.layers, 1 << 10)?;
        within("heads", self.heads, 1 << 9)?;
        within("ffn", self.ffn, 1 << 18)?;
        within("vocab", self.vocab, 1 << 22)?;
        within("positions", self.positions, 1 << 18)?;
        if self.dim != self.heads * HEAD {
            return Err(Error::invalid(format!(
                "dim must be {HEAD} for each of the {} heads, not {}",
                self.heads, self.dim
            )));
        }
        let rope = [
            self.rope.theta,
            self.rope.factor,
            self.rope.low_freq_factor,
            self.rope.high_freq_factor,
            self.rope.original_positions,
        ];
        if !(self.eps.is_finite() && self.eps >= 0.0) {
            return Err(Error::invalid(format!(
                "norm_eps must be 0 or more, not {}",
                self.eps
            )));
        }
        if self.backbone == Backbone::Llama && !rope.iter().all(|x| x.is_finite() && *x > 0.0) {
            return Err(Error::invalid(
                "the numbers of rope must be finite and above 0",
            ));
        }
        Ok(())
    }

    /// Which norm the backbone has.
    pub fn norm(&self) -> Norm {
        match self.backbone {
            Backbone::Gpt2 => Norm::Layer,
            Backbone::Llama => Norm::Rms,
        }
    }
}

/// Weight and bias of a norm. RMSNorm has no bias.
#[derive(Debug, Default)]
pub struct NormWeights {
    /// Factors.
    pub weight: Vec<f32>,
    /// Summands.
    pub bias: Vec<f32>,
}

/// How a model's matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    Float32,
    /// Rounded to 8 bits, and so are the numbers that they are multiplied with.
    Int8,
}

/// A packed matrix.
#[derive(Debug)]
pub enum Matrix {
    /// In float32.
    Float32(Weights),
    /// In 8 bits.
    Int8(Weights8),
}

impl Matrix {
    fn new(precision: Precision, inputs: usize, outputs: usize) -> Result<Self> {
        Ok(match precision {
            Precision::Float32 => Self::Float32(Weights::new(inputs, outputs)?),
            Precision::Int8 => Self::Int8(Weights8::new(inputs, outputs)?),
        })
    }

    /// Panels of 32 columns.
    pub fn panels(&self) -> usize {
        match self {
            Self::Float32(weights) => weights.panels(),
            Self::Int8(weights) => weights.panels(),
        }
    }

    /// Its memory.
    pub fn memory(&self) -> &Memory {
        match self {
            Self::Float32(weights) => weights.memory(),
            Self::Int8(weights) => weights.memory(),
        }
    }

    /// # Safety
    /// See [`Weights::fill`].
    unsafe fn fill(
        &self,
        panel: usize,
        columns: &[Option<usize>; PANEL],
        from: &Source,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Float32(weights) => weights.fill(panel, columns, from),
                Self::Int8(weights) => weights.fill(panel, columns, from),
            }
        }
    }
}

/// A matrix and its bias.
#[derive(Debug)]
pub struct Linear {
    /// The matrix.
    pub weights: Matrix,
    /// One for each column of its panels; 0 if the model has none.
    pub bias: Vec<f32>,
}

impl Linear {
    fn new(precision: Precision, inputs: usize, outputs: usize) -> Result<Self> {
        let weights = Matrix::new(precision, inputs, outputs)?;
        let bias = vec![0.0; weights.panels() * PANEL];
        Ok(Self { weights, bias })
    }
}

/// The products of a layer, in the order in which they are computed.
pub const QKV: usize = 0;
/// From the heads back to the hidden state.
pub const OUT: usize = 1;
/// Into the feed-forward part.
pub const UP: usize = 2;
/// And out of it.
pub const DOWN: usize = 3;

/// One layer's weights. A product's memory is allocated when the first of its tensors arrives.
#[derive(Debug, Default)]
pub struct Layer {
    /// Before attention, and before the feed-forward part.
    pub norms: [NormWeights; 2],
    /// See `QKV` and the others.
    pub products: [Option<Linear>; 4],
}

/// A model's weights, perhaps still incomplete.
#[derive(Debug)]
pub struct Model {
    /// Its sizes.
    pub config: Config,
    /// Its layers.
    pub layers: Vec<Layer>,
    /// The last norm.
    pub last: NormWeights,
    /// From the hidden state to the logits.
    pub head: Option<Linear>,
    missing: HashMap<String, Tensor>,
}

/// Where a tensor of a checkpoint goes. The layer's number is `layers` for tensors after the last layer.
#[derive(Debug, Clone, Copy)]
struct Tensor {
    layer: usize,
    place: Place,
    /// (inputs, outputs) of a matrix, (length, 1) of a vector.
    size: (usize, usize),
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Norm(usize),
    NormBias(usize),
    Matrix {
        product: usize,
        columns: Columns,
        inputs_first: bool,
    },
    Bias(usize),
}

/// How a matrix's outputs are distributed over the panels.
#[derive(Debug, Clone, Copy)]
enum Columns {
    /// One after the other, from this panel on.
    Plain(usize),
    /// As `Plain`, but the 16 lanes of a panel's first half are rotated with those of its second half: numbers
    /// `i` and `i + 32` of a head.
    Turned(usize),
    /// In the first halves of the panels.
    Gate,
    /// In the second halves.
    Up,
}

impl Columns {
    fn column(self, panel: usize, lane: usize, outputs: usize) -> Option<usize> {
        let column = match self {
            Self::Plain(first) => panel.checked_sub(first)? * PANEL + lane,
            Self::Turned(first) => {
                let panel = panel.checked_sub(first)?;
                panel / 2 * HEAD + panel % 2 * LANES + lane / LANES * (HEAD / 2) + lane % LANES
            }
            Self::Gate if lane < LANES => panel * LANES + lane,
            Self::Up if lane >= LANES => panel * LANES + lane - LANES,
            Self::Gate | Self::Up => return None,
        };
        (column < outputs).then_some(column)
    }
}

/// A tensor in the caller's memory.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The first number.
    pub start: *const f32,
    /// One or two sizes.
    pub shape: &'a [usize],
    /// Strides, counted in numbers.
    pub strides: &'a [usize],
}

impl Model {
    /// Creates a model without weights.
    pub fn new(config: Config) -> Result<Self> {
        config.check()?;
        Ok(Self {
            layers: (0..config.layers).map(|_| Layer::default()).collect(),
            last: NormWeights::default(),
            head: None,
            missing: tensors(&config),
            config,
        })
    }

    /// Packs a tensor of a checkpoint if the model needs it and does not have it yet. Returns whether it did.
    ///
    /// # Errors
    /// If it has the wrong shape, or holds NaN or infinite numbers.
    ///
    /// # Safety
    /// The tensor must be readable at every place that its shape and strides give.
    pub unsafe fn take(
        &mut self,
        name: &str,
        given: &Given<'_>,
        pool: &mut Pool,
        threads: usize,
    ) -> Result<bool> {
        let Some(tensor) = self.missing.get(name).copied() else {
            return Ok(false);
        };
        // SAFETY: the caller's promise.
        unsafe { self.put(tensor, given, pool, threads) }.map_err(|error| Error {
            message: format!("{name}: {}", error.message),
            ..error
        })?;
        self.missing.remove(name);
        Ok(true)
    }

    /// The names of the missing tensors.
    pub fn missing(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.missing.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.memory().map(Memory::bytes).sum()
    }

    /// The memory of the packed weights.
    pub fn memory(&self) -> impl Iterator<Item = &Memory> {
        let products = self
            .layers
            .iter()
            .flat_map(|layer| &layer.products)
            .chain([&self.head]);
        products.flatten().map(|linear| linear.weights.memory())
    }

    unsafe fn put(
        &mut self,
        tensor: Tensor,
        given: &Given<'_>,
        pool: &mut Pool,
        threads: usize,
    ) -> Result<()> {
        let (inputs, outputs) = tensor.size;
        let expected = match tensor.place {
            Place::Matrix {
                inputs_first: true, ..
            } => vec![inputs, outputs],
            Place::Matrix {
                inputs_first: false,
                ..
            } => vec![outputs, inputs],
            _ => vec![inputs],
        };
        if given.shape != expected.as_slice() || given.strides.len() != expected.len() {
            return Err(Error::invalid(format!(
                "its shape is {:?} and must be {expected:?}",
                given.shape
            )));
        }
        let Place::Matrix {
            product,
            columns,
            inputs_first,
        } = tensor.place
        else {
            // SAFETY: the caller's promise.
            let vector: Vec<f32> = (0..inputs)
                .map(|i| unsafe { *given.start.add(i * given.strides[0]) })
                .collect();
            if vector.iter().any(|x| !x.is_finite()) {
                return Err(Error::invalid("it holds NaN or infinite numbers"));
            }
            match tensor.place {
                Place::Norm(number) => self.norm(tensor.layer, number).weight = vector,
                Place::NormBias(number) => self.norm(tensor.layer, number).bias = vector,
                Place::Bias(number) => {
                    self.linear(tensor.layer, number)?.bias[..inputs].copy_from_slice(&vector)
                }
                Place::Matrix { .. } => {}
            }
            return Ok(());
        };
        let (inputs_stride, outputs_stride) = match inputs_first {
            true => (given.strides[0], given.strides[1]),
            false => (given.strides[1], given.strides[0]),
        };
        let source = Source {
            start: given.start,
            inputs: inputs_stride,
            outputs: outputs_stride,
        };
        let weights = &self.linear(tensor.layer, product)?.weights;
        let failed = std::sync::Mutex::new(None);
        pool.run(threads, weights.panels(), &|panel, _| {
            let columns = std::array::from_fn(|lane| columns.column(panel, lane, outputs));
            // SAFETY: the caller's promise; the columns exist; each piece has its own panel.
            if let Err(error) = unsafe { weights.fill(panel, &columns, &source) } {
                *failed
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
            }
        })?;
        match failed
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
        {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    fn norm(&mut self, layer: usize, number: usize) -> &mut NormWeights {
        match self.layers.get_mut(layer) {
            Some(layer) => &mut layer.norms[number],
            None => &mut self.last,
        }
    }

    fn linear(&mut self, layer: usize, product: usize) -> Result<&mut Linear> {
        let (dim, ffn, vocab) = (self.config.dim, self.config.ffn, self.config.vocab);
        let gated = self.config.backbone == Backbone::Llama;
        let precision = self.config.precision;
        let (inputs, outputs, linear) = match self.layers.get_mut(layer) {
            None => (dim, vocab, &mut self.head),
            Some(layer) => {
                let (inputs, outputs) = match product {
                    QKV => (dim, 3 * dim),
                    OUT => (dim, dim),
                    UP if gated => (dim, ffn.div_ceil(LANES) * PANEL),
                    UP => (dim, ffn),
                    _ => (ffn, dim),
                };
                (inputs, outputs, &mut layer.products[product])
            }
        };
        if linear.is_none() {
            *linear = Some(Linear::new(precision, inputs, outputs)?);
        }
        linear.as_mut().ok_or_else(|| Error::internal("no matrix"))
    }
}

/// All tensors that a model needs.
fn tensors(config: &Config) -> HashMap<String, Tensor> {
    let mut tensors = HashMap::new();
    let (dim, ffn, vocab) = (config.dim, config.ffn, config.vocab);
    let mut add =
        |name: String, layer, place, size| tensors.insert(name, Tensor { layer, place, size });
    let matrix = |product, columns, inputs_first| Place::Matrix {
        product,
        columns,
        inputs_first,
    };
    let end = config.layers;
    for layer in 0..config.layers {
        match config.backbone {
            Backbone::Gpt2 => {
                let stem = format!("tfmr.h.{layer}");
                for (number, name) in ["ln_1", "ln_2"].into_iter().enumerate() {
                    add(
                        format!("{stem}.{name}.weight"),
                        layer,
                        Place::Norm(number),
                        (dim, 1),
                    );
                    add(
                        format!("{stem}.{name}.bias"),
                        layer,
                        Place::NormBias(number),
                        (dim, 1),
                    );
                }
                let products = [
                    ("attn.c_attn", dim, 3 * dim),
                    ("attn.c_proj", dim, dim),
                    ("mlp.c_fc", dim, ffn),
                    ("mlp.c_proj", ffn, dim),
                ];
                for (product, (name, inputs, outputs)) in products.into_iter().enumerate() {
                    let place = matrix(product, Columns::Plain(0), true);
                    add(
                        format!("{stem}.{name}.weight"),
                        layer,
                        place,
                        (inputs, outputs),
                    );
                    add(
                        format!("{stem}.{name}.bias"),
                        layer,
                        Place::Bias(product),
                        (outputs, 1),
                    );
                }
            }
            Backbone::Llama => {
                let stem = format!("tfmr.layers.{layer}");
                for (number, name) in ["input_layernorm", "post_attention_layernorm"]
                    .into_iter()
                    .enumerate()
                {
                    add(
                        format!("{stem}.{name}.weight"),
                        layer,
                        Place::Norm(number),
                        (dim, 1),
                    );
                }
                let part = dim / PANEL;
                let products = [
                    ("self_attn.q_proj", QKV, Columns::Turned(0), dim, dim),
                    ("self_attn.k_proj", QKV, Columns::Turned(part), dim, dim),
                    ("self_attn.v_proj", QKV, Columns::Plain(2 * part), dim, dim),
                    ("self_attn.o_proj", OUT, Columns::Plain(0), dim, dim),
                    ("mlp.gate_proj", UP, Columns::Gate, dim, ffn),
                    ("mlp.up_proj", UP, Columns::Up, dim, ffn),
                    ("mlp.down_proj", DOWN, Columns::Plain(0), ffn, dim),
                ];
                for (name, product, columns, inputs, outputs) in products {
                    let place = matrix(product, columns, false);
                    add(
                        format!("{stem}.{name}.weight"),
                        layer,
                        place,
                        (inputs, outputs),
                    );
                }
            }
        }
    }
    match config.backbone {
        Backbone::Gpt2 => {
            add("tfmr.ln_f.weight".into(), end, Place::Norm(0), (dim, 1));
            add("tfmr.ln_f.bias".into(), end, Place::NormBias(0), (dim, 1));
            add("speech_head.bias".into(), end, Place::Bias(0), (vocab, 1));
        }
        Backbone::Llama => {
            add("tfmr.norm.weight".into(), end, Place::Norm(0), (dim, 1));
        }
    }
    add(
        "speech_head.weight".into(),
        end,
        matrix(0, Columns::Plain(0), false),
        (dim, vocab),
    );
    tensors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_each_somewhere_once() {
        let dim = 192;
        let part = dim / PANEL;
        for (columns, first) in [
            (Columns::Plain(0), 0),
            (Columns::Turned(0), 0),
            (Columns::Turned(part), part),
            (Columns::Plain(2 * part), 2 * part),
        ] {
            let mut seen = vec![0; dim];
            for panel in first..first + part {
                for lane in 0..PANEL {
                    seen[columns.column(panel, lane, dim).unwrap()] += 1;
                }
            }
            assert!(seen.iter().all(|n| *n == 1), "{columns:?}");
        }
        assert_eq!(Columns::Plain(6).column(5, 0, dim), None);
        for lane in 0..PANEL {
            let gate = Columns::Gate.column(3, lane, 60);
            let up = Columns::Up.column(3, lane, 60);
            assert_eq!(gate.or(up), Some(48 + lane % 16).filter(|c| *c < 60));
            assert!(gate.is_none() || up.is_none());
        }
        assert_eq!(Columns::Turned(0).column(1, 16, dim), Some(48));
    }
}
