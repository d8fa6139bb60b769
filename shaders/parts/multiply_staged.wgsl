// multiply_staged · DEPTH steps of a sum from workgroup memory
//
// needs: Tile, TILE_TOKENS, TILE_FOURS, FOURS_N, ROW_SLAB, THREADS_M, THREADS_N, DEPTH, staged
// needs: staged_columns_RIGHT, add_step
// gives: multiply_staged_RIGHT
//
// The rows lie from word `rows` on, RIGHT's columns from word `columns` on. Threads side by side
// have the same rows and neighbouring groups of columns.

fn multiply_staged_RIGHT(tile: ptr<function, Tile>, rows: u32, columns: u32, id: vec2<u32>) {
    for (var k4 = 0u; k4 < DEPTH / 4u; k4++) {
        var own: array<mat4x4<f32>, TILE_FOURS>;
        for (var n = 0u; n < TILE_FOURS; n++) {
            own[n] = staged_columns_RIGHT(columns, FOURS_N, k4, n * THREADS_N + id.x);
        }
        for (var m = 0u; m < TILE_TOKENS; m++) {
            let word = staged[rows + k4 * ROW_SLAB + m * THREADS_M + id.y];
            for (var n = 0u; n < TILE_FOURS; n++) {
                let i = m * TILE_FOURS + n;
                (*tile)[i] = add_step((*tile)[i], word, own[n]);
            }
        }
    }
}
