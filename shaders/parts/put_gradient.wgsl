// put_gradient · what one slab of tokens gives to OUT
//
// needs: GROUPS, OUT_ROW_MAJOR, OUT_old, OUT_put, p.OUT_rows, p.beta
// gives: put_OUT, store_OUT
//
// GROUPS × 4 ranks from `rank` on and four columns from `col` on, written as OUT is stored: its
// rows of slab `slab` follow those of the slab before.

fn put_OUT(
    tile: ptr<function, array<mat4x4<f32>, GROUPS>>,
    rank: u32,
    col: u32,
    slab: u32,
) {
    // Ranks are OUT's stored rows, or its stored columns.
    if (!OUT_ROW_MAJOR) {
        for (var g = 0u; g < GROUPS; g++) { (*tile)[g] = transpose((*tile)[g]); }
    }
    // The tile moves up by a vector each time, as in `finish_tile`, so that no driver unrolls the
    // stores.
    for (var i = 0u; i < 4u * GROUPS; i++) {
        let stored = select(
            vec2(col + i % 4u, rank + i / 4u * 4u), vec2(rank + i, col), OUT_ROW_MAJOR,
        );
        if (stored.x < p.OUT_rows) {
            store_OUT(slab * p.OUT_rows + stored.x, stored.y, (*tile)[0][0]);
        }
        for (var g = 0u; g < GROUPS; g++) {
            let next = (*tile)[min(g + 1u, GROUPS - 1u)][0];
            (*tile)[g] = mat4x4((*tile)[g][1], (*tile)[g][2], (*tile)[g][3], next);
        }
    }
}
fn store_OUT(row: u32, col: u32, sum: vec4<f32>) {
    var value = sum;
    if (p.beta != 0.0) { value = fma(vec4(p.beta), OUT_old(row, col), value); }
    OUT_put(row, col, value);
}
