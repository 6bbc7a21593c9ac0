//! A model with its weights, its sequences and its threads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::HEAD;
use crate::attention::{Attend, Group, Query};
use crate::cache::{Cache, Layout, PART, POSITIONS, Prefix, Sequence};
use crate::error::{Error, Result};
use crate::float_state::Ieee;
use crate::huge_pages::HugePages;
use crate::int8::{Piece8, Round, row_bytes};
use crate::math::{gelu, silu};
use crate::memory::{Scratch, Shared};
use crate::model::{Backbone, Config, Given, Linear, Matrix, Model, NormWeights, Precision};
use crate::norm::NormRow;
use crate::pool::{MOST_THREADS, Pool};
use crate::product::{Finish, GROUP, Lane, Outputs, PANEL, Piece, Tile, biased, tiles};
use crate::rope::Angles;
use crate::simd::{Dot, InstructionSet, IntKernel, Kernel, LANES, Simd};

/// Most rows of one forward pass.
pub const MOST_ROWS: usize = 4096;

/// The number of a sequence or a prefix of an engine.
pub type Id = u64;

/// A running model.
pub struct Engine {
    /// Before the model, whose memory it uses: fields are dropped in this order.
    pages: Option<HugePages>,
    model: Model,
    set: InstructionSet,
    shape: Shape,
    angles: Option<Angles>,
    cache: Cache,
    sequences: HashMap<Id, Sequence>,
    prefixes: HashMap<Id, Prefix>,
    last_id: Id,
    pool: Pool,
    rooms: Rooms,
    threads: Vec<Mutex<ThreadRooms>>,
}

#[derive(Default)]
struct Rooms {
    x: Scratch,
    a: Scratch,
    q: Scratch,
    f: Scratch,
    rounded: Scratch,
}

#[derive(Default)]
struct ThreadRooms {
    sums: Scratch,
    attention: Scratch,
    row: Vec<f32>,
    walk: Vec<*const f32>,
}

// SAFETY: only the piece that creates the list uses it.
unsafe impl Send for ThreadRooms {}

/// The input of one forward pass.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    /// Sequences, each once.
    pub sequences: &'a [Id],
    /// How many positions each sequence gets, 1 or more.
    pub counts: &'a [usize],
    /// Whether the logits of each one's last position are wanted.
    pub wanted: &'a [bool],
    /// Embeddings: `dim` numbers for each position, sequence after sequence.
    pub x: &'a [f32],
    /// The most threads that may work.
    pub threads: usize,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    rows: usize,
    rounds: bool,
    queries: usize,
}

struct ShapeOf;

impl Kernel for ShapeOf {
    type Output = Shape;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Shape {
        Shape {
            rows: S::ROWS,
            rounds: false,
            queries: S::QUERIES,
        }
    }
}

struct RowsOfInt;

impl IntKernel for RowsOfInt {
    type Output = usize;
    #[inline(always)]
    fn run<S: Dot>(self, _: S) -> usize {
        S::TILE
    }
}

impl Engine {
    /// Creates an engine without weights; [`take`](Self::take) adds them.
    pub fn new(config: Config, set: InstructionSet) -> Result<Self> {
        let layout = Layout {
            layers: config.layers,
            heads: config.heads,
        };
        let model = Model::new(config)?;
        let config = &model.config;
        let angles = (config.backbone == Backbone::Llama)
            .then(|| Angles::new(&config.rope, config.positions));
        let mut shape = set.run(ShapeOf);
        if config.precision == Precision::Int8 {
            shape.rows = set.run_int(RowsOfInt);
            shape.rounds = true;
        }
        Ok(Self {
            pages: None,
            set,
            shape,
            angles,
            cache: Cache::new(layout),
            sequences: HashMap::new(),
            prefixes: HashMap::new(),
            last_id: 0,
            pool: Pool::new(),
            rooms: Rooms::default(),
            threads: vec![Mutex::default()],
            model,
        })
    }

    /// Sizes of the model.
    pub fn config(&self) -> &Config {
        &self.model.config
    }

    /// The instruction set that it computes with.
    pub fn instruction_set(&self) -> InstructionSet {
        self.set
    }

    /// Bytes of the weights and of the KV cache.
    pub fn bytes(&self) -> (usize, usize) {
        let angles = self.angles.as_ref().map_or(0, Angles::bytes);
        (self.model.bytes() + angles, self.cache.bytes())
    }

    /// See [`Model::take`].
    ///
    /// # Safety
    /// As there.
    pub unsafe fn take(&mut self, name: &str, given: &Given<'_>, threads: usize) -> Result<bool> {
        let threads = self.grow(threads)?;
        // SAFETY: the caller's promise.
        unsafe { self.model.take(name, given, &mut self.pool, threads) }
    }

    /// Names of the tensors that have not come yet.
    pub fn missing(&self) -> Vec<&str> {
        self.model.missing()
    }

    /// Begins a sequence of at most `positions`, starting with those of a prefix.
    pub fn open(&mut self, positions: usize, prefix: Option<Id>) -> Result<Id> {
        let most = self.model.config.positions;
        if !(1..=most).contains(&positions) {
            return Err(Error::invalid(format!(
                "positions must be from 1 to {most}, not {positions}"
            )));
        }
        let prefix = match prefix {
            Some(id) => Some(
                self.prefixes
                    .get(&id)
                    .ok_or_else(|| Error::invalid("there is no such prefix"))?,
            ),
            None => None,
        };
        let sequence = self.cache.open(positions, prefix)?;
        self.last_id += 1;
        self.sequences.insert(self.last_id, sequence);
        Ok(self.last_id)
    }

    /// Keeps the first `length` positions of a sequence, with which others can begin.
    pub fn prefix(&mut self, sequence: Id, length: usize) -> Result<Id> {
        let prefix = self.cache.prefix(self.sequence(sequence)?, length)?;
        self.last_id += 1;
        self.prefixes.insert(self.last_id, prefix);
        Ok(self.last_id)
    }

    /// Ends a sequence or releases a prefix. Returns whether there was one.
    pub fn close(&mut self, id: Id) -> bool {
        self.sequences.remove(&id).is_some() | self.prefixes.remove(&id).is_some()
    }

    /// The number of written positions of a sequence.
    pub fn length(&self, sequence: Id) -> Result<usize> {
        Ok(self.sequence(sequence)?.length)
    }

    fn sequence(&self, id: Id) -> Result<&Sequence> {
        self.sequences
            .get(&id)
            .ok_or_else(|| Error::invalid("there is no such sequence"))
    }

    fn grow(&mut self, threads: usize) -> Result<usize> {
        let threads = threads.clamp(1, MOST_THREADS);
        self.pool.grow(threads)?;
        while self.threads.len() < self.pool.threads() {
            self.threads.push(Mutex::default());
        }
        Ok(threads)
    }

    /// Continues sequences, and writes the wanted logits: `vocab` numbers for each sequence that wants them.
    ///
    /// Returns for each sequence whether its hidden state is finite.
    ///
    /// # Errors
    /// After an error nothing has changed, unless it is [`Internal`](crate::error::Code::Internal).
    pub fn forward(&mut self, batch: &Batch<'_>, logits: &mut [f32]) -> Result<Vec<bool>> {
        let _ieee = Ieee::set();
        self.check(batch, logits.len())?;
        let threads = self.grow(batch.threads)?;
        // SAFETY: the weights are complete, so their memory stays until the model is dropped, which is later.
        self.pages
            .get_or_insert_with(|| unsafe { HugePages::begin(self.model.memory()) });
        for (id, count) in batch.sequences.iter().zip(batch.counts) {
            if let Some(sequence) = self.sequences.get_mut(id) {
                self.cache.reserve(sequence, sequence.length + count)?;
            }
        }
        let rows: usize = batch.counts.iter().sum();
        let config = &self.model.config;
        let room = |scratch: &mut Scratch, width: usize| scratch.room(rows * width).map(Shared);
        let pass = Pass {
            x: room(&mut self.rooms.x, config.dim)?,
            a: room(&mut self.rooms.a, config.dim)?,
            q: room(&mut self.rooms.q, config.dim)?,
            f: room(&mut self.rooms.f, config.ffn)?,
            rounded: match config.precision {
                Precision::Float32 => Shared(std::ptr::null_mut()),
                Precision::Int8 => {
                    let bytes = row_bytes(rows, config.dim.max(config.ffn));
                    Shared(
                        self.rooms
                            .rounded
                            .room(bytes.div_ceil(size_of::<f32>()))?
                            .cast(),
                    )
                }
            },
            config,
            set: self.set,
            most: self.shape.rows,
            angles: self.angles.as_ref(),
            layout: self.cache.layout(),
            rooms: &self.threads,
            threads,
        };
        let plan = Plan::new(batch, &self.sequences, config, self.shape)?;
        let last = config.layers - 1;
        let mut finite = Vec::new();
        // SAFETY: there is room for all rows.
        unsafe { std::ptr::copy_nonoverlapping(batch.x.as_ptr(), pass.x.get(), rows * config.dim) };
        for (number, layer) in self.model.layers.iter().enumerate() {
            let [qkv, out, up, down] = layer
                .products
                .each_ref()
                .map(|product| product.as_ref().ok_or(INCOMPLETE));
            pass.norm(&mut self.pool, &layer.norms[0], &plan.all.rows)?;
            pass.qkv(&mut self.pool, qkv?, &plan, number)?;
            let mut part = &plan.all;
            if number == last {
                finite = pass.finite(batch.counts.iter().copied());
                // From here on, the other rows need only keys and values.
                pass.keep(&plan.ends);
                part = &plan.wanted;
                if plan.ends.is_empty() {
                    break;
                }
            }
            pass.attend(&mut self.pool, &plan.tables, part, number)?;
            pass.add(&mut self.pool, out?, &part.rows, pass.a)?;
            pass.norm(&mut self.pool, &layer.norms[1], &part.rows)?;
            pass.up(&mut self.pool, up?, &part.rows)?;
            pass.add(&mut self.pool, down?, &part.rows, pass.f)?;
        }
        if !plan.ends.is_empty() {
            let wanted = batch
                .wanted
                .iter()
                .zip(&mut finite)
                .filter(|(wanted, _)| **wanted);
            for ((_, finite), end) in wanted.zip(pass.finite(plan.ends.iter().map(|_| 1))) {
                *finite &= end;
            }
            let head = self.model.head.as_ref().ok_or(INCOMPLETE)?;
            pass.norm(&mut self.pool, &self.model.last, &plan.wanted.rows)?;
            pass.head(
                &mut self.pool,
                head,
                &plan.wanted.rows,
                Shared(logits.as_mut_ptr()),
            )?;
        }
        for (id, count) in batch.sequences.iter().zip(batch.counts) {
            if let Some(sequence) = self.sequences.get_mut(id) {
                sequence.length += count;
            }
        }
        self.pool.forgive();
        Ok(finite)
    }

    fn check(&self, batch: &Batch<'_>, logits: usize) -> Result<()> {
        let config = &self.model.config;
        let invalid = |message: String| Err(Error::invalid(message));
        if let Some(name) = self.model.missing().first() {
            return invalid(format!("the weights are not complete: {name} is missing"));
        }
        let count = batch.sequences.len();
        if batch.counts.len() != count || batch.wanted.len() != count {
            return invalid("there must be as many counts and flags as sequences".into());
        }
        let mut rows = 0_usize;
        for (i, (id, positions)) in batch.sequences.iter().zip(batch.counts).enumerate() {
            let sequence = self.sequence(*id)?;
            if batch.sequences[..i].contains(id) {
                return invalid("a sequence is there twice".into());
            }
            let room = sequence.most - sequence.length;
            if !(1..=room).contains(positions) {
                return invalid(format!(
                    "a sequence of {} positions has room for 1 to {room} more, not {positions}",
                    sequence.length
                ));
            }
            rows = rows.saturating_add(*positions);
        }
        if !(1..=MOST_ROWS).contains(&rows) {
            return invalid(format!(
                "there must be from 1 to {MOST_ROWS} rows, not {rows}"
            ));
        }
        if batch.x.len() != rows * config.dim {
            return invalid(format!(
                "x must have {rows} x {} numbers, not {}",
                config.dim,
                batch.x.len()
            ));
        }
        let wanted = batch.wanted.iter().filter(|wanted| **wanted).count();
        if logits != wanted * config.vocab {
            return invalid(format!(
                "the logits must have {wanted} x {} numbers, not {logits}",
                config.vocab
            ));
        }
        Ok(())
    }
}

const INCOMPLETE: Error = Error {
    code: crate::error::Code::Internal,
    message: String::new(),
};

/// Rows in the order in which a product goes through them.
struct Rows {
    tiles: Vec<Tile>,
    /// Where each row is written: in its tile, or row after row if it is rounded before a product.
    lanes: Vec<Lane>,
    /// Where each row is in its tile when it is rounded; empty if it is not.
    rounded: Vec<Lane>,
}

impl Rows {
    fn new(count: usize, shape: Shape) -> Self {
        let tiles = tiles(count, shape.rows);
        let (lanes, rounded) = match shape.rounds {
            false => (Lane::of(&tiles), Vec::new()),
            true => (Lane::of(&self::tiles(count, 1)), Lane::of(&tiles)),
        };
        Self {
            lanes,
            rounded,
            tiles,
        }
    }
}

/// Rows that pass through a layer together, and how they attend.
struct Part {
    rows: Rows,
    groups: Vec<Group>,
}

/// The parts of a forward pass that are the same for all layers.
struct Plan {
    all: Part,
    /// The rows whose logits are wanted, numbered from 0.
    wanted: Part,
    /// Which rows of all these are, in ascending order.
    ends: Vec<usize>,
    /// For each row, its block's first number and its position in its sequence.
    places: Vec<(Shared<f32>, usize)>,
    tables: Vec<Vec<Shared<f32>>>,
}

impl Plan {
    fn new(
        batch: &Batch<'_>,
        sequences: &HashMap<Id, Sequence>,
        config: &Config,
        shape: Shape,
    ) -> Result<Self> {
        let mut places = Vec::new();
        let mut tables: Vec<Vec<Shared<f32>>> = Vec::new();
        let mut groups = Vec::new();
        let mut ends = Vec::new();
        let mut wanted: Vec<Query> = Vec::new();
        let mut single: Vec<Query> = Vec::new();
        for (number, (id, count)) in batch.sequences.iter().zip(batch.counts).enumerate() {
            let Some(sequence) = sequences.get(id) else {
                continue;
            };
            tables.push(
                sequence
                    .blocks
                    .iter()
                    .map(|block| Shared(block.start()))
                    .collect(),
            );
            let first = places.len();
            let mut queries: Vec<Query> = Vec::new();
            for i in 0..*count {
                let position = sequence.length + i;
                places.push((tables[number][position / POSITIONS], position));
                queries.push(Query {
                    row: first + i,
                    table: number,
                    end: position + 1,
                });
            }
            if *count == 1 {
                single.append(&mut queries);
            }
            for tile in tiles(queries.len(), shape.queries) {
                let queries = queries[tile.first..][..tile.rows].to_vec();
                groups.push(Group {
                    common: queries[0].end / POSITIONS,
                    queries,
                });
            }
            if batch.wanted[number] {
                wanted.push(Query {
                    row: ends.len(),
                    table: number,
                    end: sequence.length + count,
                });
                ends.push(first + count - 1);
            }
        }
        groups.append(&mut grouped(&tables, single, shape.queries));
        debug_assert!(
            tables
                .iter()
                .all(|table| table.len() <= config.positions.div_ceil(POSITIONS))
        );
        Ok(Self {
            all: Part {
                rows: Rows::new(places.len(), shape),
                groups,
            },
            wanted: Part {
                rows: Rows::new(ends.len(), shape),
                groups: grouped(&tables, wanted, shape.queries),
            },
            ends,
            places,
            tables,
        })
    }
}

/// Groups single rows that begin with the same blocks.
fn grouped(tables: &[Vec<Shared<f32>>], single: Vec<Query>, most: usize) -> Vec<Group> {
    let mut alike: Vec<Vec<Query>> = Vec::new();
    for query in single {
        let first = tables[query.table][0].0;
        match alike
            .iter_mut()
            .find(|group| tables[group[0].table][0].0 == first)
        {
            Some(group) => group.push(query),
            None => alike.push(vec![query]),
        }
    }
    let mut groups = Vec::new();
    for queries in alike {
        for tile in tiles(queries.len(), most) {
            let queries = queries[tile.first..][..tile.rows].to_vec();
            let common = match queries.len() {
                1 => 0,
                _ => common(tables, &queries),
            };
            groups.push(Group { queries, common });
        }
    }
    groups
}

/// How many whole blocks the rows share, from the first on.
fn common(tables: &[Vec<Shared<f32>>], queries: &[Query]) -> usize {
    let whole = queries
        .iter()
        .map(|query| query.end / POSITIONS)
        .min()
        .unwrap_or(0);
    let table = &tables[queries[0].table];
    (0..whole)
        .take_while(|block| {
            queries
                .iter()
                .all(|query| tables[query.table][*block].0 == table[*block].0)
        })
        .count()
}

/// The buffers of one forward pass.
struct Pass<'a> {
    /// The hidden state, row after row.
    x: Shared<f32>,
    /// The input of the next product, tiled.
    a: Shared<f32>,
    /// Queries, row after row.
    q: Shared<f32>,
    /// The inside of the feed-forward part, tiled.
    f: Shared<f32>,
    /// The input of the next product, in 8 bits.
    rounded: Shared<u8>,
    config: &'a Config,
    set: InstructionSet,
    most: usize,
    angles: Option<&'a Angles>,
    layout: Layout,
    rooms: &'a [Mutex<ThreadRooms>],
    threads: usize,
}

impl Pass<'_> {
    /// From `x` to `a`.
    fn norm(&self, pool: &mut Pool, weights: &NormWeights, rows: &Rows) -> Result<()> {
        let dim = self.config.dim;
        pool.run(self.threads, rows.lanes.len(), &|row, thread| {
            let mut room = self.room(thread);
            room.row.resize(dim, 0.0);
            // SAFETY: the row exists, and nobody writes it in this part.
            let x = unsafe { std::slice::from_raw_parts(self.x.get().add(row * dim), dim) };
            self.set.run(NormRow {
                norm: self.config.norm(),
                x,
                weight: &weights.weight,
                bias: &weights.bias,
                eps: self.config.eps,
                to: &mut room.row,
            });
            // SAFETY: each piece has its own row.
            unsafe { rows.lanes[row].write(self.a.get(), dim, 0, &room.row) };
        })
    }

    /// Whether the hidden state is finite, for each of the consecutive groups with `counts` rows.
    fn finite(&self, counts: impl Iterator<Item = usize>) -> Vec<bool> {
        let dim = self.config.dim;
        let mut first = 0;
        counts
            .map(|count| {
                // SAFETY: the rows exist, and nobody writes them between two parts.
                let x = unsafe {
                    std::slice::from_raw_parts(self.x.get().add(first * dim), count * dim)
                };
                first += count;
                x.iter().all(|x| x.is_finite())
            })
            .collect()
    }

    /// Moves the hidden states and the queries of some rows, in ascending order, to the front.
    fn keep(&self, ends: &[usize]) {
        let dim = self.config.dim;
        for (to, from) in ends.iter().enumerate() {
            for rows in [self.x, self.q] {
                // SAFETY: both rows exist, and nobody else uses them between two parts.
                unsafe {
                    std::ptr::copy(rows.get().add(from * dim), rows.get().add(to * dim), dim)
                };
            }
        }
    }

    fn qkv(&self, pool: &mut Pool, linear: &Linear, plan: &Plan, layer: usize) -> Result<()> {
        let finish = Qkv {
            bias: &linear.bias,
            dim: self.config.dim,
            places: &plan.places,
            angles: self.angles,
            layout: self.layout,
            layer,
            q: self.q,
        };
        self.product(pool, linear, &plan.all.rows, self.a, &finish)
    }

    fn attend(
        &self,
        pool: &mut Pool,
        tables: &[Vec<Shared<f32>>],
        part: &Part,
        layer: usize,
    ) -> Result<()> {
        let heads = self.config.heads;
        let failed = Mutex::new(None);
        pool.run(self.threads, heads * part.groups.len(), &|piece, thread| {
            let (head, group) = (piece % heads, &part.groups[piece / heads]);
            let mut room = self.room(thread);
            let room = &mut *room;
            let scratch = match room.attention.room(group.scratch()) {
                Ok(scratch) => scratch,
                Err(error) => {
                    *failed
                        .lock()
                        .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
                    return;
                }
            };
            self.set.run(Attend {
                group,
                tables,
                at: self.layout.at(layer, head),
                q: self.q.get(),
                dim: self.config.dim,
                head,
                scratch,
                lanes: &part.rows.lanes,
                to: self.a.get(),
                walk: &mut room.walk,
            });
        })?;
        match failed
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
        {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    fn up(&self, pool: &mut Pool, linear: &Linear, rows: &Rows) -> Result<()> {
        let ffn = self.config.ffn;
        match self.config.backbone {
            Backbone::Gpt2 => {
                let finish = Gelu {
                    bias: &linear.bias,
                    lanes: &rows.lanes,
                    to: self.f,
                    ffn,
                };
                self.product(pool, linear, rows, self.a, &finish)
            }
            Backbone::Llama => {
                let finish = SwiGlu {
                    lanes: &rows.lanes,
                    to: self.f,
                    ffn,
                };
                self.product(pool, linear, rows, self.a, &finish)
            }
        }
    }

    /// Adds a product to `x`.
    fn add(&self, pool: &mut Pool, linear: &Linear, rows: &Rows, from: Shared<f32>) -> Result<()> {
        let finish = Add {
            bias: &linear.bias,
            x: self.x,
            dim: self.config.dim,
        };
        self.product(pool, linear, rows, from, &finish)
    }

    fn head(
        &self,
        pool: &mut Pool,
        linear: &Linear,
        rows: &Rows,
        logits: Shared<f32>,
    ) -> Result<()> {
        let finish = Outputs {
            bias: &linear.bias,
            to: logits,
            outputs: self.config.vocab,
        };
        self.product(pool, linear, rows, self.a, &finish)
    }

    fn product<F: Finish>(
        &self,
        pool: &mut Pool,
        linear: &Linear,
        rows: &Rows,
        from: Shared<f32>,
        finish: &F,
    ) -> Result<()> {
        let groups: Vec<&[Tile]> = rows.tiles.chunks(GROUP / self.most).collect();
        let panels = linear.weights.panels();
        if let Matrix::Int8(weights) = &linear.weights {
            pool.run(self.threads, rows.rounded.len(), &|row, _| {
                let inputs = weights.inputs();
                // SAFETY: rows lie one after the other, and nobody writes them in this part.
                let x = unsafe { std::slice::from_raw_parts(from.get().add(row * inputs), inputs) };
                self.set.run(Round {
                    x,
                    lane: rows.rounded[row],
                    to: self.rounded.get(),
                });
            })?;
        }
        let failed = Mutex::new(None);
        pool.run(self.threads, panels * groups.len(), &|piece, thread| {
            let mut room = self.room(thread);
            let sums = match room.sums.room(GROUP * PANEL) {
                Ok(sums) => sums,
                Err(error) => {
                    *failed
                        .lock()
                        .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
                    return;
                }
            };
            let (panel, tiles) = (piece % panels, groups[piece / panels]);
            match &linear.weights {
                Matrix::Float32(weights) => self.set.run(Piece {
                    rows: from.get(),
                    weights,
                    panel,
                    tiles,
                    sums,
                    finish,
                }),
                Matrix::Int8(weights) => self.set.run_int(Piece8 {
                    rows: self.rounded.get(),
                    weights,
                    panel,
                    tiles,
                    sums,
                    finish,
                }),
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

    fn room(&self, thread: usize) -> std::sync::MutexGuard<'_, ThreadRooms> {
        self.rooms[thread]
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Turns queries and keys, scales queries, and writes keys and values into the cache.
struct Qkv<'a> {
    bias: &'a [f32],
    dim: usize,
    places: &'a [(Shared<f32>, usize)],
    angles: Option<&'a Angles>,
    layout: Layout,
    layer: usize,
    q: Shared<f32>,
}

/// One over the square root of the size of a head: a power of two, so scaling is exact.
const SCALE: f32 = 0.125;

impl Finish for Qkv<'_> {
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, s: S, row: usize, panel: usize, sums: [S::V; 2]) {
        let [mut a, mut b] = biased(s, self.bias, panel, sums);
        let panels = self.dim / PANEL;
        let (part, half) = (panel / panels, panel % 2);
        let head = panel % panels / 2;
        let (block, position) = self.places[row];
        let mut at = [half * PANEL, half * PANEL + LANES];
        if let (Some(angles), 0 | 1) = (self.angles, part) {
            let angles = &angles.at(position)[half * LANES..];
            // SAFETY: 32 cosines and 32 sines; the halves begin at 0 or 16.
            let (cos, sin) = unsafe {
                (
                    s.load(angles.as_ptr()),
                    s.load(angles.as_ptr().add(HEAD / 2)),
                )
            };
            let zero = s.splat(0.0);
            (a, b) = (
                s.fma(a, cos, s.sub(zero, s.mul(b, sin))),
                s.fma(b, cos, s.mul(a, sin)),
            );
            at = [half * LANES, HEAD / 2 + half * LANES];
        }
        for (v, at) in [a, b].into_iter().zip(at) {
            // SAFETY: a row of queries has 64 numbers for each head; the block has those of every layer and head;
            // this row's position in it is ours.
            unsafe {
                match part {
                    0 => s.store(
                        self.q.get().add(row * self.dim + head * HEAD + at),
                        s.mul(v, s.splat(SCALE)),
                    ),
                    1 => {
                        let keys = block
                            .0
                            .add(self.layout.at(self.layer, head) + position % POSITIONS);
                        for (i, x) in s.array(v).into_iter().enumerate() {
                            *keys.add((at + i) * POSITIONS) = x;
                        }
                    }
                    _ => {
                        let values = block.get().add(self.layout.at(self.layer, head) + PART);
                        s.store(values.add(position % POSITIONS * HEAD + at), v);
                    }
                }
            }
        }
    }
}

/// Adds to the hidden state.
struct Add<'a> {
    bias: &'a [f32],
    x: Shared<f32>,
    dim: usize,
}

impl Finish for Add<'_> {
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, s: S, row: usize, panel: usize, sums: [S::V; 2]) {
        for (half, v) in biased(s, self.bias, panel, sums).into_iter().enumerate() {
            // SAFETY: the width is a multiple of a panel's; the row is there.
            unsafe {
                let x = self
                    .x
                    .get()
                    .add(row * self.dim + panel * PANEL + half * LANES);
                s.store(x, s.add(s.load(x), v));
            }
        }
    }
}

struct Gelu<'a> {
    bias: &'a [f32],
    lanes: &'a [Lane],
    to: Shared<f32>,
    ffn: usize,
}

impl Finish for Gelu<'_> {
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, s: S, row: usize, panel: usize, sums: [S::V; 2]) {
        for (half, v) in biased(s, self.bias, panel, sums).into_iter().enumerate() {
            let first = panel * PANEL + half * LANES;
            let count = self.ffn.saturating_sub(first).min(LANES);
            let numbers = s.array(gelu(s, v));
            // SAFETY: only columns that are there are written.
            unsafe { self.lanes[row].write(self.to.get(), self.ffn, first, &numbers[..count]) };
        }
    }
}

struct SwiGlu<'a> {
    lanes: &'a [Lane],
    to: Shared<f32>,
    ffn: usize,
}

impl Finish for SwiGlu<'_> {
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, s: S, row: usize, panel: usize, [gate, up]: [S::V; 2]) {
        let first = panel * LANES;
        let count = self.ffn.saturating_sub(first).min(LANES);
        let numbers = s.array(s.mul(silu(s, gate), up));
        // SAFETY: only columns that are there are written.
        unsafe { self.lanes[row].write(self.to.get(), self.ffn, first, &numbers[..count]) };
    }
}

/// All callers with an engine's number share it.
pub type Handle = Arc<Mutex<Engine>>;
