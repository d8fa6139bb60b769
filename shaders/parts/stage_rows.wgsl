// stage_rows · DEPTH steps of LEFT's rows from `token` on, into workgroup memory
//
// needs: TILE_M, TILE_TOKENS, THREADS_M, THREADS_N, DEPTH, staged, LEFT_four
// gives: stage_rows_LEFT
//
// They lie in `staged` at [four steps][row of the tile]: a word is four steps of one row. Rows are
// dealt out so that threads that lie one below the other read words side by side: row r of the tile
// is word r % TILE_TOKENS · THREADS_M + r / TILE_TOKENS.

fn stage_rows_LEFT(token: u32, first: u32, depth: u32, thread: u32) {
    for (var i = thread; i < TILE_M * DEPTH / 4u; i += THREADS_M * THREADS_N) {
        let row = i / (DEPTH / 4u);
        let k4 = i % (DEPTH / 4u);
        let k = vec4(first + 4u * k4) + vec4(0u, 1u, 2u, 3u);
        let four = select(vec4<f32>(), LEFT_four(token + row, k.x), k < vec4(depth));
        staged[k4 * TILE_M + (row % TILE_TOKENS) * THREADS_M + row / TILE_TOKENS] = four;
    }
}
