// Compiles every .wgsl file of a folder with Dawn, the WebGPU of Chromium: its parser, its
// uniformity analysis, its limits. Called by tests/dawn/run.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);
const folder = process.argv[2];
// Held to the end: what it makes stops working when it is collected.
globalThis.gpu = create(['backend=vulkan']);
const adapter = await gpu.requestAdapter();
if (!adapter) throw new Error('Dawn finds no adapter');
console.log(`adapter: ${adapter.info.description}`);
// Nothing but these beyond the least that WebGPU grants.
const requiredFeatures = ['shader-f16', 'subgroups'];
for (const feature of requiredFeatures) {
  if (!adapter.features.has(feature)) throw new Error(`the adapter has no ${feature}`);
}
const device = await adapter.requestDevice({ requiredFeatures });

let failed = 0;
const files = readdirSync(folder).filter((name) => name.endsWith('.wgsl')).sort();
for (const name of files) {
  const code = readFileSync(join(folder, name), 'utf8');
  const entryPoint = code.match(/^\/\/ entry: (\w+)/)[1];
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code });
  device.createComputePipeline({ layout: 'auto', compute: { module, entryPoint } });
  const error = await device.popErrorScope();
  const { messages } = await module.getCompilationInfo();
  const bad = messages.filter((of) => of.type !== 'info');
  if (error || bad.length > 0) {
    failed += 1;
    console.error(`${name}: ${error ? error.message : ''}`);
    for (const of of bad) console.error(`  ${of.type} ${of.lineNum}:${of.linePos} ${of.message}`);
    if (failed >= 20) break;
  }
}
console.log(`${files.length} texts, ${failed} rejected`);
if (files.length === 0) throw new Error('no texts');
process.exit(failed > 0 ? 1 : 0);
