// tile[m] += LEFT·RIGHTᵀ for the workgroup's tile, a sum of `depth` products that goes DEPTH steps
// at a time through workgroup memory. `token` and `col` are the tile's first. Every thread of
// the workgroup calls this.
fn add_LEFT_RIGHT(tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, id: vec2<u32>) {
    let thread = id.y * THREADS_N + id.x;
    for (var first = 0u; first < depth; first += DEPTH) {
        stage_LEFT(token, first, depth, thread);
        stage_RIGHT(AT_W, THREADS_N, col, first, depth, thread);
        workgroupBarrier();
        for (var k4 = 0u; k4 < DEPTH / 4u; k4++) {
            let columns = staged_RIGHT(AT_W, THREADS_N, k4, id.x);
            for (var m = 0u; m < TILE_TOKENS; m++) {
                (*tile)[m] = add_step((*tile)[m], room[k4 * TILE_M + m * THREADS_M + id.y], columns);
            }
        }
        workgroupBarrier();
    }
}
