// summand_taps · an element of s·w1 ⊗ w2, added to w in f32, where w's columns count taps
//
// needs: w1_at, w2_at, p.scale, p.block_rows, p.block_cols, p.tap_rows, p.tap_cols
// needs: p.w1_row, p.w1_col, p.w2_row, p.w2_col
// gives: summand
//
// A tap has tap_rows × tap_cols of w's rows and columns, and block_rows × block_cols of w2's.
// What a row and a column add to the place of an element of w1 and of w2 is a parameter.

fn summand(row: u32, col: u32) -> f32 {
    let of_tap_row = row % p.tap_rows;
    let of_tap_col = col % p.tap_cols;
    let w2_row = row / p.tap_rows * p.block_rows + of_tap_row % p.block_rows;
    let w2_col = col / p.tap_cols * p.block_cols + of_tap_col % p.block_cols;
    let outer = of_tap_row / p.block_rows * p.w1_row + of_tap_col / p.block_cols * p.w1_col;
    let inner = w2_row * p.w2_row + w2_col * p.w2_col;
    return p.scale * w1_at(0u, outer) * w2_at(0u, inner);
}
