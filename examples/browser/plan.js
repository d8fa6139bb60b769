// Launches exported plans on WebGPU: the door for JavaScript frameworks. `launch` is all that one needs; the rest
// makes operands and checks what came.

const WORDS = (bytes) => Math.max(16, Math.ceil(bytes / 4) * 4);

/** Numbers that repeat themselves from run to run. */
function random(seed) {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 31 - 1;
  };
}

/** Encodes all launches of `plan` into one pass: `buffers` by operand, with every operand at its buffer's start. */
async function launch(device, plan, buffers) {
  const workspace = device.createBuffer({ size: WORDS(plan.workspace_len), usage: GPUBufferUsage.STORAGE });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  for (const { source, grid, bindings, params } of plan.launches) {
    const module = device.createShaderModule({ code: source.text });
    const types = bindings.map(({ operand, access }) =>
      operand !== null && access === "read" ? "read-only-storage" : "storage");
    const layout = device.createBindGroupLayout({
      entries: [...types, "uniform"].map((type, binding) => {
        return { binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } };
      }),
    });
    const pipeline = await device.createComputePipelineAsync({
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module, entryPoint: source.entry },
    });
    const block = device.createBuffer({ size: WORDS(params.length), usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
    device.queue.writeBuffer(block, 0, new Uint8Array(params));
    const entries = bindings.map(({ operand }, binding) => {
      return { binding, resource: { buffer: operand === null ? workspace : buffers[operand] } };
    });
    entries.push({ binding: bindings.length, resource: { buffer: block } });
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
    pass.dispatchWorkgroups(...grid);
  }
  pass.end();
  device.queue.submit([encoder.finish()]);
}

/** Elements of a row-major matrix that begins each row after `stride`. */
class Matrix {
  constructor({ rows, cols, stride }) {
    Object.assign(this, { rows, cols, stride, values: new Float32Array(rows * stride) });
  }
  fill(next) {
    for (let row = 0; row < this.rows; row++)
      for (let col = 0; col < this.cols; col++) this.values[row * this.stride + col] = next();
    return this;
  }
  at(row, col) {
    return this.values[row * this.stride + col];
  }
}

const sum = (count, of) => {
  let all = 0;
  for (let at = 0; at < count; at++) all += of(at);
  return all;
};

/** What each output of the operation is, element by element, from its definition. */
const DEFINITIONS = {
  forward: ({ x, w, a, b, bias }, { scale, rank }) => ({
    y: (m, n) =>
      bias.at(0, n) + sum(w.cols, (k) => x.at(m, k) * w.at(n, k)) +
      scale * sum(rank, (r) => b.at(n, r) * sum(w.cols, (k) => a.at(r, k) * x.at(m, k))),
  }),
  backward_input: ({ dy, w, a, b }, { scale, rank }) => ({
    dx: (m, k) =>
      sum(w.rows, (n) => dy.at(m, n) * w.at(n, k)) +
      scale * sum(rank, (r) => a.at(r, k) * sum(w.rows, (n) => b.at(n, r) * dy.at(m, n))),
  }),
  // Of what backward_shrink and forward left.
  backward_adapter: ({ x, dy, shrunk, dshrunk }) => ({
    da: (r, k) => sum(x.rows, (m) => dshrunk.at(m, r) * x.at(m, k)),
    db: (n, r) => sum(x.rows, (m) => dy.at(m, n) * shrunk.at(m, r)),
  }),
};

async function check(device, { plan, ...of }) {
  const next = random(7);
  const operands = {}, buffers = {};
  for (const [name, spec] of Object.entries(plan.operands)) {
    operands[name] = new Matrix(spec).fill(next);
    const { values } = operands[name];
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    buffers[name] = device.createBuffer({ size: WORDS(values.byteLength), usage });
    device.queue.writeBuffer(buffers[name], 0, values);
  }
  await launch(device, plan, buffers);
  let worst = 0;
  for (const [name, definition] of Object.entries(DEFINITIONS[plan.operation](operands, of))) {
    const { rows, cols, stride, values } = operands[name];
    const there = device.createBuffer({ size: values.byteLength, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffers[name], 0, there, 0, values.byteLength);
    device.queue.submit([encoder.finish()]);
    await there.mapAsync(GPUMapMode.READ);
    const got = new Float32Array(there.getMappedRange());
    for (let row = 0; row < rows; row++)
      for (let col = 0; col < cols; col++)
        worst = Math.max(worst, Math.abs(got[row * stride + col] - definition(row, col)));
  }
  return worst;
}

async function run() {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error("this browser gives no WebGPU adapter");
  const device = await adapter.requestDevice();
  device.addEventListener("uncapturederror", ({ error }) => { throw error; });
  const plans = await (await fetch("plans.json")).json();
  const errors = [];
  for (const of of plans) {
    const worst = await check(device, of);
    errors.push(worst);
    const row = of_("plans").insertRow();
    const { operation, launches } = of.plan;
    const grids = launches.map(({ grid }) => grid.join(" × ")).join(", ");
    for (const text of [operation, of.tokens, launches.map(({ kernel }) => kernel).join(", "), grids, worst.toExponential(1)])
      row.insertCell().textContent = text;
  }
  window.launched = errors;
}

const of_ = (id) => document.getElementById(id);

run().catch((error) => {
  of_("error").textContent = error;
  window.failed = String(error?.stack ?? error);
});
