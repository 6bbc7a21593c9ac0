//! The setup of a Vorbis file, checked before a decoder makes its tables (Vorbis I specification,
//! section 4.2.4).

/// The most bytes for the tables of all codebooks. Encoders need one or two megabytes.
const MOST_TABLES: u64 = 16 << 20;
/// The most dimensions of a codebook that Symphonia reads.
const MOST_DIMENSIONS: u32 = 32;
const MOST_ENTRIES: u32 = 128 * 1024;
/// The highest order of a floor of type 0, which no encoder has written since 2001. Its cost grows with both.
const MOST_ORDER: u32 = 32;
const MOST_BARKS: u32 = 1024;

type Check<T = ()> = Result<T, &'static str>;

/// How a Vorbis stream begins.
pub const MARKER: &[u8] = b"\x01vorbis";

/// Whether a packet that begins with this byte is a header rather than sound.
pub fn is_header(first: u8) -> bool {
    first & 1 == 1
}

/// Checks the three packets that a stream begins with: identification, comment and setup.
///
/// # Errors
/// The problem, in words that follow "is damaged".
pub fn check(packets: &[Vec<u8>]) -> Check {
    let [identification, comment, setup] = packets else {
        return Err("it ends before its sound begins");
    };
    let (Some(&channels), true, Some(setup)) = (
        identification.get(11),
        comment.starts_with(b"\x03vorbis"),
        setup.strip_prefix(b"\x05vorbis"),
    ) else {
        return Err("it does not begin like a Vorbis file");
    };
    if channels == 0 {
        return Err("it has no channels");
    }

    let mut bits = Bits {
        bytes: setup,
        at: 0,
    };

    let mut books = Vec::new();
    let mut tables = 0;
    for _ in 0..bits.count(8)? {
        let book = codebook(&mut bits)?;
        tables += book.bytes;
        if tables > MOST_TABLES {
            return Err("its codebooks need more memory than those of any encoder");
        }
        books.push(book);
    }

    for _ in 0..bits.count(6)? {
        bits.expect(0, 16, "it has a transform of an unknown type")?;
    }
    let floors = bits.count(6)?;
    for _ in 0..floors {
        floor(&mut bits, &books)?;
    }
    let residues = bits.count(6)?;
    for _ in 0..residues {
        residue(&mut bits, &books)?;
    }
    let mappings = bits.count(6)?;
    for _ in 0..mappings {
        mapping(&mut bits, channels.into(), floors, residues)?;
    }
    for _ in 0..bits.count(6)? {
        bits.read(1)?;
        bits.expect(0, 32, "it has a mode of an unknown type")?;
        bits.below(mappings, 8, "a mode uses a mapping that does not exist")?;
    }
    bits.expect(1, 1, "its setup does not end correctly")
}

/// The properties of a codebook that its users need.
struct Book {
    /// Whether it has vectors.
    vectors: bool,
    /// The most bytes that its tables take.
    bytes: u64,
}

fn codebook(bits: &mut Bits) -> Check<Book> {
    bits.expect(0x56_43_42, 24, "a codebook does not begin correctly")?;
    let dimensions = bits.read(16)?;
    let entries = bits.read(24)?;
    if dimensions == 0 || dimensions > MOST_DIMENSIONS || entries == 0 || entries > MOST_ENTRIES {
        return Err("its codebooks are larger than those of any encoder, or empty");
    }

    let lengths = Lengths::read(bits, entries)?;
    let vectors = match bits.read(4)? {
        0 => false,
        kind @ (1 | 2) => {
            bits.skip(64)?;
            let value_bits = u64::from(bits.read(4)?) + 1;
            bits.skip(1)?;
            let values = if kind == 1 {
                root(entries, dimensions)?
            } else {
                entries * dimensions
            };
            bits.skip(u64::from(values) * value_bits)?;
            true
        }
        _ => return Err("a codebook has a lookup table of an unknown type"),
    };

    let vector_bytes = if vectors { 4 * dimensions } else { 0 };
    Ok(Book {
        vectors,
        bytes: lengths.table_bytes()? + u64::from(entries) * u64::from(vector_bytes),
    })
}

/// The largest whole number whose power of `dimensions` is at most `entries`. Symphonia computes it with 32-bit
/// floats, and panics if the result is wrong.
fn root(entries: u32, dimensions: u32) -> Check<u32> {
    let value = (entries as f32).powf(1.0 / dimensions as f32).floor() as u32;
    let below = value.checked_pow(dimensions);
    let above = (value + 1).checked_pow(dimensions);

    match (below, above) {
        (Some(below), Some(above)) if below <= entries && above > entries => Ok(value),
        _ => Err("a codebook has a lookup table of an impossible size"),
    }
}

/// How many codewords there are of each length from 1 to 32.
struct Lengths([u32; 33]);

impl Lengths {
    fn read(bits: &mut Bits, entries: u32) -> Check<Self> {
        let mut lengths = Self([0; 33]);

        if bits.read(1)? == 1 {
            let mut entry = 0;
            let mut length = bits.read(5)? + 1;
            while entry < entries {
                let left = entries - entry;
                let number = bits.read(32 - left.leading_zeros())?;
                if number > left || length > 32 {
                    return Err("a codebook has codewords that are too many or too long");
                }
                lengths.0[length as usize] += number;
                entry += number;
                length += 1;
            }
        } else {
            let sparse = bits.read(1)? == 1;
            for _ in 0..entries {
                if !sparse || bits.read(1)? == 1 {
                    lengths.0[bits.read(5)? as usize + 1] += 1;
                }
            }
        }
        Ok(lengths)
    }

    fn longer_than(&self, length: usize) -> u64 {
        self.0[length + 1..].iter().map(|n| u64::from(*n)).sum()
    }

    /// The bytes in the tables that look up codewords, eight bits at a time.
    fn table_bytes(&self) -> Check<u64> {
        const TABLE: u64 = 256 * 8 + 512;
        const CODEWORD: u64 = 64;
        let codewords = self.longer_than(0);

        // A codebook of one codeword needs no bits.
        let lone = codewords == 1 && self.0[1] == 1;
        let leaves: u64 = (1..33).map(|n| u64::from(self.0[n]) << (32 - n)).sum();
        if codewords > 0 && !lone && leaves != 1 << 32 {
            return Err("a codebook has codewords that leave some out or are the start of others");
        }

        let tables: u64 = [8, 16, 24]
            .into_iter()
            .map(|length| (self.longer_than(length) / 2).min(1 << length))
            .sum();
        Ok((tables + 1) * TABLE + codewords * CODEWORD)
    }
}

fn floor(bits: &mut Bits, books: &[Book]) -> Check {
    match bits.read(16)? {
        0 => {
            let order = bits.read(8)?;
            let rate = bits.read(16)?;
            let barks = bits.read(16)?;
            if order == 0 || order > MOST_ORDER || rate == 0 || barks == 0 || barks > MOST_BARKS {
                return Err("a floor is invalid");
            }
            bits.skip(6 + 8)?;
            let count = bits.count(4)?;
            // Symphonia reads one bit too many for the number, and panics beyond the sixteenth.
            if count == 16 {
                return Err("a floor is invalid");
            }
            for _ in 0..count {
                bits.vectors(books, "a floor uses a codebook that does not exist")?;
            }
            Ok(())
        }
        1 => curve(bits, books),
        _ => Err("it has a floor of an unknown type"),
    }
}

/// A floor of type 1: a curve through points.
fn curve(bits: &mut Bits, books: &[Book]) -> Check {
    let count = books.len() as u32;
    let partitions: Vec<usize> = (0..bits.read(5)?)
        .map(|_| bits.read(4).map(|class| class as usize))
        .collect::<Check<_>>()?;
    let classes = partitions.iter().max().map_or(0, |class| class + 1);

    let mut dimensions = Vec::new();
    for _ in 0..classes {
        dimensions.push(bits.read(3)? + 1);
        let subclasses = bits.read(2)?;
        if subclasses > 0 {
            bits.below(count, 8, "a floor uses a codebook that does not exist")?;
        }
        for _ in 0..1 << subclasses {
            bits.below(count + 1, 8, "a floor uses a codebook that does not exist")?;
        }
    }

    bits.skip(2)?;
    let range = bits.read(4)?;
    let mut points = vec![0, 1 << range];
    for class in partitions {
        for _ in 0..dimensions[class] {
            let point = bits.read(range)?;
            if points.contains(&point) {
                return Err("a floor has two points at one place");
            }
            points.push(point);
        }
    }
    if points.len() > 65 {
        return Err("a floor has more than 65 points");
    }
    Ok(())
}

fn residue(bits: &mut Bits, books: &[Book]) -> Check {
    if bits.read(16)? > 2 {
        return Err("it has a residue of an unknown type");
    }
    let begin = bits.read(24)?;
    let end = bits.read(24)?;
    if end < begin {
        return Err("a residue ends before it begins");
    }
    bits.skip(24)?;
    let classifications = bits.count(6)?;
    bits.below(
        books.len() as u32,
        8,
        "a residue uses a codebook that does not exist",
    )?;

    let mut used = 0;
    for _ in 0..classifications {
        let low = bits.read(3)?;
        let high = if bits.read(1)? == 1 { bits.read(5)? } else { 0 };
        used += low.count_ones() + high.count_ones();
    }
    for _ in 0..used {
        bits.vectors(books, "a residue uses a codebook that does not exist")?;
    }
    Ok(())
}

fn mapping(bits: &mut Bits, channels: u32, floors: u32, residues: u32) -> Check {
    bits.expect(0, 16, "it has a mapping of an unknown type")?;
    let submaps = if bits.read(1)? == 1 {
        bits.count(4)?
    } else {
        1
    };

    if bits.read(1)? == 1 {
        let width = 32 - (channels - 1).leading_zeros();
        for _ in 0..bits.count(8)? {
            let magnitude = bits.read(width)?;
            let angle = bits.read(width)?;
            if magnitude == angle || magnitude.max(angle) >= channels {
                return Err("it couples channels that do not exist");
            }
        }
    }
    bits.expect(0, 2, "it has a mapping of an unknown type")?;

    if submaps > 1 {
        for _ in 0..channels {
            bits.below(submaps, 4, "a mapping uses a part that does not exist")?;
        }
    }
    for _ in 0..submaps {
        bits.skip(8)?;
        bits.below(floors, 8, "a mapping uses a floor that does not exist")?;
        bits.below(residues, 8, "a mapping uses a residue that does not exist")?;
    }
    Ok(())
}

/// Bits of a packet, the least significant first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: u64,
}

impl Bits<'_> {
    /// Reads `count` bits, at most 32.
    fn read(&mut self, count: u32) -> Check<u32> {
        let start = (self.at / 8) as usize;
        self.skip(count.into())?;
        let mut bytes = [0; 8];
        let there = &self.bytes[start..];
        let there = &there[..there.len().min(8)];
        bytes[..there.len()].copy_from_slice(there);

        let shifted = u64::from_le_bytes(bytes) >> ((self.at - u64::from(count)) % 8);
        Ok((shifted & ((1 << count) - 1)) as u32)
    }

    fn skip(&mut self, count: u64) -> Check {
        let end = self.at + count;
        if end > 8 * self.bytes.len() as u64 {
            return Err("its setup ends too early");
        }
        self.at = end;
        Ok(())
    }

    /// Reads a number of things: one more than the value of the bits.
    fn count(&mut self, bits: u32) -> Check<u32> {
        Ok(self.read(bits)? + 1)
    }

    fn expect(&mut self, value: u32, bits: u32, otherwise: &'static str) -> Check {
        self.within(value, value, bits, otherwise)
    }

    fn below(&mut self, limit: u32, bits: u32, otherwise: &'static str) -> Check {
        self.within(0, limit - 1, bits, otherwise)
    }

    fn within(&mut self, least: u32, most: u32, bits: u32, otherwise: &'static str) -> Check {
        if (least..=most).contains(&self.read(bits)?) {
            Ok(())
        } else {
            Err(otherwise)
        }
    }

    /// Reads the number of a codebook that has vectors.
    fn vectors(&mut self, books: &[Book], otherwise: &'static str) -> Check {
        let number = self.read(8)? as usize;
        match books.get(number) {
            Some(book) if book.vectors => Ok(()),
            Some(_) => Err("a codebook has no vectors where some are needed"),
            None => Err(otherwise),
        }
    }
}
