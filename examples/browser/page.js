// Trains on the page and draws: what is computed is in the Rust of `src/`, one `Trainer`. Its calls must not overlap,
// so they are queued. `?device=cpu` takes the CPU, `?epochs=3` trains for so long.

import init, { Trainer } from "./pkg/fused_lora_browser.js";

const PAIRS = 21;
const of = (id) => document.getElementById(id);
const options = new URLSearchParams(location.search);
const bytes = async (name) => {
  const file = await fetch(`data/${name}.safetensors`);
  if (!file.ok) throw new Error(`${file.url}: ${file.status}`);
  return new Uint8Array(await file.arrayBuffer());
};

let last = Promise.resolve();
/** Runs `call` when the calls before it are done. */
const queued = (call) => (last = last.catch(() => {}).then(call));
/** Lets the page draw and the visitor act. */
const pause = () => new Promise((done) => setTimeout(done));

const losses = [], accuracies = [];

function draw(steps) {
  const canvas = of("chart"), pen = canvas.getContext("2d");
  const { width, height } = canvas;
  const x = (step) => 40 + (width - 50) * step / steps;
  const y = (share) => height - 20 - (height - 30) * share;
  const most = Math.max(...losses, 1);
  pen.clearRect(0, 0, width, height);
  pen.font = "12px system-ui";
  const line = (points, colour) => {
    pen.strokeStyle = colour;
    pen.beginPath();
    points.forEach(([step, share]) => pen.lineTo(x(step), y(share)));
    pen.stroke();
  };
  for (const share of [0, 0.5, 0.9, 1]) {
    line([[0, share], [steps, share]], "#ddd");
    pen.fillStyle = "#666";
    pen.fillText(`${100 * share} %`, 2, y(share) + 4);
  }
  line(losses.map((loss, step) => [step + 1, loss / most]), "#c55");
  line(accuracies, "#259");
  pen.fillStyle = "#c55";
  pen.fillText("loss", 60, height - 4);
  pen.fillStyle = "#259";
  pen.fillText("held-out digits read", 110, height - 4);
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

/** Whole steps without an update, fused and by separate calls in turn. */
async function compare(trainer) {
  const times = { fused: [], separate: [] }, ratios = [], gradients = {};
  await queued(() => trainer.refresh());
  for (let pair = -3; pair < PAIRS; pair++) {
    const took = {};
    for (const turn of [0, 1]) {
      const way = (pair + turn) % 2 === 0 ? "fused" : "separate";
      const start = performance.now();
      gradients[way] = await queued(() => trainer.untrained_step(way === "fused"));
      took[way] = performance.now() - start;
    }
    await pause();
    if (pair < 0) continue; // compiles
    times.fused.push(took.fused);
    times.separate.push(took.separate);
    ratios.push(took.fused / took.separate);
  }
  const apart = Math.abs(gradients.fused - gradients.separate) / gradients.separate;
  if (!(apart < 1e-4)) throw new Error(`gradients differ: ${gradients.fused}, ${gradients.separate}`);
  return { fused: median(times.fused), separate: median(times.separate), ratio: median(ratios) };
}

/** What is drawn, as the digits of the training set were made: cut out, brought to 32 × 32, and counted in 4 × 4. */
function pixels(pad) {
  const { width, height } = pad;
  const drawn = pad.getContext("2d").getImageData(0, 0, width, height).data;
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let at = 0; at < width * height; at++) {
    if (drawn[4 * at] < 128) continue;
    const [x, y] = [at % width, Math.floor(at / width)];
    left = Math.min(left, x), right = Math.max(right, x + 1);
    top = Math.min(top, y), bottom = Math.max(bottom, y + 1);
  }
  if (right <= left) return null;
  // As high as the field, and no wider than that.
  const side = Math.max(right - left, bottom - top);
  const small = new OffscreenCanvas(32, 32), pen = small.getContext("2d");
  const scale = 32 / side;
  const [w, h] = [(right - left) * scale, (bottom - top) * scale];
  pen.drawImage(pad, left, top, right - left, bottom - top, (32 - w) / 2, (32 - h) / 2, w, h);
  const image = pen.getImageData(0, 0, 32, 32).data;
  const digit = new Float32Array(64);
  for (let at = 0; at < 1024; at++) {
    const block = 8 * (at >> 7) + ((at & 31) >> 2);
    digit[block] += image[4 * at] > 127 ? 1 / 16 : 0;
  }
  return digit;
}

async function classify(trainer, digit) {
  const chances = await queued(() => trainer.classify(digit));
  const best = chances.indexOf(Math.max(...chances));
  of("read").replaceChildren(...Array.from(chances, (chance, at) => {
    const item = document.createElement("li");
    item.textContent = `${at}  ${(100 * chance).toFixed(1)} %`;
    item.style.backgroundSize = `${100 * chance}% 100%`;
    item.className = at === best ? "best" : "";
    return item;
  }));
  const pen = of("seen").getContext("2d");
  digit.forEach((pixel, at) => {
    const grey = Math.round(255 * pixel);
    pen.fillStyle = `rgb(${grey} ${grey} ${grey})`;
    pen.fillRect(12 * (at % 8), 12 * (at >> 3), 12, 12);
  });
  return best;
}

function drawing(trainer) {
  const pad = of("pad"), pen = pad.getContext("2d", { willReadFrequently: true });
  Object.assign(pen, { lineWidth: 32, lineCap: "round", lineJoin: "round", strokeStyle: "#fff" });
  const clear = () => pen.clearRect(0, 0, pad.width, pad.height);
  let down = false;
  pad.addEventListener("pointerdown", (event) => {
    down = true;
    pad.setPointerCapture(event.pointerId);
    pen.beginPath();
    pen.moveTo(event.offsetX, event.offsetY);
  });
  pad.addEventListener("pointermove", (event) => {
    if (!down) return;
    pen.lineTo(event.offsetX, event.offsetY);
    pen.stroke();
  });
  pad.addEventListener("pointerup", async () => {
    down = false;
    const digit = pixels(pad);
    if (digit) await classify(trainer, digit);
  });
  of("clear").addEventListener("click", clear);
  let next = 0;
  of("example").addEventListener("click", async () => {
    const example = await queued(() => trainer.example(next++));
    await classify(trainer, example.subarray(0, 64));
  });
}

async function run() {
  await init();
  const [digits, base] = await Promise.all([bytes("digits"), bytes("base")]);
  const epochs = Number(options.get("epochs") ?? 30);
  const trainer = await Trainer.open(options.get("device") ?? "wgpu", digits, base, epochs);
  const info = trainer.device() === "cpu" ? null : (await navigator.gpu.requestAdapter()).info;
  const name = info ? `WebGPU (${[info.vendor, info.architecture].filter(Boolean).join(" ")})` : "CPU, in WebAssembly";
  const reason = trainer.fell_back();
  of("device").textContent = reason ? `${name}: ${reason}` : name;
  drawing(trainer);

  const steps = trainer.steps(), epoch = trainer.steps_an_epoch();
  const read = async () => {
    const share = await queued(() => trainer.accuracy());
    accuracies.push([losses.length, share]);
    of("accuracy").textContent = `${(100 * share).toFixed(1)} %`;
    return share;
  };
  const before = await read();
  for (;;) {
    const loss = await queued(() => trainer.step());
    if (loss === undefined) break;
    losses.push(loss);
    of("step").textContent = `${losses.length} of ${steps}`;
    of("loss").textContent = loss.toFixed(4);
    if (losses.length % epoch !== 0) continue;
    await read();
    draw(steps);
    await pause();
  }
  const after = accuracies.at(-1)[1];
  const times = await compare(trainer);
  const ms = (time) => `${time.toFixed(2)} ms`;
  of("times").textContent =
    `fused ${ms(times.fused)}, separate calls ${ms(times.separate)}: ${times.ratio.toFixed(2)} of them`;
  // For whoever drives the page.
  window.trained = { device: of("device").textContent, before, after, steps, times };
  window.classify = async (at) => {
    const example = await queued(() => trainer.example(at));
    return { read: await classify(trainer, example.subarray(0, 64)), label: example[64] };
  };
}

run().catch((error) => {
  of("device").className = "error";
  of("device").textContent = error;
  window.failed = String(error?.stack ?? error);
});
