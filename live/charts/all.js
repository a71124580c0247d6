// SPDX-License-Identifier: Apache-2.0
// The charts of the page. `show` names the parts of a lesson (lessons.js) that a chart is about; `controls` are the
// options that it has. A chart that has nothing to say of these runs is hidden: `isThere`.

const thin = (look, dash) => ({ ...look, dash });

/** Samples of a batch norm within the epochs: of the chosen norm and channel, in every run that has it. */
function samples(view, kind) {
    return view.names.flatMap((name, i) => {
        const points = { batch: [], running: [] };
        for (const { epoch, runs } of view.epochs) {
            if (runs[i].ended) continue;
            const { at, norms } = runs[i].statistics;
            const norm = norms[Math.min(view.options.normNumber, norms.length) - 1];
            if (!norm) continue;
            const channel = Math.min(view.options.channel, norm.channels) - 1;
            at.forEach((share, s) => {
                const place = s * norm.channels + channel;
                points.batch.push({ x: epoch - 1 + share, y: norm[`batch${kind}`][place] });
                points.running.push({ x: epoch - 1 + share, y: norm[`running${kind}`][place] });
            });
        }
        if (points.batch.length === 0) return [];
        return [
            { name: `${name}, batch`, look: view.looks[i], points: points.batch, dots: true },
            { name: `${name}, running`, look: view.looks[i], points: points.running, width: 2 },
        ];
    });
}

/** The measurements along the gradient, within the epochs. */
function landscape(view, value) {
    return view.names.map((name, i) => ({
        name,
        look: view.looks[i],
        width: 1.2,
        points: view.epochs.filter(({ runs }) => !runs[i].ended && runs[i].landscape).flatMap(({ epoch, runs }) =>
            runs[i].landscape.at.map((share, s) => ({ x: epoch - 1 + share, ...value(runs[i].landscape, s) }))),
    })).filter(({ points }) => points.length > 0);
}

function accuracies(view) {
    const series = byRun(view, ({ accuracy }) => accuracy.eval);
    if (view.options.modes) {
        const modes = [["batch", ", training mode", [5, 2]], ["sorted", ", training mode by class", [1, 3]]];
        for (const [key, suffix, dash] of modes) {
            const found = byRun(view, ({ accuracy }) => accuracy[key], suffix);
            found.forEach((each, i) => hasNorm(view.settings[i]) && series.push({ ...each, look: thin(each.look, dash), width: 1.4 }));
        }
    }
    view.recalibrated.forEach(({ epoch, runs }) => runs.forEach(({ after }, i) => {
        if (hasNorm(view.settings[i])) {
            series.push({ name: `${view.names[i]}, recalibrated`, look: { ...view.looks[i], marker: "diamond" }, points: [{ x: epoch, y: after }], width: 3 });
        }
    }));
    return series;
}

const hasLandscape = (view) => view.options.landscape;
const anyNorm = (view) => view.settings.some(hasNorm);

const CHARTS = {
    loss: new Lines({
        title: "Training loss", show: ["loss"], scale: "log", guide: { value: Math.log(10), name: "guessing" },
        caption: "Mean of an epoch's batches; pale: from the smallest to the largest batch. Logarithmic.",
        series: (view) => byRun(view, ({ loss }) => ({ y: loss.mean, low: loss.smallest, high: loss.largest })),
    }),
    accuracy: new Lines({
        title: "Test accuracy", show: ["accuracy", "modes", "recalibrate"], scale: "share", text: percent, controls: ["modes"],
        caption: "Of the 448 images that nobody trains on, in eval mode. Training mode takes the statistics of the test batch itself.",
        series: accuracies,
    }),
    distributions: Object.assign(new Distributions(), {
        title: "Distributions of each layer's values, over the epochs", show: ["distributions"], controls: ["place", "unit"], isWide: true,
        caption: "A row for each layer, a column for each epoch; darker where more values are; lines: median and quartiles. The axis is " +
            "even near 0 and logarithmic far from it, and the same for all. All units together after batch norm are near 0 ± 1 by " +
            "construction until gamma and beta move: look at what comes into it, and at one unit. Without batch norm there is nothing " +
            "to go into it, and what the activation is given stands in.",
    }),
    gradient: new Lines({
        title: "Gradient of each layer's weights", show: ["gradients"], scale: "log", along: "layer",
        caption: "Euclidean norm, mean of the epoch's batches; the last layer is the one to the ten classes. Logarithmic.",
        series: (view) => {
            const runs = view.epochs[epochAt(view) - 1]?.runs ?? [];
            return view.names.flatMap((name, i) => (runs[i] && !runs[i].ended
                ? [{ name, look: view.looks[i], points: [...runs[i].gradients].map((y, layer) => ({ x: layer + 1, y })) }] : []));
        },
    }),
    gradients: new Heat({
        title: "The same over the epochs", show: ["gradients"], hasLast: true,
        caption: "A row for each layer, a column for each epoch.",
        values: ({ gradients }) => gradients,
    }),
    mean: new Lines({
        title: "Mean: of batches, and running", show: ["statistics"], starts: 0, controls: ["normNumber", "channel"], isThere: anyNorm,
        caption: "Dots: a batch each. Line: the running average, which eval mode takes.",
        series: (view) => samples(view, "Mean"),
    }),
    variance: new Lines({
        title: "Variance: of batches, and running", show: ["statistics", "recalibrate"], starts: 0, scale: "log", isThere: anyNorm,
        caption: "Of the same batch norm and channel as the mean. Logarithmic.",
        series: (view) => samples(view, "Var"),
    }),
    dead: new Heat({
        title: "Dead or saturated units", show: ["dead"], scale: "share", text: percent, isWide: true,
        caption: "Share of each layer's units that no image made pass a gradient on: ReLU never above 0; tanh never within 2, sigmoid never within 4 of 0.",
        values: ({ layers }) => layers.map(({ dead }) => dead),
    }),
    along: new Lines({
        title: "Loss along the gradient", show: ["landscape"], starts: 0, scale: "log", isThere: hasLandscape,
        caption: "Line: the batch's loss. Pale: its smallest and largest at 1/2 to 4 times the step. Logarithmic.",
        series: (view) => landscape(view, ({ loss, smallest, largest }, s) => ({ y: loss[s], low: smallest[s], high: largest[s] })),
    }),
    move: new Lines({
        title: "Change of the gradient along it", show: ["landscape"], starts: 0, scale: "log", isThere: hasLandscape,
        caption: "The largest change, relative to the gradient. Small: the gradient predicts well. Logarithmic.",
        series: (view) => landscape(view, ({ move }, s) => ({ y: move[s] })),
    }),
    beta: new Lines({
        title: "Effective beta-smoothness", show: ["landscape"], starts: 0, scale: "log", isThere: hasLandscape, isWide: true,
        caption: "The largest change of the gradient for each unit of length. It depends on the scale of the weights: the weakest of the three.",
        series: (view) => landscape(view, ({ beta }, s) => ({ y: beta[s] })),
    }),
};
for (const [id, chart] of Object.entries(CHARTS)) chart.id = id;
