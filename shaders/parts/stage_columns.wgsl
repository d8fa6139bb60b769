// stage_columns · DEPTH steps of RIGHT's columns from `col` on, into workgroup memory
//
// needs: THREADS_M, THREADS_N, DEPTH, staged, RIGHT_K_MAJOR, RIGHT_four
// gives: stage_columns_RIGHT, staged_columns_RIGHT
//
// `fours` groups of four columns, into `staged` from word `at` on. Where the sum runs along RIGHT's
// stored rows a word is four steps of one column, at [four steps][column of its group][group];
// else it is one step of four columns, at [step][group].

fn stage_columns_RIGHT(at: u32, fours: u32, col: u32, first: u32, depth: u32, thread: u32) {
    for (var i = thread; i < fours * DEPTH; i += THREADS_M * THREADS_N) {
        if (RIGHT_K_MAJOR) {
            let row = i / (DEPTH / 4u);
            let k4 = i % (DEPTH / 4u);
            let k = vec4(first + 4u * k4) + vec4(0u, 1u, 2u, 3u);
            let four = select(vec4<f32>(), RIGHT_four(col + row, k.x), k < vec4(depth));
            staged[at + (4u * k4 + row % 4u) * fours + row / 4u] = four;
        } else {
            let k = i / fours;
            let four = RIGHT_four(first + k, col + 4u * (i % fours));
            staged[at + k * fours + i % fours] = select(vec4<f32>(), four, first + k < depth);
        }
    }
}
// Four steps of four columns as `stage_columns_RIGHT` left them: step by step, columns side by
// side.
fn staged_columns_RIGHT(at: u32, fours: u32, k4: u32, group: u32) -> mat4x4<f32> {
    let first = at + 4u * k4 * fours + group;
    let columns = mat4x4(
        staged[first], staged[first + fours],
        staged[first + 2u * fours], staged[first + 3u * fours],
    );
    if (RIGHT_K_MAJOR) { return transpose(columns); }
    return columns;
}
