//! The tables of `inspect` as one HTML page without anything from outside.

use std::fmt::Write as _;

use snapc_ir::Graph;
use snapc_ir::cost::{Cost, block_costs, graph_cost};

use super::{COST_COLUMNS, cost_figures};

const STYLE: &str = "\
body{font:14px/1.4 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em}\
table{border-collapse:collapse;width:100%;margin:.5em 0 2em}\
th,td{padding:.25em .6em;text-align:right;border-bottom:1px solid #8884}\
th:first-child,td:first-child{text-align:left}\
th{cursor:pointer}\
td.bar{width:20%}\
td.bar div{height:.8em;background:#4a7dbd}";

/// Sorts a table by the column whose title is clicked: names up, numbers down, by what `data-n` says.
const SORT: &str = "\
for(const th of document.querySelectorAll('th'))th.onclick=()=>{\
const body=th.closest('table').tBodies[0],i=th.cellIndex,\
key=r=>{const c=r.cells[i];return 'n' in c.dataset?-c.dataset.n:c.textContent};\
body.append(...[...body.rows].sort((a,b)=>{const x=key(a),y=key(b);return x<y?-1:x>y?1:0}))};";

/// The page: a table of the graphs, then for each one of its blocks with a bar for the share of its multiply-adds.
pub fn page(title: &str, graphs: &[&Graph], depth: usize) -> String {
    let title = escape(title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    let totals: Vec<(String, Cost)> = graphs
        .iter()
        .map(|g| (g.name().to_owned(), graph_cost(g)))
        .collect();
    table(&mut page, "graph", &totals);
    for graph in graphs {
        let blocks: Vec<(String, Cost)> = block_costs(graph, depth).into_iter().collect();
        let _ = writeln!(page, "<h2>{}</h2>", escape(graph.name()));
        table(&mut page, "block", &blocks);
    }
    let _ = writeln!(page, "<script>{SORT}</script>");
    page
}

fn table(page: &mut String, kind: &str, rows: &[(String, Cost)]) {
    page.push_str("<table>\n<thead><tr>");
    for title in [kind].iter().chain(&COST_COLUMNS).chain(&["share of MACs"]) {
        let _ = write!(page, "<th>{title}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    let total: u64 = rows.iter().map(|(_, cost)| cost.macs).sum();
    for (name, cost) in rows {
        let _ = write!(page, "<tr><td>{}</td>", escape(name));
        for (number, text) in cost_figures(cost) {
            let _ = write!(page, "<td data-n=\"{number}\">{text}</td>");
        }
        let share = 100.0 * cost.macs as f64 / total.max(1) as f64;
        let _ = writeln!(
            page,
            "<td class=\"bar\" data-n=\"{}\"><div style=\"width:{share:.1}%\"></div></td></tr>",
            cost.macs
        );
    }
    page.push_str("</tbody>\n</table>\n");
}

/// Text for element content and double-quoted attributes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapc_ir::ops::Linear;
    use snapc_ir::{DType, LazyTensor, Shape, TensorType};

    #[test]
    fn a_page_has_a_row_per_block_and_escapes_names() {
        let mut graph = Graph::new("g");
        let x = graph.input("x", TensorType::new(DType::F32, Shape::fixed(&[2, 3])));
        let w = graph.parameter("w", LazyTensor::absent(DType::F32, &[5, 3]));
        for name in ["a<b.fc", "mid.fc"] {
            let y = graph.add(Linear {}, &[x, w], name).unwrap();
            graph.output(name, y);
        }
        let page = page("tiny & small", &[&graph], 1);
        assert!(page.contains("<title>tiny &amp; small</title>"));
        assert!(page.contains("<td>a&lt;b</td><td data-n=\"1\">1</td><td data-n=\"15\">15</td>"));
        // Each block has one of the two equal products.
        assert_eq!(page.matches("width:50.0%").count(), 2);
        assert!(!page.contains("http"));
    }
}
