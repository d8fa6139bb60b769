// summand · an element of s·w1 ⊗ w2, which is added to w, in f32, however the factors are stored
//
// needs: w1_at, w2_at, p.scale, p.block_rows, p.block_cols
// needs: p.w1_row, p.w1_col, p.w2_row, p.w2_col
// needs: p.first_col // where part
// gives: summand
//
// w2 has block_rows × block_cols of w's rows and columns. What a row and a column add to the place
// of an element of w1 and of w2 is a parameter. Of a part of w its first row is one of all.

fn summand(row: u32, col: u32) -> f32 {
    var of_all = row;
    of_all += p.first_col; // where part
    let outer = of_all / p.block_rows * p.w1_row + col / p.block_cols * p.w1_col;
    let inner = of_all % p.block_rows * p.w2_row + col % p.block_cols * p.w2_col;
    return p.scale * w1_at(0u, outer) * w2_at(0u, inner);
}
