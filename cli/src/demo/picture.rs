//! The picture of the demonstration: the input beside what each edge saw.

use std::fmt::Write;

use crate::console::{bytes, percent};
use crate::owner::report::escape;

/// A grid of grey values, 0 black to 255 white.
pub struct Grid {
    /// Number of columns.
    pub columns: usize,
    /// Values, row by row.
    pub values: Vec<u8>,
}

impl Grid {
    /// The upper 8 bits of each `k`-bit element of a packed tensor: what an edge would see if it drew the tensor.
    pub fn of_packed(payload: &[u8], k: u32, columns: usize) -> Grid {
        let k = k as usize;
        let elements = payload.len() * 8 / k.max(1);
        let bit = |i: usize| payload.get(i / 8).map_or(0, |b| b >> (i % 8) & 1);
        let top = |e: usize| (0..8).fold(0u8, |v, b| v | bit(e * k + k.saturating_sub(8) + b) << b);
        Grid { columns: columns.max(1), values: (0..elements).map(top).collect() }
    }

    /// As SVG, each value a square of `size` pixels.
    pub fn svg(&self, size: usize) -> String {
        let rows = self.values.len().div_ceil(self.columns);
        let (w, h) = (self.columns * size, rows * size);
        let mut svg = format!(
            "<svg width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {} {rows}\" shape-rendering=\"crispEdges\">",
            self.columns
        );
        for (i, v) in self.values.iter().enumerate() {
            let (x, y) = (i % self.columns, i / self.columns);
            // Writing to a string cannot fail.
            let _ = write!(svg, "<rect x=\"{x}\" y=\"{y}\" width=\"1\" height=\"1\" fill=\"#{v:02x}{v:02x}{v:02x}\"/>");
        }
        svg.push_str("</svg>");
        svg
    }

    /// As text, two characters a value, dark ink on light paper.
    pub fn ascii(&self) -> Vec<String> {
        const INK: &[u8] = b" .:-=+*#%@";
        let shade = |v: &u8| {
            let step = usize::from(255 - v) * (INK.len() - 1) / 255;
            let ink = INK.get(step).map_or(' ', |c| char::from(*c));
            [ink, ink]
        };
        self.values.chunks(self.columns).map(|row| row.iter().flat_map(shade).collect()).collect()
    }
}

/// One tensor that edge A received.
pub struct Seen {
    /// Segment and shape.
    pub caption: String,
    /// What it looks like.
    pub grid: Grid,
}

/// What the page shows.
pub struct Page<'a> {
    /// The device's input.
    pub input: Grid,
    /// What edge A received from the device.
    pub edge_a: Vec<Seen>,
    /// What edge B received from the device: kinds of messages, each with how many.
    pub edge_b: Vec<(String, usize)>,
    /// Classes with our score and plaintext's.
    pub classes: Vec<(String, f64, f64)>,
    /// `scheme` and `precision`.
    pub settings: (&'a str, &'a str),
    /// Waits of the device.
    pub rounds: u64,
    /// Payload bytes.
    pub up: u64,
    /// Payload bytes.
    pub down: u64,
    /// Share of mult-adds.
    pub share: f64,
    /// Difference from plaintext.
    pub max_rel_err: f64,
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:62em;padding:0 1em;color:#222}
.row{display:flex;flex-wrap:wrap;gap:2em;align-items:flex-start}figure{margin:0 0 1em}figcaption{color:#555;max-width:18em}
svg{border:1px solid #999;max-width:100%;height:auto}table{border-collapse:collapse}td,th{padding:.15em 1em .15em 0;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}.banner{background:#fff6e5;padding:.6em 1em;border-left:4px solid #e0a030}";

/// The page, which needs no other file.
pub fn html(page: &Page<'_>) -> String {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>pponnx demo</title><style>{STYLE}</style>\
         <h1>What each party saw</h1><p class=\"banner\">All three parties ran on one machine here, so this shows how it \
         works and protects nothing: privacy needs two edges whose operators do not collude.</p><div class=\"row\">"
    );
    let _ = write!(
        out,
        "<figure>{}<figcaption><b>The device</b> sees its input, {} values.</figcaption></figure>",
        page.input.svg(24),
        page.input.values.len()
    );
    for (i, seen) in page.edge_a.iter().enumerate() {
        let size = (192 / seen.grid.columns.max(1)).clamp(3, 24);
        let _ = write!(
            out,
            "<figure>{}<figcaption>{}{}</figcaption></figure>",
            seen.grid.svg(size),
            match (i, page.settings.0) {
                (_, "plain") => "<b>Edge A</b> receives the values themselves: ",
                (0, _) => "<b>Edge A</b> receives this instead: ",
                (_, _) => "<b>Edge A</b>, later: ",
            },
            escape(&seen.caption)
        );
    }
    out.push_str("</div><p><b>Edge B</b> receives nothing that depends on the input: ");
    let kinds: Vec<String> = page.edge_b.iter().map(|(kind, n)| format!("{n} {}", escape(kind))).collect();
    if kinds.is_empty() {
        out.push_str("this scheme has no edge B.");
    } else {
        let _ =
            write!(out, "{} from the device, that is greetings, a random nonce and request numbers.", kinds.join(", "));
    }
    out.push_str("</p><table><tr><th>class<th>private<th>plaintext</tr>");
    for (label, ours, plain) in &page.classes {
        let _ = write!(out, "<tr><td>{}<td class=\"n\">{ours:.5}<td class=\"n\">{plain:.5}</tr>", escape(label));
    }
    let _ = writeln!(
        out,
        "</table><p>Scheme {}, precision {}: {} of the mult-adds outsourced, {} rounds, {} up, {} down, largest \
         difference from plaintext {:.1e}.</p></html>",
        page.settings.0,
        page.settings.1,
        percent(page.share),
        page.rounds,
        bytes(page.up),
        bytes(page.down),
        page.max_rel_err,
    );
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn upper_bits_are_found_across_bytes() {
        // Elements of 12 bits, little-endian: 0xabc, 0x123.
        let grid = Grid::of_packed(&[0xbc, 0x3a, 0x12], 12, 2);
        assert_eq!(grid.values, [0xab, 0x12]);
        // 32 bits: the last byte of each.
        assert_eq!(Grid::of_packed(&[1, 2, 3, 4, 5, 6, 7, 8], 32, 1).values, [4, 8]);
    }

    #[test]
    fn ink_is_dark() {
        let grid = Grid { columns: 2, values: vec![0, 255, 255, 0] };
        assert_eq!(grid.ascii(), ["@@  ", "  @@"]);
        assert_eq!(grid.svg(1).matches("<rect").count(), 4);
    }
}
