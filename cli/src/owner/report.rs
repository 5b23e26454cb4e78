//! `report.html`: what `compile` decided, as a page that needs nothing else.

use pponnx_compiler::report::Report;

use crate::console::{bytes, count, percent};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25em .8em;border-bottom:1px solid #ddd}
td.n{text-align:right;font-variant-numeric:tabular-nums}tr.local{background:#fff6e5}tr.folded{color:#888}
code{overflow-wrap:anywhere}dl{display:grid;grid-template-columns:max-content 1fr;gap:.2em 1.5em}dt{color:#666}dd{margin:0}";

/// The page.
pub fn html(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{model}: pponnx report</title>\
         <style>{STYLE}</style><h1>{model}</h1><p>{summary}.</p><dl>",
        model = escape(&report.model),
        summary = escape(&report.summary()),
    );
    for (key, value) in [
        ("Scheme", report.scheme.clone()),
        ("Precision", report.precision.clone()),
        ("Bundle", format!("<code>{}</code>", escape(&report.bundle))),
        ("Segments", report.segments.to_string()),
        ("Rounds", report.rounds.to_string()),
        ("Device to edges", bytes(report.bytes_up)),
        ("Edges to device", bytes(report.bytes_down)),
        ("Edge B to edge A", bytes(report.edge_link_bytes)),
        ("Mult-adds", count(report.mult_adds)),
        ("Outsourced share of them", percent(report.outsourced_mac_share)),
    ] {
        page.push_str(&format!("<dt>{key}</dt><dd>{value}</dd>"));
    }
    page.push_str("</dl>");
    if !report.notes.is_empty() {
        page.push_str("<h2>Notes</h2><ul>");
        for note in &report.notes {
            page.push_str(&format!("<li>{}</li>", escape(note)));
        }
        page.push_str("</ul>");
    }
    page.push_str("<h2>Nodes</h2><table><tr><th>Node<th>Operator<th>Runs at<th>Mult-adds<th>Why</tr>");
    for node in &report.nodes {
        page.push_str(&format!(
            "<tr class=\"{place}\"><td><code>{}</code><td>{}<td>{place}<td class=\"n\">{}<td>{}</tr>",
            escape(&node.node),
            escape(&node.op),
            if node.mult_adds == 0 { String::new() } else { count(node.mult_adds) },
            escape(&node.reason),
            place = escape(node.place),
        ));
    }
    page.push_str("</table></html>\n");
    page
}

/// Text for HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
