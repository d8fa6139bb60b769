// stage_columns · DEPTH steps of RIGHT's columns from `col` on, into workgroup memory
//
// needs: THREADS_M, THREADS_N, DEPTH, staged, RIGHT_K_MAJOR, RIGHT_four
// gives: stage_columns_RIGHT, staged_columns_RIGHT
//
// `fours` groups of four columns, into `staged` from word `at` on. Where the sum runs along RIGHT's
// stored rows a word is four steps of one column, at [four steps][column of its group][group];
// else it is one step of four columns, at [four steps][step of them][group]. Either way a column or
// step is `fours | 4` words from the next, and four steps are one word more than four of these:
// threads that store side by side then meet different banks (`fours` is 4, or a multiple of 8).

fn stage_columns_RIGHT(at: u32, fours: u32, col: u32, first: u32, depth: u32, thread: u32) {
    let next = fours | 4u;
    for (var i = thread; i < fours * DEPTH; i += THREADS_M * THREADS_N) {
        if (RIGHT_K_MAJOR) {
            let row = i / (DEPTH / 4u);
            let k4 = i % (DEPTH / 4u);
            let k = vec4(first + 4u * k4) + vec4(0u, 1u, 2u, 3u);
            let four = select(vec4<f32>(), RIGHT_four(col + row, k.x), k < vec4(depth));
            staged[at + k4 * (4u * next + 1u) + row % 4u * next + row / 4u] = four;
        } else {
            let k = i / fours;
            let four = RIGHT_four(first + k, col + 4u * (i % fours));
            let word = at + k / 4u * (4u * next + 1u) + k % 4u * next + i % fours;
            staged[word] = select(vec4<f32>(), four, first + k < depth);
        }
    }
}
// Four steps of four columns as `stage_columns_RIGHT` left them: step by step, columns side by
// side.
fn staged_columns_RIGHT(at: u32, fours: u32, k4: u32, group: u32) -> mat4x4<f32> {
    let next = fours | 4u;
    let first = at + k4 * (4u * next + 1u) + group;
    let columns = mat4x4(
        staged[first], staged[first + next], staged[first + 2u * next], staged[first + 3u * next],
    );
    if (RIGHT_K_MAJOR) { return transpose(columns); }
    return columns;
}
