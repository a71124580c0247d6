// SPDX-License-Identifier: Apache-2.0
// The worker of the live page: it trains, and tells how it goes. A classic script, after batchnorm.js, network.js,
// run.js and watch.js; DEFAULTS in run.js are the settings of a run.
//
// To the worker:
//   { boot: { wasm, digits: { labels, pixels } } }
//       the bytes of batchnorm.wasm; Uint8Array(1797); Uint8Array(1797 * 64) of 0 to 16
//   { start: { id, runs, epochs, pace, landscape, play } }
//       id         any value: all that is told about these runs has it, so that what comes too late can be told apart
//       runs       settings, one object for each run; what is left out is as in DEFAULTS. All train side by side
//       epochs     the last one, a number from 1
//       pace       milliseconds that an epoch takes at least; 0: as fast as it goes
//       landscape  true: look along the gradient, too; training takes three times as long
//       play       false: wait for play or step
//   { play: true, pace?, epochs? }, { play: false }, { step: true }
//       goes on, pauses, trains for one epoch
//   { recalibrate: true }
//       the running statistics of all runs become those of all training images, exactly
//   { trials: { id, trials: [{ settings, epochs, recalibrate? }] } }
//       one after the other, in silence: each at its best rate, several seeds. They keep this worker busy: give them a
//       worker of their own, and end it with terminate()
//
// From the worker, each with the id it was started with:
//   { ready: version }
//   { id, epoch, runs: [epoch of each run, or { ended: "sentence" }] }   after every epoch, 1, 2, ...
//   { id, done: true }      the last epoch is over, or every run has ended
//   { id, recalibrated: [{ before, after, milliseconds }], epoch }   accuracy in eval mode, of each run
//   { id, trial, epochs: [{ epoch, loss, accuracy, time }], ended, recalibrated }   `trial`: its index; epochs as below
//   { id, trialsDone: true }
//   { error: "text" }       a fault of this program, or of what it was sent
//
// An epoch of a run; shares and accuracies are from 0 to 1:
//   epoch       its number
//   loss        { mean, smallest, largest } cross-entropy of the epoch's batches, in nats (guessing: 2.303)
//   accuracy    on the 448 test images: { eval, batch, sorted }: in eval mode; in training mode (statistics of the
//               batch, nothing remembered), shuffled; the same, sorted by class. Without batch norm all three are the
//               same; with batches of one image the last two are null. Batches are as large as in training
//   time        { training, batchNorm } in milliseconds; the latter is part of the former
//   layers      of each hidden layer: { intoNorm, intoActivation, out, dead }
//               the first three are distributions: of what batch norm is given (null if the layer has none), what the
//               activation is given, what the next layer is given (after batch norm, if that comes last): each
//               { all: Float32Array(80), single: Float32Array(4 * 80) }, shares of the values in 80 bins of equal width
//               in asinh(value) from -8 to 8, the ends taking what is beyond; `all` of every unit, `single` of each of
//               the first 4 (or fewer, if the layer has fewer). Seen in training, in some steps all over the epoch
//               dead: share of units that no image seen made pass a gradient on: ReLU never above 0, tanh never within
//               2, sigmoid never within 4 of 0
//   gradients   Float64Array, of each dense layer (depth + 1): Euclidean norm of the loss gradient with respect to its
//               weights, mean over the steps
//   statistics  { at, norms }: `at` is where in the epoch S samples were taken, from above 0 to 1; of each batch norm,
//               first to last (the one of the pixels is the first, if there is one): { channels, batchMean, batchVar,
//               runningMean, runningVar }, each Float32Array(S * channels), sample after sample. Variances are by
//               count - 1, as running_var is; the running ones are as they are after that batch
//   landscape   if asked for: { at, loss, smallest, largest, move, beta }, each an array with an element for every
//               fourth step: `at` as above; the batch's loss where the network is; its smallest and largest loss at 1/2
//               to 4 times the step along the negative gradient (Infinity, if it is not a number there); the largest
//               change of the gradient there, relative to the gradient's norm; and the largest change of the gradient
//               for each unit of length (beta-smoothness)

let bn;
let digits;
let current = null; // the run that was started
let timer = 0;

function start({ id, runs, epochs, pace = 0, landscape = false, play = true }) {
    const watches = landscape ? [LayerWatch, LandscapeWatch] : [LayerWatch];
    current = { id, epochs, pace, runs: runs.map((settings) => new Run(bn, digits, settings, watches)), epoch: 0 };
    if (play) tick();
}

/** One epoch of every run; false if there is no further one. */
function trainEpoch() {
    const { id, runs, epochs } = current;
    if (current.epoch < epochs && runs.some((run) => run.ended === null)) {
        const found = runs.map((run) => run.next() ?? { ended: run.ended });
        postMessage({ id, epoch: ++current.epoch, runs: found });
    }
    const goesOn = current.epoch < epochs && runs.some((run) => run.ended === null);
    if (!goesOn) postMessage({ id, done: true });
    return goesOn;
}

function tick() {
    const begin = performance.now();
    // A timer, not a loop: messages are read between epochs.
    if (trainEpoch()) timer = setTimeout(guarded(tick), Math.max(0, current.pace - (performance.now() - begin)));
}

function recalibrate() {
    const recalibrated = current.runs.map((run) => run.recalibrate());
    postMessage({ id: current.id, epoch: current.epoch, recalibrated });
}

function trial({ settings, epochs, recalibrate: isWanted = false }) {
    const run = new Run(bn, digits, settings);
    const found = [];
    for (let epoch; found.length < epochs && (epoch = run.next()) !== null; ) found.push(epoch);
    return { epochs: found, ended: run.ended, recalibrated: isWanted ? run.recalibrate() : null };
}

const guarded = (action) => (...given) => {
    try {
        return action(...given);
    } catch (error) {
        return postMessage({ error: String(error.stack ?? error) });
    }
};

const HANDLERS = {
    start: (given) => (clearTimeout(timer), start(given)),
    play: (isOn, { pace, epochs }) => {
        clearTimeout(timer);
        Object.assign(current, pace !== undefined && { pace }, epochs !== undefined && { epochs });
        if (isOn) tick();
    },
    step: () => (clearTimeout(timer), trainEpoch()),
    recalibrate,
    trials: ({ id, trials }) => {
        trials.forEach((each, index) => postMessage({ id, trial: index, ...trial(each) }));
        postMessage({ id, trialsDone: true });
    },
};

onmessage = async ({ data }) => {
    if (data.boot !== undefined) {
        try {
            bn = await batchnorm.load(data.boot.wasm);
            digits = data.boot.digits;
            postMessage({ ready: bn.version });
        } catch (error) {
            postMessage({ error: String(error.stack ?? error) });
        }
        return;
    }
    const name = Object.keys(HANDLERS).find((key) => key in data);
    guarded(() => HANDLERS[name](data[name], data))();
};
