//! Pictures of audio: its waveform and its spectrogram over time.

mod raster;
mod spectrum;
mod svg;

use crate::error::AudioError;
use crate::resample::MOST_CHANNELS;

/// What to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The waveform.
    Waveform,
    /// The spectrogram.
    Spectrogram,
    /// The waveform, and the spectrogram below it.
    Both,
}

/// The kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lines and text, with the spectrogram as an embedded picture.
    Svg,
    /// Pixels.
    Png,
}

/// How large the picture is, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// From left to right.
    pub width: u32,
    /// From top to bottom.
    pub height: u32,
}

impl Size {
    /// The allowed sides: with room for the axes and their labels, and not too large.
    pub const SIDES: std::ops::RangeInclusive<u32> = 160..=4096;
}

type Colour = [u8; 3];

const WHITE: Colour = [255, 255, 255];
const WAVE: Colour = [31, 119, 180];
const GRID: Colour = [200, 200, 200];
const TEXT: Colour = [60, 60, 60];

const LEFT: u32 = 56;
const RIGHT: u32 = 24;
const TOP: u32 = 8;
const BOTTOM: u32 = 24;
const GAP: u32 = 12;

#[derive(Debug, Clone, Copy)]
struct Area {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Middle,
    End,
}

/// A part of a picture. Parts are drawn in order.
enum Mark {
    /// One colour over an area.
    Fill(Area, Colour),
    /// Columns of pixels, each from one row to another, inclusive.
    Columns(Area, Vec<(u32, u32)>, Colour),
    /// A picture of the area's size.
    Pixels(Area, Vec<u8>),
    /// Text, centred on a height.
    Text {
        x: u32,
        y: u32,
        anchor: Anchor,
        text: String,
    },
}

/// Draws samples. With several channels, the waveform shows the range of all of them, and the spectrogram their
/// mean.
///
/// # Errors
/// `ManyChannels`, `OutOfMemory`; `Failed` for a size outside [`Size::SIDES`].
pub fn plot(
    samples: &[f32],
    channels: u32,
    rate: u32,
    view: View,
    size: Size,
    kind: Kind,
) -> Result<Vec<u8>, AudioError> {
    if channels > MOST_CHANNELS {
        return Err(AudioError::ManyChannels {
            channels,
            most: MOST_CHANNELS,
        });
    }
    if !Size::SIDES.contains(&size.width) || !Size::SIDES.contains(&size.height) {
        return Err(AudioError::failed("the picture's size is out of range"));
    }

    let marks = marks(samples, channels as usize, rate, view, size)?;
    match kind {
        Kind::Svg => svg::render(&marks, size),
        Kind::Png => raster::render(&marks, size),
    }
}

fn marks(
    samples: &[f32],
    channels: usize,
    rate: u32,
    view: View,
    size: Size,
) -> Result<Vec<Mark>, AudioError> {
    let whole = Area {
        x: LEFT,
        y: TOP,
        width: size.width - LEFT - RIGHT,
        height: size.height - TOP - BOTTOM,
    };
    let upper = Area {
        height: (whole.height - GAP) / 2,
        ..whole
    };
    let lower = Area {
        y: upper.y + upper.height + GAP,
        height: whole.height - upper.height - GAP,
        ..whole
    };

    let mut marks = vec![Mark::Fill(
        Area {
            x: 0,
            y: 0,
            width: size.width,
            height: size.height,
        },
        WHITE,
    )];
    match view {
        View::Waveform => waveform(&mut marks, whole, samples, channels),
        View::Spectrogram => spectrogram(&mut marks, whole, samples, channels, rate)?,
        View::Both => {
            waveform(&mut marks, upper, samples, channels);
            spectrogram(&mut marks, lower, samples, channels, rate)?;
        }
    }
    seconds(
        &mut marks,
        whole,
        (samples.len() / channels) as f64 / f64::from(rate),
    );
    Ok(marks)
}

fn waveform(marks: &mut Vec<Mark>, area: Area, samples: &[f32], channels: usize) {
    let peak = samples
        .iter()
        .fold(1.0f32, |peak, sample| peak.max(sample.abs()));
    let row = |sample: f32| {
        let place = f64::from(0.5 - 0.5 * sample / peak);
        area.y + (place * f64::from(area.height - 1)).round() as u32
    };

    marks.push(Mark::Fill(area, [248, 248, 248]));
    marks.push(line(area, row(0.0)));
    let mut columns: Vec<(u32, u32)> = (0..area.width)
        .filter_map(|column| {
            let part = part(samples, channels, column, area.width);
            let least = part.iter().copied().reduce(f32::min)?;
            let most = part.iter().copied().reduce(f32::max)?;
            Some((row(most), row(least)))
        })
        .collect();
    // Leave no gap from one column to the next.
    for right in 1..columns.len() {
        let (top, bottom) = columns[right - 1];
        columns[right].0 = columns[right].0.min(bottom + 1);
        columns[right].1 = columns[right].1.max(top.saturating_sub(1));
    }
    marks.push(Mark::Columns(area, columns, WAVE));

    let label = if peak < 1_000.0 {
        short(f64::from(peak), 2)
    } else {
        format!("{peak:.0e}")
    };
    marks.push(left(area, row(peak) + 4, label.clone()));
    marks.push(left(area, row(0.0), "0".into()));
    marks.push(left(area, row(-peak) - 4, format!("-{label}")));
}

/// The samples of one of `columns` columns: at least one frame, if there are any.
fn part(samples: &[f32], channels: usize, column: u32, columns: u32) -> &[f32] {
    let frames = (samples.len() / channels) as u64;
    let at = |column: u32| u64::from(column) * frames / u64::from(columns);
    let start = at(column);
    let end = at(column + 1).max(start + 1).min(frames);
    samples
        .get(start as usize * channels..end as usize * channels)
        .unwrap_or_default()
}

fn spectrogram(
    marks: &mut Vec<Mark>,
    area: Area,
    samples: &[f32],
    channels: usize,
    rate: u32,
) -> Result<(), AudioError> {
    let picture = spectrum::picture(samples, channels, rate, area)?;
    marks.push(Mark::Pixels(area, picture));

    let highest = f64::from(rate) / 2.0;
    let (unit, name) = if highest >= 1_000.0 {
        (1_000.0, "kHz")
    } else {
        (1.0, "Hz")
    };
    for (value, label) in ticks(highest / unit, f64::from(area.height) / 40.0) {
        let share = 1.0 - value * unit / highest;
        let y = area.y + (share * f64::from(area.height - 1)) as u32;
        // Keep the top and bottom labels within the area.
        let y = y.clamp(area.y + 4, area.y + area.height - 5);
        marks.push(left(area, y, format!("{label} {name}")));
    }
    Ok(())
}

fn seconds(marks: &mut Vec<Mark>, area: Area, duration: f64) {
    for (value, label) in ticks(duration, f64::from(area.width) / 90.0) {
        let x = area.x + (value / duration * f64::from(area.width - 1)) as u32;
        marks.push(Mark::Fill(
            Area {
                x,
                y: area.y + area.height,
                width: 1,
                height: 4,
            },
            TEXT,
        ));
        marks.push(Mark::Text {
            x,
            y: area.y + area.height + 13,
            anchor: Anchor::Middle,
            text: format!("{label} s"),
        });
    }
}

fn line(area: Area, y: u32) -> Mark {
    Mark::Fill(
        Area {
            y,
            height: 1,
            ..area
        },
        GRID,
    )
}

fn left(area: Area, y: u32, text: String) -> Mark {
    Mark::Text {
        x: area.x - 4,
        y,
        anchor: Anchor::End,
        text,
    }
}

/// Round numbers from 0 to `end`, about `wanted` of them, and their labels.
fn ticks(end: f64, wanted: f64) -> Vec<(f64, String)> {
    let raw = end / wanted.max(1.0);
    if !(raw.is_normal() && raw > 0.0) {
        return Vec::new();
    }

    let power = 10f64.powf(raw.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let step = power
        * steps
            .into_iter()
            .find(|step| step * power >= raw)
            .unwrap_or(10.0);
    let decimals = (-step.log10().floor()).max(0.0) as usize;

    (0..=(end / step) as u32)
        .map(|number| f64::from(number) * step)
        .map(|value| (value, short(value, decimals)))
        .collect()
}

/// A number without trailing zeros.
fn short(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests;
