cat >workers.cjs <<'END'
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
const { fork } = require('node:child_process');
const os = require('node:os');
if (process.argv[2] === 'child') {
  process.send(process.ppid > 0);
} else if (isMainThread) {
  const memory = new SharedArrayBuffer(4);
  const work = n => new Promise((done, fail) =>
    new Worker(__filename, { workerData: { n, memory } }).on('message', done).on('error', fail));
  const child = new Promise(done => fork(__filename, ['child']).on('message', done));
  Promise.all([work(1), work(2), work(3), child]).then(([a, b, c, forked]) => {
    console.log(`workers: ${a + b + c}, shared: ${new Int32Array(memory)[0]}, forked: ${forked}`);
    console.log(`interfaces: ${Object.keys(os.networkInterfaces())}, processors: ${os.cpus().length > 0}`);
  });
} else {
  Atomics.add(new Int32Array(workerData.memory), 0, workerData.n);
  parentPort.postMessage(workerData.n * 10);
}
END
node workers.cjs
