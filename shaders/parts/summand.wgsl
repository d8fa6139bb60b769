// summand · an element of s·w1 ⊗ w2, which is added to w, in f32, however the factors are stored
//
// needs: w1_at, w2_at, p.scale, p.block_rows, p.block_cols
// needs: p.w1_row, p.w1_col, p.w2_row, p.w2_col
// needs: p.first_col // where part
// needs: p.tap_rows, p.tap_cols // where taps
// gives: summand
//
// w2 has block_rows × block_cols of w's rows and columns; where those count taps first, a tap has
// tap_rows × tap_cols of them, and block_rows × block_cols of w2's. What a row and a column add to
// the place of an element of w1 and of w2 is a parameter. Of a part of w its first row is one of all.

fn summand(row: u32, col: u32) -> f32 {
    var of_rows = row;
    of_rows += p.first_col; // where part
    var of_cols = col;
    var inner_row = 0u;
    var inner_col = 0u;
    inner_row = of_rows / p.tap_rows * p.block_rows; // where taps
    inner_col = of_cols / p.tap_cols * p.block_cols; // where taps
    of_rows %= p.tap_rows; // where taps
    of_cols %= p.tap_cols; // where taps
    inner_row += of_rows % p.block_rows;
    inner_col += of_cols % p.block_cols;
    let outer = of_rows / p.block_rows * p.w1_row + of_cols / p.block_cols * p.w1_col;
    let inner = inner_row * p.w2_row + inner_col * p.w2_col;
    return p.scale * w1_at(0u, outer) * w2_at(0u, inner);
}
