// staged · LEFT·RIGHTᵀ through workgroup memory, DEPTH steps at a time
//
// needs: Tile, TILE_TOKENS, TILE_M, AT_W, THREADS_M, THREADS_N, DEPTH, staged
// needs: stage_rows_LEFT, stage_columns_RIGHT, staged_columns_RIGHT, add_step
// gives: add_LEFT_RIGHT
//
// tile[m] += LEFT·RIGHTᵀ for the workgroup's tile, a sum of `depth` products; `token` and `col` are
// the tile's first. Every thread of the workgroup calls this.

fn add_LEFT_RIGHT(tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, id: vec2<u32>) {
    let thread = id.y * THREADS_N + id.x;
    for (var first = 0u; first < depth; first += DEPTH) {
        stage_rows_LEFT(token, first, depth, thread);
        stage_columns_RIGHT(AT_W, THREADS_N, col, first, depth, thread);
        workgroupBarrier();
        for (var k4 = 0u; k4 < DEPTH / 4u; k4++) {
            let columns = staged_columns_RIGHT(AT_W, THREADS_N, k4, id.x);
            for (var m = 0u; m < TILE_TOKENS; m++) {
                let word = staged[k4 * TILE_M + m * THREADS_M + id.y];
                (*tile)[m] = add_step((*tile)[m], word, columns);
            }
        }
        workgroupBarrier();
    }
}
