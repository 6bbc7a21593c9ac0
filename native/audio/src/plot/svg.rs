//! Draws marks as SVG.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Anchor, Colour, Mark, Size, TEXT, raster};
use crate::error::AudioError;

pub fn render(marks: &[Mark], size: Size) -> Result<Vec<u8>, AudioError> {
    let mut svg = String::new();
    write(&mut svg, marks, size)?;
    Ok(svg.into_bytes())
}

fn write(svg: &mut String, marks: &[Mark], size: Size) -> Result<(), AudioError> {
    let Size { width, height } = size;
    let mut put =
        |arguments: std::fmt::Arguments| svg.write_fmt(arguments).map_err(AudioError::failed);

    put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n"
    ))?;

    for mark in marks {
        match mark {
            Mark::Fill(area, colour) => put(format_args!(
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"/>\n",
                area.x,
                area.y,
                area.width,
                area.height,
                hex(*colour)
            ))?,
            Mark::Columns(area, columns, colour) => {
                put(format_args!("<path stroke=\"{}\" d=\"", hex(*colour)))?;
                for (x, (top, bottom)) in (area.x..).zip(columns) {
                    put(format_args!("M{x}.5 {top}V{}", bottom + 1))?;
                }
                put(format_args!("\"/>\n"))?;
            }
            Mark::Pixels(area, pixels) => {
                let png = raster::png(pixels, area.width, area.height)?;
                put(format_args!(
                    "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" \
                     href=\"data:image/png;base64,{}\"/>\n",
                    area.x,
                    area.y,
                    area.width,
                    area.height,
                    STANDARD.encode(png)
                ))?;
            }
            Mark::Text { x, y, anchor, text } => {
                let anchor = match anchor {
                    Anchor::Middle => "middle",
                    Anchor::End => "end",
                };
                put(format_args!(
                    "<text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\" fill=\"{}\">{text}</text>\n",
                    y + 4,
                    hex(TEXT)
                ))?;
            }
        }
    }
    put(format_args!("</svg>\n"))
}

fn hex([red, green, blue]: Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}
