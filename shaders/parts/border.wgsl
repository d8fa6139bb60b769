// tile[m] += shrunk[token + m]·b[col .. col + 4]ᵀ, rank by rank, straight from memory: the ranks are few
// beside the steps of x·wᵀ, and shrunk's rows and b's columns lie in the caches.
fn add_border(tile: ptr<function, Tile>, token: u32, col: u32, first: u32, lanes: u32) {
    for (var rank = first; rank < p.size.z; rank += lanes) {
        let column = b_column(rank, col);
        for (var m = 0u; m < TILE_TOKENS; m++) {
            (*tile)[m] = fma(vec4(t_at(token + m, rank)), column, (*tile)[m]);
        }
    }
}
