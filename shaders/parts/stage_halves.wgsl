// stage_halves · DEPTH steps of `count` rows or columns of NAME from `begin` on, as f16 into
// workgroup memory
//
// needs: DEPTH, THREADS, staged, NAME_four
// gives: stage_halves_NAME
//
// From group `at` of `staged` on. Where the sum runs along stored rows, a staged row is DEPTH steps
// of one; else it is one step of all `count` columns. Threads side by side take two groups each of
// neighbouring rows, which lie in different banks. All that is staged is f16, widened: nothing is
// rounded here.

fn stage_halves_NAME(
    at: u32, begin: u32, count: u32, first: u32, depth: u32, k_major: bool, thread: u32,
) {
    let rows = select(DEPTH, count, k_major);
    let fours = select(count, DEPTH, k_major) / 4u;
    for (var i = thread; i < count * DEPTH / 4u; i += THREADS) {
        let row = i / 2u % rows;
        let four = i / 2u / rows * 2u + i % 2u;
        let to = at + row * (fours + 2u) + four;
        if (k_major) {
            let k = vec4(first + 4u * four) + vec4(0u, 1u, 2u, 3u);
            let values = NAME_four(begin + row, k.x);
            staged[to] = vec4<f16>(select(vec4<f32>(), values, k < vec4(depth)));
        } else {
            let values = NAME_four(first + row, begin + 4u * four);
            staged[to] = vec4<f16>(select(vec4<f32>(), values, first + row < depth));
        }
    }
}
