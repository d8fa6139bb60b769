// tile[m] += LEFT[token + m]·RIGHT[col .. col + 4]ᵀ, a sum of `depth` products, SLICES groups of four steps at
// a time, one for each slice of the subgroup. Its threads have the same tokens: each reads its share of
// LEFT's words (a word is four steps of one token), and every word goes to all that need it by a
// shuffle. Every thread of the subgroup calls this. Where the depth is no multiple of what is taken at a
// time, what lies behind the end is zero on both sides.
fn add_LEFT_RIGHT(tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, lane: u32) {
    let slice = lane / ACROSS;
    for (var k = 0u; k < depth; k += 4u * SLICES) {
        let own = k + 4u * slice;
        var columns = RIGHT_columns(own, col);
        if (!LEFT_RIGHT_WHOLE) {
            let inside = vec4(own) + vec4(0u, 1u, 2u, 3u) < vec4(depth);
            columns[0] = select(vec4<f32>(), columns[0], inside.x);
            columns[1] = select(vec4<f32>(), columns[1], inside.y);
            columns[2] = select(vec4<f32>(), columns[2], inside.z);
            columns[3] = select(vec4<f32>(), columns[3], inside.w);
        }
        var share: array<vec4<f32>, SHARES>;
        for (var i = 0u; i < SHARES; i++) {
            let word = i * SPREAD + lane % SPREAD;
            let at = k + 4u * (word % SLICES);
            share[i] = LEFT_four(token + word / SLICES, at);
            if (!LEFT_RIGHT_WHOLE) {
                let inside = vec4(at) + vec4(0u, 1u, 2u, 3u) < vec4(depth);
                share[i] = select(vec4<f32>(), share[i], inside);
            }
        }
        for (var m = 0u; m < TILE_TOKENS; m++) {
            let word = m * SLICES;
            let x = subgroupShuffle(share[word / SPREAD], word % SPREAD + slice);
            (*tile)[m] = add_step((*tile)[m], x, columns);
        }
    }
}
