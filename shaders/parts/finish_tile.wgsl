// finish_tile · a thread finishes its own tile, whose first token and column are given
//
// needs: Tile, TILE_TOKENS, TILE_FOURS, finish
// gives: finish_tile
//
// The tile moves up by four columns each time: a driver need not unroll the stores to index it,
// and a software one compiles those of one token instead of sixteen.

fn finish_tile(tile: ptr<function, Tile>, token: u32, col: u32) {
    for (var i = 0u; i < TILE_TOKENS * TILE_FOURS; i++) {
        finish(token + i / TILE_FOURS, col + 4u * (i % TILE_FOURS), (*tile)[0]);
        for (var next = 1u; next < TILE_TOKENS * TILE_FOURS; next++) {
            (*tile)[next - 1u] = (*tile)[next];
        }
    }
}
