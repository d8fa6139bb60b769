// staged · LEFT·RIGHTᵀ through workgroup memory, DEPTH steps at a time
//
// needs: Tile, FOURS_N, AT_COLUMNS, THREADS_N, DEPTH
// needs: stage_rows_LEFT, stage_columns_RIGHT, multiply_staged_RIGHT
// gives: add_LEFT_RIGHT
//
// tile += LEFT·RIGHTᵀ for the workgroup's tile, a sum of `depth` products; `token` and `col` are
// the tile's first. Every thread of the workgroup calls this.

fn add_LEFT_RIGHT(tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, id: vec2<u32>) {
    let thread = id.y * THREADS_N + id.x;
    for (var first = 0u; first < depth; first += DEPTH) {
        stage_rows_LEFT(token, first, depth, thread);
        stage_columns_RIGHT(AT_COLUMNS, FOURS_N, col, first, depth, thread);
        workgroupBarrier();
        multiply_staged_RIGHT(tile, 0u, AT_COLUMNS, id);
        workgroupBarrier();
    }
}
