// Four ranks of shrunk from their sums: scaled, the pad behind the rank zero, rounded once as it
// is stored. Precise: a high part, and a low one of what that left. Returns what was stored.
fn finish_shrunk(token: u32, rank: u32, sum: vec4<f32>, keeps: bool) -> vec4<f32> {
    let ranks = vec4(rank) + vec4(0u, 1u, 2u, 3u);
    let value = select(vec4<f32>(), p.factor.x * sum, ranks < vec4(p.size.z));
    let high = rounded(value);
    var low = vec4<f32>();
    if (PRECISE) {
        let finite = (bitcast<vec4<u32>>(high) & vec4(0x7f800000u)) != vec4(0x7f800000u);
        low = select(low, rounded(value - high), finite);
    }
    // The rank with its pad: behind it begins the low part, or what is not shrunk's.
    if (keeps && rank < p.shrunk.x) {
        kept_put(token, rank, high);
        if (PRECISE) { kept_put(token, p.shrunk.x + rank, low); }
    }
    return high + low;
}
