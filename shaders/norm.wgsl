// norm · WGSL
//
// computes   gain = magnitude / ‖w + s·b·a‖, row by row; what a row and a column of w, a and b add
//            to the place of an element is a parameter
// tile       a thread has, of four rows of w, every LANES_K-th square
// threads    LANES_N, each with four rows × LANES_K that share them
// workgroup  memory: the parts of the sums on their way to one thread
// serves     norm, with an adapter and without, stored in any way; a LoKr whose w2 is whole
//
// needs: LANES_N, LANES_K, Tile, reduce_lanes, p.groups_x
// needs: p.depth, p.w_row, p.w_col, w_at, magnitude_four, gain_put
// needs: p.rank, p.scale, p.a_row, p.a_col, p.b_row, p.b_col, a_at, b_at // where a
// needs: summand // where summed
// gives: norm, squares_of

// Every LANES_K-th square of one row.
fn squares_of(row: u32, first: u32) -> f32 {
    var sum = 0.0;
    for (var k = first; k < p.depth; k += LANES_K) {
        var element = w_at(0u, row * p.w_row + k * p.w_col);
        var product = 0.0; // where a
        for (var r = 0u; r < p.rank; r++) { // where a
            let of_b = b_at(0u, row * p.b_row + r * p.b_col); // where a
            product = fma(of_b, a_at(0u, r * p.a_row + k * p.a_col), product); // where a
        } // where a
        element = fma(p.scale, product, element); // where a
        element += summand(row, k); // where summed
        sum = fma(element, element, sum);
    }
    return sum;
}

@compute @workgroup_size(LANES_N, LANES_K)
fn norm(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let row = 4u * ((group.y * p.groups_x + group.x) * LANES_N + id.x);

    // ── square: one row after another ────────────────────────────────────
    var tile: Tile;
    tile[0] = vec4(
        squares_of(row, id.y),
        squares_of(row + 1u, id.y),
        squares_of(row + 2u, id.y),
        squares_of(row + 3u, id.y),
    );

    // ── finish: the rows are columns of gain ─────────────────────────────
    let squares = reduce_lanes(&tile, id);
    if (id.y == 0u) { gain_put(0u, row, magnitude_four(0u, row) / sqrt(squares)); }
}
