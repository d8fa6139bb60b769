// stage_rows · DEPTH steps of LEFT's rows from `token` on, into workgroup memory
//
// needs: TILE_M, ROW_SLAB, THREADS_M, THREADS_N, DEPTH, staged, LEFT_four
// gives: stage_rows_LEFT
//
// They lie in `staged` at [four steps][row of the tile]: a word is four steps of one row.

fn stage_rows_LEFT(token: u32, first: u32, depth: u32, thread: u32) {
    for (var i = thread; i < TILE_M * DEPTH / 4u; i += THREADS_M * THREADS_N) {
        let row = i / (DEPTH / 4u);
        let k4 = i % (DEPTH / 4u);
        let k = vec4(first + 4u * k4) + vec4(0u, 1u, 2u, 3u);
        let four = select(vec4<f32>(), LEFT_four(token + row, k.x), k < vec4(depth));
        staged[k4 * ROW_SLAB + row] = four;
    }
}
