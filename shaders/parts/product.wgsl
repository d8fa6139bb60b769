// tile[m] += LEFT[token + m]·RIGHT[col .. col + 4]ᵀ, a sum of `depth` products, straight from
// memory. `lanes` threads share it: this one takes every lanes-th group of four steps.
fn LEFT_steps(token: u32, k: u32) -> vec4<f32> {
    if (LEFT_ALONG) { return LEFT_four(token, k); }
    return vec4(LEFT_at(k, token), LEFT_at(k + 1u, token), LEFT_at(k + 2u, token), LEFT_at(k + 3u, token));
}
fn add_LEFT_RIGHT(tile: ptr<function, Tile>, token: u32, col: u32, depth: u32, lane: u32, lanes: u32) {
    let whole = depth - depth % 4u;
    for (var k = 4u * lane; k < whole; k += 4u * lanes) {
        let columns = RIGHT_columns(k, col);
        for (var m = 0u; m < TILE_TOKENS; m++) {
            (*tile)[m] = add_step((*tile)[m], LEFT_steps(token + m, k), columns);
        }
    }
    // Up to three steps are left.
    for (var k = whole + lane; k < depth; k += lanes) {
        var column = vec4(RIGHT_at(k, col), RIGHT_at(k, col + 1u), RIGHT_at(k, col + 2u), RIGHT_at(k, col + 3u));
        if (RIGHT_ALONG) {
            column = vec4(RIGHT_at(col, k), RIGHT_at(col + 1u, k), RIGHT_at(col + 2u, k), RIGHT_at(col + 3u, k));
        }
        for (var m = 0u; m < TILE_TOKENS; m++) {
            let x = select(LEFT_at(k, token + m), LEFT_at(token + m, k), LEFT_ALONG);
            (*tile)[m] = fma(vec4(x), column, (*tile)[m]);
        }
    }
}
