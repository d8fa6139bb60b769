// Drives the page in headless Chromium: trained on WebGPU (SwiftShader) and on the CPU it must read more than 90 % of
// the held-out digits and classify what it is shown; exported plans must compute what they say. Takes pictures.
//
//     node drive.mjs http://127.0.0.1:8422 FOLDER

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [address, folder] = process.argv.slice(2);
const MINUTES = 4;
const profile = mkdtempSync(join(tmpdir(), "fused-lora-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM,
  viewport: { width: 720, height: 900 },
  args: [
    "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan", "--no-sandbox",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
  ],
});

/** Opens `path` and waits until it has set `done`; `picture` gets its folder. */
async function visit(path, done, picture) {
  const page = await browser.newPage();
  page.on("console", (message) => console.log(`  ${path}: ${message.text()}`));
  page.on("pageerror", (error) => console.log(`  ${path}: ${error}`));
  await page.goto(`${address}/${path}`);
  const ended = ([done]) => window.failed !== undefined || window[done] !== undefined;
  await page.waitForFunction(ended, [done], { timeout: MINUTES * 60_000, polling: 250 });
  const failed = await page.evaluate(() => window.failed);
  if (failed) throw new Error(`${path}: ${failed}`);
  return { page, value: await page.evaluate((done) => window[done], done), picture: join(folder, picture) };
}

function ask(holds, what) {
  if (!holds) throw new Error(what);
}

async function trains(path, device, picture) {
  const start = Date.now();
  const { page, value, picture: file } = await visit(path, "trained", picture);
  const { fused, separate, ratio } = value.times;
  console.log(
    `${value.device}: ${(100 * value.before).toFixed(1)} % before, ${(100 * value.after).toFixed(1)} % after ` +
      `${value.steps} steps, ${((Date.now() - start) / 1000).toFixed(0)} s in all; a step ${fused.toFixed(2)} ms ` +
      `fused, ${separate.toFixed(2)} ms in separate calls, ratio ${ratio.toFixed(2)}`,
  );
  ask(value.device.startsWith(device), `${path} ran on ${value.device}, not on ${device}`);
  ask(value.before < 0.4, `read ${value.before} before any training`);
  ask(value.after > 0.9, `reads ${value.after} after training`);
  let right = 0;
  for (let at = 0; at < 20; at++) {
    const { read, label } = await page.evaluate((at) => window.classify(at), at);
    right += read === label;
  }
  ask(right >= 17, `reads ${right} of 20 digits that it is shown one by one`);
  // A stroke downwards is a one; what it is taken for is the network's affair, but it is taken for something.
  await page.evaluate(() => document.getElementById("read").replaceChildren());
  const pad = page.locator("#pad"), box = await pad.boundingBox();
  await page.mouse.move(box.x + 96, box.y + 30);
  await page.mouse.down();
  await page.mouse.move(box.x + 96, box.y + 160, { steps: 8 });
  await page.mouse.up();
  await page.locator("#read li.best").waitFor();
  ask((await page.locator("#read li").count()) === 10, "ten digits have a chance each");
  await page.screenshot({ path: file, fullPage: true });
  await page.close();
}

try {
  // SwiftShader takes ten times as long as the CPU's own code: fewer epochs do there.
  await trains("index.html?epochs=12", "WebGPU", "webgpu.png");
  await trains("index.html?device=cpu", "CPU", "cpu.png");
  const { page, value, picture } = await visit("plan.html", "launched", "plans.png");
  await page.screenshot({ path: picture });
  console.log(`${value.length} exported plans, largest error ${Math.max(...value).toExponential(1)}`);
  ask(value.length === 6 && value.every((error) => error < 1e-3), `errors of exported plans: ${value}`);
  await page.close();
} finally {
  await browser.close();
  rmSync(profile, { recursive: true });
}
