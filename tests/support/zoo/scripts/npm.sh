cat >package.json <<'END'
{"name": "zoo", "version": "1.0.0", "type": "module", "scripts": {"test": "node --test"}}
END
cat >sum.test.js <<'END'
import test from 'node:test';
import assert from 'node:assert';
test('sums', () => assert.strictEqual([1, 2, 3].reduce((a, b) => a + b), 6));
test('waits', async () => { await new Promise(done => setTimeout(done, 10)); });
END
npm test
npm pack --silent
