// SPDX-License-Identifier: Apache-2.0
// The lessons of the live page, as data. Each is tested for seeds 0 to 4 together with its ablation.
//
//   id, title
//   claim      what is to be seen, a sentence or two
//   runs       [{ name, settings }]: what trains side by side; settings are those that differ from DEFAULTS (run.js)
//   epochs     as many as the claim needs; the page may train longer
//   show       the parts of the page that the lesson is about: "loss", "accuracy", "distributions", "gradients",
//              "statistics", "dead", "modes" (training mode beside eval mode), "recalibrate", "landscape"
//   threshold  in words, with numbers; `holds(results)` is the same in code. results: of each run { epochs, ended,
//              recalibrated }, the epochs as worker.js describes them; recalibrated where `show` has "recalibrate"
//   whenNot    when it is not so
//   ablation   { text, runs }: one thing is changed, and the claim does not hold: `holds` gives false

const both = (settings, without = {}) => [
    { name: "without batch norm", settings: { ...settings, placement: "none", firstLayer: false, ...without } },
    { name: "with batch norm", settings },
];
/** Accuracy in eval mode at the end; a run that diverged knows nothing. */
const final = ({ epochs, ended }) => (ended === null ? epochs.at(-1).accuracy.eval : 0);

const LESSONS = [
    {
        id: "rates",
        title: "Higher learning rates",
        claim:
            "At learning rate 1 the network without batch norm does not learn. With batch norm it does, and reaches " +
            "96 % within eight epochs.",
        runs: both({ rate: 1 }),
        epochs: 8,
        show: ["loss", "accuracy"],
        threshold: "With: at least 94 % of the test images; without: at most 30 %.",
        holds: ([without, withNorm]) => final(withNorm) >= 0.94 && final(without) <= 0.3,
        whenNot:
            "At rate 0.1 both learn, and after 60 epochs the one without batch norm has the lower training loss. A " +
            "network of five layers that is well tuned does not need batch norm.",
        ablation: { text: "Rate 0.1: both learn.", runs: both({ rate: 0.1 }) },
    },
];
