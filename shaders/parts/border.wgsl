// border · shrunk meets b
//
// needs: Tile, TILE_TOKENS, TILE_FOURS, p.rank, b_column, t_at
// gives: add_border
//
// tile[m] += shrunk[token + m]·b[col .. col + 4 · TILE_FOURS]ᵀ, rank by rank, straight from memory:
// the ranks are few beside the steps of x·wᵀ, and shrunk's rows and b's columns lie in the caches.
// `lanes` threads share the sum: this one takes every lanes-th rank.

fn add_border(tile: ptr<function, Tile>, token: u32, col: u32, lane: u32, lanes: u32) {
    for (var rank = lane; rank < p.rank; rank += lanes) {
        var columns: array<vec4<f32>, TILE_FOURS>;
        for (var n = 0u; n < TILE_FOURS; n++) { columns[n] = b_column(rank, col + 4u * n); }
        for (var m = 0u; m < TILE_TOKENS; m++) {
            let shrunk = t_at(token + m, rank);
            for (var n = 0u; n < TILE_FOURS; n++) {
                let i = m * TILE_FOURS + n;
                (*tile)[i] = fma(vec4(shrunk), columns[n], (*tile)[i]);
            }
        }
    }
}
