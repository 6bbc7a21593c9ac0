//! Shows the strength of each frequency over time as colours.

use realfft::RealFftPlanner;

use super::Area;
use crate::error::AudioError;
use crate::samples::reserve;

/// The length of the sound in one spectrum, in seconds.
const WINDOW: f64 = 0.032;
/// The most spectra in one column. With this limit, the work depends on the picture's size and not on the length
/// of the audio.
const MOST_SPECTRA: usize = 4;
/// Levels more than this many dB below the highest are black.
const RANGE: f32 = 80.0;
/// From the least to the most: the colours of "inferno", which grow lighter evenly.
const COLOURS: [[f32; 3]; 5] = [
    [0.0, 0.0, 4.0],
    [87.0, 16.0, 110.0],
    [188.0, 55.0, 84.0],
    [249.0, 142.0, 9.0],
    [252.0, 255.0, 164.0],
];

/// The area's pixels, row by row from the highest frequency to 0.
pub fn picture(
    samples: &[f32],
    channels: usize,
    rate: u32,
    area: Area,
) -> Result<Vec<u8>, AudioError> {
    let levels = levels(samples, channels, rate, area)?;
    let highest = levels.iter().copied().fold(f32::NEG_INFINITY, f32::max);

    let pixels = area.width as usize * area.height as usize * 3;
    let mut picture = Vec::new();
    picture
        .try_reserve_exact(pixels)
        .map_err(|_| AudioError::OutOfMemory { bytes: pixels })?;
    picture.extend(
        levels
            .iter()
            .flat_map(|level| colour(1.0 + (level - highest) / RANGE)),
    );
    Ok(picture)
}

/// The area's levels in dB, in the order of its pixels.
fn levels(samples: &[f32], channels: usize, rate: u32, area: Area) -> Result<Vec<f32>, AudioError> {
    let (columns, rows) = (area.width as usize, area.height as usize);
    let frames = samples.len() / channels;
    let mut levels = reserve(columns * rows)?;
    levels.resize(columns * rows, f32::NEG_INFINITY);

    let size = ((f64::from(rate) * WINDOW) as usize)
        .next_power_of_two()
        .clamp(64, 8192);
    let transform = RealFftPlanner::<f32>::new().plan_fft_forward(size);
    let mut input = transform.make_input_vec();
    let mut output = transform.make_output_vec();
    let mut scratch = transform.make_scratch_vec();
    let window = hann(size);

    let spectra = (frames / columns / (size / 2)).clamp(1, (MOST_SPECTRA / channels).max(1));
    let mut power = vec![0.0f32; output.len()];

    for column in 0..columns {
        power.fill(0.0);
        for number in 0..spectra {
            let share = (number as f64 + 0.5) / spectra as f64;
            let centre = ((column as f64 + share) / columns as f64 * frames as f64) as usize;
            for channel in 0..channels {
                for (at, (input, window)) in input.iter_mut().zip(&window).enumerate() {
                    let frame = (centre + at).checked_sub(size / 2);
                    let sample = frame.and_then(|frame| samples.get(frame * channels + channel));
                    *input = sample.copied().unwrap_or(0.0) * window;
                }
                transform
                    .process_with_scratch(&mut input, &mut output, &mut scratch)
                    .map_err(AudioError::failed)?;
                for (power, value) in power.iter_mut().zip(&output) {
                    *power += value.norm_sqr();
                }
            }
        }

        for row in 0..rows {
            // The last row is that of 0 Hz.
            let from_below = rows - 1 - row;
            let first = from_below * power.len() / rows;
            let end = ((from_below + 1) * power.len() / rows).max(first + 1);
            let most = power[first..end].iter().copied().fold(0.0, f32::max);
            levels[row * columns + column] = 10.0 * most.log10();
        }
    }
    Ok(levels)
}

fn hann(size: usize) -> Vec<f32> {
    (0..size)
        .map(|n| std::f32::consts::PI * n as f32 / size as f32)
        .map(|angle| angle.sin().powi(2))
        .collect()
}

/// The colour of a level from 0.0 to 1.0; NaN has the colour of 0.0.
fn colour(level: f32) -> [u8; 3] {
    let steps = (COLOURS.len() - 1) as f32;
    let level = if level.is_nan() { 0.0 } else { level };
    let place = level.clamp(0.0, 1.0) * steps;
    let below = (place as usize).min(COLOURS.len() - 2);
    let share = place - below as f32;
    std::array::from_fn(|part| {
        let [from, to] = [COLOURS[below][part], COLOURS[below + 1][part]];
        (from + share * (to - from)).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sine;

    const AREA: Area = Area {
        x: 0,
        y: 0,
        width: 50,
        height: 100,
    };

    /// The row that is the lightest in a column.
    fn loudest(levels: &[f32], column: usize) -> usize {
        (0..100)
            .max_by(|a, b| levels[a * 50 + column].total_cmp(&levels[b * 50 + column]))
            .unwrap()
    }

    #[test]
    fn a_tone_is_a_line_at_its_height() {
        for (hertz, row) in [(1_200.0, 89), (6_000.0, 49), (10_800.0, 9)] {
            let levels = levels(&sine(hertz, 24_000, 24_000), 1, 24_000, AREA).unwrap();
            for column in [5, 25, 45] {
                assert!(loudest(&levels, column).abs_diff(row) <= 1, "{hertz} Hz");
            }
        }
    }

    #[test]
    fn time_goes_from_left_to_right() {
        let mut samples = sine(6_000.0, 24_000, 24_000);
        samples[12_000..].fill(0.0);
        let levels = levels(&samples, 1, 24_000, AREA).unwrap();
        assert!(levels[50 * 50 + 10] > levels[50 * 50 + 40] + 60.0);
    }

    #[test]
    fn channels_do_not_cancel_each_other() {
        let both: Vec<f32> = sine(6_000.0, 24_000, 24_000)
            .into_iter()
            .flat_map(|sample| [sample, -sample])
            .collect();
        let levels = levels(&both, 2, 24_000, AREA).unwrap();
        assert!(loudest(&levels, 25).abs_diff(49) <= 1);
    }

    #[test]
    fn colours_grow_lighter() {
        let light = |level| colour(level).map(u32::from).iter().sum::<u32>();
        let all: Vec<u32> = (0..=100).map(|n| light(n as f32 / 100.0)).collect();
        assert!(all.is_sorted());
        assert_eq!(colour(-1.0), [0, 0, 4]);
        assert_eq!(colour(f32::NAN), [0, 0, 4]);
        assert_eq!(colour(7.0), [252, 255, 164]);
    }
}
