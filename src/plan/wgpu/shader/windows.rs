//! An operand that is larger than a binding: read through one function that looks which of its
//! windows a row is in. The one text that is written here, because its length depends on their
//! number.

/// `name` in `windows` windows, which are operands of their own: `name0`, `name1`, …
#[derive(Debug)]
pub(super) struct Windows {
    pub(super) name: String,
    pub(super) windows: usize,
}

const FUNCTIONS: [(&str, &str); 2] = [("at", "f32"), ("four", "vec4<f32>")];

impl Windows {
    fn window(&self, at: usize) -> String {
        format!("{}{at}", self.name)
    }

    pub(super) fn gives(&self) -> impl Iterator<Item = String> {
        FUNCTIONS.into_iter().map(|(function, _)| format!("{}_{function}", self.name))
    }

    pub(super) fn needs(&self) -> Vec<String> {
        let windows = (0..self.windows).map(|at| self.window(at));
        let mut needs: Vec<_> = windows
            .clone()
            .flat_map(|window| FUNCTIONS.map(|(function, _)| format!("{window}_{function}")))
            .collect();
        needs.extend(windows.take(self.windows - 1).map(|window| format!("p.{window}")));
        needs
    }

    pub(super) fn render(&self, text: &mut String) {
        let name = &self.name;
        text.push_str(&format!("// {name} · bound in {} windows of its rows\n\n", self.windows));
        for (function, kind) in FUNCTIONS {
            text.push_str(&format!("fn {name}_{function}(row: u32, col: u32) -> {kind} {{\n"));
            text.push_str("    var left = row;\n");
            for at in 0..self.windows - 1 {
                let window = self.window(at);
                text.push_str(&format!(
                    "    if (left <= p.{window}.last_row) {{ return {window}_{function}(left, col); }}\n    \
                     left -= p.{window}.last_row + 1u;\n",
                ));
            }
            let last = self.window(self.windows - 1);
            text.push_str(&format!("    return {last}_{function}(left, col);\n}}\n"));
        }
    }
}
