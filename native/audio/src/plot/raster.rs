//! Draws marks as PNG.

use png::{BitDepth, ColorType, Encoder};

use super::{Anchor, Area, Colour, Mark, Size, TEXT};
use crate::error::AudioError;

const GLYPH_WIDTH: u32 = 5;
const GLYPH_HEIGHT: u32 = 7;

pub fn render(marks: &[Mark], size: Size) -> Result<Vec<u8>, AudioError> {
    let bytes = size.width as usize * size.height as usize * 3;
    let mut pixels = Vec::new();
    pixels
        .try_reserve_exact(bytes)
        .map_err(|_| AudioError::OutOfMemory { bytes })?;
    pixels.resize(bytes, 0);

    let mut canvas = Canvas { pixels, size };
    for mark in marks {
        canvas.draw(mark);
    }
    png(&canvas.pixels, size.width, size.height)
}

/// A PNG file of pixels: red, green and blue, row by row.
pub fn png(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>, AudioError> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, width, height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(AudioError::failed)?;
    writer
        .write_image_data(pixels)
        .map_err(AudioError::failed)?;
    writer.finish().map_err(AudioError::failed)?;
    Ok(file)
}

struct Canvas {
    pixels: Vec<u8>,
    size: Size,
}

impl Canvas {
    fn draw(&mut self, mark: &Mark) {
        match mark {
            Mark::Fill(area, colour) => self.fill(*area, *colour),
            Mark::Columns(area, columns, colour) => {
                for (x, (top, bottom)) in (area.x..).zip(columns) {
                    let column = Area {
                        x,
                        y: *top,
                        width: 1,
                        height: bottom - top + 1,
                    };
                    self.fill(column, *colour);
                }
            }
            Mark::Pixels(area, pixels) => {
                let rows = pixels.chunks_exact(area.width as usize * 3);
                for (y, row) in (area.y..).zip(rows) {
                    for (x, pixel) in (area.x..).zip(row.chunks_exact(3)) {
                        self.set(x, y, [pixel[0], pixel[1], pixel[2]]);
                    }
                }
            }
            Mark::Text { x, y, anchor, text } => {
                let width = text.len() as u32 * (GLYPH_WIDTH + 1);
                let x = match anchor {
                    Anchor::Middle => x.saturating_sub(width / 2),
                    Anchor::End => x.saturating_sub(width),
                };
                self.text(x, y.saturating_sub(GLYPH_HEIGHT / 2), text);
            }
        }
    }

    fn fill(&mut self, area: Area, colour: Colour) {
        for y in area.y..area.y + area.height {
            for x in area.x..area.x + area.width {
                self.set(x, y, colour);
            }
        }
    }

    fn text(&mut self, x: u32, y: u32, text: &str) {
        for (character, left) in text.chars().zip((x..).step_by(GLYPH_WIDTH as usize + 1)) {
            for (row, bits) in (y..).zip(glyph(character)) {
                for column in 0..GLYPH_WIDTH {
                    if bits >> (GLYPH_WIDTH - 1 - column) & 1 == 1 {
                        self.set(left + column, row, TEXT);
                    }
                }
            }
        }
    }

    /// Draws a pixel, unless it is outside the picture.
    fn set(&mut self, x: u32, y: u32, colour: Colour) {
        if x < self.size.width && y < self.size.height {
            let at = (y as usize * self.size.width as usize + x as usize) * 3;
            self.pixels[at..at + 3].copy_from_slice(&colour);
        }
    }
}

/// The characters used in labels, five bits per row.
fn glyph(character: char) -> [u8; GLYPH_HEIGHT as usize] {
    match character {
        '0' => [0x0e, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0e],
        '1' => [0x04, 0x0c, 0x04, 0x04, 0x04, 0x04, 0x0e],
        '2' => [0x0e, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1f],
        '3' => [0x1f, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0e],
        '4' => [0x02, 0x06, 0x0a, 0x12, 0x1f, 0x02, 0x02],
        '5' => [0x1f, 0x10, 0x1e, 0x01, 0x01, 0x11, 0x0e],
        '6' => [0x06, 0x08, 0x10, 0x1e, 0x11, 0x11, 0x0e],
        '7' => [0x1f, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08],
        '8' => [0x0e, 0x11, 0x11, 0x0e, 0x11, 0x11, 0x0e],
        '9' => [0x0e, 0x11, 0x11, 0x0f, 0x01, 0x02, 0x0c],
        '.' => [0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x0c],
        '-' => [0x00, 0x00, 0x00, 0x1f, 0x00, 0x00, 0x00],
        'e' => [0x00, 0x00, 0x0e, 0x11, 0x1f, 0x10, 0x0e],
        'k' => [0x10, 0x10, 0x12, 0x14, 0x18, 0x14, 0x12],
        's' => [0x00, 0x00, 0x0e, 0x10, 0x0e, 0x01, 0x1e],
        'z' => [0x00, 0x00, 0x1f, 0x02, 0x04, 0x08, 0x1f],
        'H' => [0x11, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11],
        _ => [0; GLYPH_HEIGHT as usize],
    }
}
