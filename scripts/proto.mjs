// npm run proto: what is generated from proto/, into the checkout or the directory given: the types in src/gen, the client's messages in client/src/gen,
// and proto/descriptors.binpb, which reflection serves (grpc-health-check's service among it).
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, run } from './prepare.mjs';

const target = process.argv[2] ?? root;
run('buf', ['generate', '-o', target]);
run('buf', ['generate', '--template', 'buf.gen.client.yaml', '-o', target]);
keepEveryMapEntry(join(target, 'client', 'src', 'gen'));

// Descriptor sets are protobuf messages of one repeated field: two of them are one.
const scratch = mkdtempSync(join(tmpdir(), 'feed-proto-'));
const sets = ['proto', 'node_modules/grpc-health-check/proto'].map((source, i) => {
  const file = join(scratch, `${i}.binpb`);
  run('buf', ['build', source, '--as-file-descriptor-set', '-o', file]);
  return readFileSync(file);
});
rmSync(scratch, { recursive: true });
mkdirSync(join(target, 'proto'), { recursive: true });
writeFileSync(join(target, 'proto', 'descriptors.binpb'), Buffer.concat(sets));

/**
 * Has the generated code set the entries of maps by setMapEntry(): ts-proto assigns them, which drops one by the name `__proto__`, and
 * has no option for it. Where ts-proto writes them otherwise one day, client/test/upload-input.spec.ts fails.
 *
 * @param {string} directory
 */
function keepEveryMapEntry(directory) {
  for (const name of globSync('**/*.ts', { cwd: directory })) {
    const path = join(directory, name);
    const code = readFileSync(path, 'utf8');
    const safe = code.replace(
      /(\w+\.\w+)\[(entry\d+\.key|k)\] = (entry\d+\.value|v);/g,
      'setMapEntry($1, $2, $3);',
    );
    if (safe === code) continue;
    const module = `${'../'.repeat(name.split('/').length)}map-entry.js`;
    writeFileSync(
      path,
      safe.replace(/^import /m, `import { setMapEntry } from "${module}";\nimport `),
    );
  }
}
