// SPDX-License-Identifier: Apache-2.0
// The lessons of the live page, as data. Each is tested for seeds 0 to 4, together with its ablation.
//
//   id, title
//   claim      what is to be seen, a sentence or two
//   runs       [{ name, settings }]: what trains side by side; settings are those that differ from DEFAULTS (run.js).
//              Two of them, mostly without and with batch norm, but not always: the names tell
//   epochs     as many as the claim needs; the page may train longer
//   show       the parts of the page that the lesson is about: "loss", "accuracy", "distributions", "gradients",
//              "statistics", "modes" (training mode beside eval mode), "recalibrate", "landscape" (has to be asked for)
//   threshold  in words, with numbers; `holds(results)` is the same in code. results: of each run { epochs, ended,
//              recalibrated }, as worker.js describes them; `recalibrated` only where `show` has "recalibrate"
//   whenNot    when it is not so
//   ablation   { text, runs }: one thing is changed, and the claim does not hold: `holds` gives false

/** The same settings without and with batch norm. */
const both = (settings) => [
    { name: "without batch norm", settings: { ...settings, placement: "none", firstLayer: false } },
    { name: "with batch norm", settings },
];

/** The last epoch's accuracies; a run that ended early knows nothing. */
function atEnd({ epochs, ended }) {
    return ended === null ? epochs[epochs.length - 1].accuracy : { eval: 0, batch: 0, sorted: 0 };
}
const learnt = (run, share = 0.9) => atEnd(run).eval >= share;
const apart = ([a, b]) => Math.abs(atEnd(a).eval - atEnd(b).eval);
const guesses = (run) => atEnd(run).eval <= 0.3;

/** The gradient of the first layer's weights as a share of the last one's, in the first epoch. */
function arriving({ epochs: [{ gradients }] }) {
    return gradients[0] / gradients[gradients.length - 1];
}

/** Medians of the last third of what was seen along the gradient. */
function landscapeOf({ epochs }) {
    const all = (name) => epochs.flatMap((epoch) => epoch.landscape[name]);
    const middle = (values) => {
        const last = values.slice(-Math.ceil(values.length / 3)).sort((a, b) => a - b);
        return last[Math.floor(last.length / 2)];
    };
    const here = all("loss");
    return { rise: middle(all("largest").map((loss, i) => loss / here[i])), move: middle(all("move")) };
}

const LESSONS = [
    {
        id: "rates",
        title: "Higher learning rates",
        claim:
            "At learning rate 1 the network without batch norm learns nothing: it guesses. With batch norm it " +
            "learns, and faster than either does at 0.1.",
        runs: both({ rate: 1 }),
        epochs: 5,
        show: ["loss", "accuracy", "distributions"],
        threshold: "After 5 epochs at least 85 % with batch norm, and at most 30 % without.",
        holds: ([without, norm]) => learnt(norm, 0.85) && guesses(without),
        whenNot:
            "At rate 0.1 both learn, and after 60 epochs the network without batch norm has the lower training loss. " +
            "One rate for both is compared here; let each have its best one, and little is left between them.",
        ablation: { text: "Rate 0.1: both learn.", runs: both({ rate: 0.1 }) },
    },
    {
        id: "sigmoid",
        title: "Deep, and sigmoid",
        claim:
            "Six layers of sigmoids: without batch norm the gradient all but vanishes on its way to the first layer, " +
            "and nothing is learnt. With it, most of the gradient arrives.",
        runs: both({ activation: "sigmoid", depth: 6, rate: 0.3 }),
        epochs: 4,
        show: ["gradients", "accuracy", "distributions"],
        threshold:
            "After 4 epochs at least 90 % with batch norm, and at most 30 % without. In the first epoch the first " +
            "layer's gradient is under 1/100 of the last one's without, and over 1/10 with batch norm.",
        holds: ([without, norm]) =>
            learnt(norm) && guesses(without) && arriving(without) < 0.01 && arriving(norm) > 0.1,
        whenNot:
            "One layer of sigmoids learns without batch norm, and six of ReLU do at a rate of 0.1: their slope is 1, " +
            "not at most 1/4. Batch norm is one cure of vanishing gradients; first weights and shortcuts are others.",
        ablation: {
            text: "One hidden layer: the gradient has no way to go.",
            runs: both({ activation: "sigmoid", depth: 1, rate: 0.3 }),
        },
    },
    {
        id: "weights",
        title: "Bad first weights",
        claim:
            "First weights a tenth as large as they should be: without batch norm what comes in is ten times smaller " +
            "after each layer, until nothing is left. With it the scale of the weights hardly matters.",
        runs: both({ weightScale: 0.1 }),
        epochs: 4,
        show: ["distributions", "accuracy", "gradients"],
        threshold: "After 4 epochs at least 90 % with batch norm, and at most 30 % without.",
        holds: ([without, norm]) => learnt(norm) && guesses(without),
        whenNot:
            "With weights as He et al. (2015) draw them both learn. And weights ten times too large are no harm to " +
            "what a layer gives, but their gradients are ten times smaller: with batch norm, too, learning is slower " +
            "then.",
        ablation: { text: "Weights as they should be: both learn.", runs: both({}) },
    },
    {
        id: "tiny",
        title: "Tiny batches",
        claim:
            "Two images per batch: mean and variance of two values are noise, and batch norm is the worse choice. " +
            "After batch norm, of two images nearly every value is +1 or -1, before gamma and beta.",
        runs: both({ batch: 2, rate: 0.03 }),
        epochs: 2,
        show: ["statistics", "accuracy", "loss"],
        threshold: "After 2 epochs batch norm is behind by at least 30 percent points.",
        holds: ([without, norm]) => atEnd(without).eval - atEnd(norm).eval >= 0.3,
        whenNot:
            "From about 16 images on it is no longer behind. With a single one the library refuses to train: one " +
            "value has no variance. Batch renormalization, or statistics of several batches together, are for " +
            "batches that must be small.",
        ablation: { text: "Sixteen images per batch.", runs: both({ batch: 16, rate: 0.03 }) },
    },
    {
        id: "momentum",
        title: "Both ends of momentum",
        claim:
            "Momentum is the weight of a new batch in the running statistics, which eval mode takes. At 0.001 they " +
            "are still near 0 and 1, where they began; at 1 they are those of the last batch alone. Both networks " +
            "have learnt the same, and Recalibrate shows it: it takes the statistics of all training images.",
        runs: [
            { name: "momentum 0.001", settings: { batch: 16, bnMomentum: 0.001 } },
            { name: "momentum 1", settings: { batch: 16, bnMomentum: 1 } },
        ],
        epochs: 3,
        show: ["statistics", "accuracy", "recalibrate", "modes"],
        threshold:
            "After 3 epochs both are right at least 94 % of the time once they are recalibrated, the same to 1 " +
            "percent point; before that 0.001 was at least 5 points worse, and momentum 1 at least 2, in one epoch " +
            "or another.",
        holds: ([small, large]) =>
            [small, large].every(({ recalibrated }) => recalibrated.after >= 0.94) &&
            Math.abs(small.recalibrated.after - large.recalibrated.after) <= 0.01 &&
            small.recalibrated.after - small.recalibrated.before >= 0.05 &&
            Math.max(...large.epochs.map(({ accuracy }) => large.recalibrated.after - accuracy.eval)) >= 0.02,
        whenNot:
            "After some thousand steps 0.001 has caught up, and is the steadier one. With batches of hundreds of " +
            "images the last batch alone is not bad.",
        ablation: {
            text: "Momentum 0.1 for both: there is nothing to recalibrate.",
            runs: [
                { name: "momentum 0.1", settings: { batch: 16 } },
                { name: "momentum 0.1, once more", settings: { batch: 16 } },
            ],
        },
    },
    {
        id: "eval",
        title: "Forgotten eval mode",
        claim:
            "In training mode an answer depends on the images that come with it. With eight at a time it is wrong " +
            "more often; and when the images come sorted by class, a batch is all of one kind, and its statistics " +
            "take away what makes that kind.",
        runs: both({ batch: 8 }),
        epochs: 3,
        show: ["modes", "accuracy"],
        threshold:
            "After 3 epochs the same network is right at least 90 % of the time in eval mode; in training mode at " +
            "least 5 percent points less, and at most 40 % by class.",
        holds: ([, norm]) => {
            const found = atEnd(norm);
            return found.eval >= 0.9 && found.eval - found.batch >= 0.05 && found.sorted <= 0.4;
        },
        whenNot:
            "Shuffled, and 64 at a time, it is hardly noticed: that is why it is found so late. By class it fails at " +
            "any size. Without batch norm (and dropout) there is no difference between the modes.",
        ablation: { text: "Batches of 64: shuffled, the mode costs next to nothing.", runs: both({ batch: 64 }) },
    },
    {
        id: "pixels",
        title: "Unscaled pixels",
        claim:
            "Pixels from 0 to 16 instead of 0 to 1: without batch norm training ends in numbers beyond all bounds, " +
            "or in guessing. One batch norm of the pixels, and none elsewhere, does what a scaler would have done.",
        runs: both({ pixels: "raw", placement: "none", firstLayer: true }),
        epochs: 4,
        show: ["loss", "accuracy", "statistics"],
        threshold: "After 4 epochs at least 90 % with batch norm; without, at most 30 %, or the loss is not a number.",
        holds: ([without, norm]) => learnt(norm) && guesses(without),
        whenNot:
            "With scaled pixels it changes little. Batch norm in the hidden layers alone undoes the scale as well. A " +
            "scaler does the same before training, once, and is the same for training and use.",
        ablation: {
            text: "Scaled pixels: both learn.",
            runs: both({ pixels: "scaled", placement: "none", firstLayer: true }),
        },
    },
    {
        id: "placement",
        title: "Before or after the activation",
        claim: "There is no winner here: both places are as good as each other.",
        runs: [
            { name: "before the activation", settings: { placement: "before" } },
            { name: "after the activation", settings: { placement: "after" } },
        ],
        epochs: 4,
        show: ["accuracy", "loss", "distributions"],
        threshold: "After 4 epochs both are right at least 90 % of the time, and differ by at most 4 percent points.",
        holds: (runs) => runs.every((run) => learnt(run)) && apart(runs) <= 0.04,
        whenNot:
            "Before it, batch norm can be folded into the dense layer for use; the paper has it there. After ReLU " +
            "there are units that hardly ever fire, and are divided by a tiny deviation: the loss bends sharply in " +
            "their direction.",
        ablation: {
            text: "At rate 1, and in place of the second one none at all: that does make a difference.",
            runs: [
                { name: "before the activation", settings: { rate: 1, placement: "before" } },
                { name: "none", settings: { rate: 1, placement: "none" } },
            ],
        },
    },
    {
        id: "landscape",
        title: "The loss around it",
        claim:
            "Look along the gradient, up to four times as far as the step goes: without batch norm the loss soars, " +
            "and the gradient there is a quite different one. With it the loss still falls, and the gradient is much " +
            "the same: larger steps are safe.",
        runs: both({}),
        epochs: 3,
        show: ["landscape", "loss"],
        threshold:
            "In the last third of 3 epochs, medians: the largest loss along the gradient, as a multiple of the loss " +
            "here, and the gradient's change, relative to it, are at least 3 times larger without batch norm.",
        holds: ([without, norm]) => {
            const [a, b] = [landscapeOf(without), landscapeOf(norm)];
            return a.rise >= 3 * b.rise && a.move >= 3 * b.move;
        },
        whenNot:
            "In the first steps the two are alike: training makes the difference. At rate 0.003 steps are so small " +
            "that there is nothing to see, and the gradient changes more with batch norm. And each is looked at on " +
            "its own path: this is no measure of one landscape against another. Nor does it say why; internal " +
            "covariate shift was not measured.",
        ablation: { text: "Rate 0.003: the steps are too small.", runs: both({ rate: 0.003 }) },
    },
    {
        id: "tie",
        title: "A tie",
        claim:
            "Five layers, ReLU, weights as they should be, a rate that suits both, momentum in the descent: without " +
            "batch norm it goes as well in the end. A network that is well tuned and not deep does not need it.",
        runs: both({ rate: 0.02, descentMomentum: 0.9 }),
        epochs: 16,
        show: ["accuracy", "loss"],
        threshold: "After 16 epochs both are right at least 95 % of the time, and differ by at most 3 percent points.",
        holds: (runs) => runs.every((run) => learnt(run, 0.95)) && apart(runs) <= 0.03,
        whenNot:
            "In the first epochs batch norm is ahead all the same. And at ten times the rate, with more layers, " +
            "sigmoids or worse first weights it is no longer a tie.",
        ablation: { text: "Ten times the rate.", runs: both({ rate: 0.2, descentMomentum: 0.9 }) },
    },
];
