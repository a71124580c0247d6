// SPDX-License-Identifier: Apache-2.0
// All settings of the page: their defaults (those of a run as in run.js), their limits, their controls, and the address
// that holds those that differ. The limits are wider than the sliders: an address may ask for more.

const decades = { to: Math.log10, from: (place) => +(10 ** place).toPrecision(2) };
const even = { to: Number, from: Number };
const powers = { to: Math.log2, from: (place) => 2 ** place };

const range = (label, start, limits, [min, max, step], scale = even, more = {}) =>
    ({ kind: "range", label, start, limits, min, max, step, scale, ...more });
const choice = (label, start, values, more = {}) => ({ kind: "choice", label, start, values, ...more });
const check = (label, more = {}) => ({ kind: "check", label, start: false, ...more });
/** A setting without a control of its own. */
const hidden = (start, limits, more = {}) => ({ kind: "hidden", start, limits, ...more });

// In the order of the form. `run`: a setting of a run.
const SETTINGS = {
    rate: range("Learning rate", 0.1, [1e-6, 1000], [-3, 1.5, 0.125], decades, { run: true }),
    batch: range("Images per batch", 64, [1, 512], [0, 9, 1], powers, { run: true, whole: true }),
    depth: range("Hidden layers", 5, [1, 20], [1, 20, 1], even, { run: true, whole: true }),
    units: range("Units of each", 64, [1, 256], [2, 8, 1], powers, { run: true, whole: true }),
    weightScale: range("First weights, times He’s", 1, [1e-4, 1e4], [-2, 1, 0.125], decades, { run: true }),
    bnMomentum: range("Momentum of running statistics", 0.1, [0, 1], [-3, 0, 0.125], decades, { run: true }),
    activation: choice("Activation", "relu", { relu: "ReLU", tanh: "tanh", sigmoid: "sigmoid" }, { run: true }),
    norm: choice("Batch norm", "before", {
        before: "before the activation",
        after: "after the activation",
        first: "of the pixels alone",
        "first-before": "of the pixels, and before",
    }),
    pixels: choice("Pixels", "scaled", { scaled: "scaled to 0 … 1", raw: "as they are, 0 … 16" }, { run: true }),
    descentMomentum: choice("Momentum of gradient descent", 0, { 0: "none", 0.5: "0.5", 0.9: "0.9", 0.99: "0.99" }, { run: true, limits: [0, 0.999] }),
    seed: choice("Seed", 0, { 0: "0", 1: "1", 2: "2", 3: "3", 4: "4" }, { run: true, limits: [0, 9999], whole: true }),
    epochs: range("Epochs", 20, [1, 500], [1, 100, 1], even, { whole: true }),
    pace: choice("Speed", 0, { 0: "as fast as it goes", 200: "5 epochs a second", 1000: "1 epoch a second" }, { limits: [0, 10000], whole: true }),
    landscape: check("look along the gradient, too (takes twice as long)"),
    eps: hidden(1e-5, [1e-12, 1000], { run: true }),
    rateWithout: hidden(0, [0, 1000]), // of the network without batch norm, if not the same
    // These belong to the charts, and start no new training.
    modes: check("training mode beside eval mode", { chart: true }),
    place: choice("Values", "intoActivation", PLACES, { chart: true }),
    unit: choice("Units", 0, { 0: "all together", 1: "the 1st alone", 2: "the 2nd alone", 3: "the 3rd alone", 4: "the 4th alone" }, { chart: true, limits: [0, 4], whole: true }),
    normNumber: range("Batch norm", 21, [1, 21], [1, 21, 1], even, { chart: true, whole: true }), // up to the last one,
    channel: range("Channel", 1, [1, 256], [1, 64, 1], even, { chart: true, whole: true }),
};

const startSettings = () => Object.fromEntries(Object.entries(SETTINGS).map(([key, { start }]) => [key, start]));

/** A text of an address as a value of the setting, within its limits; undefined if it is none. */
function valueOf(key, text) {
    const { kind, values, limits, whole } = SETTINGS[key];
    if (kind === "check") return text === "true" ? true : text === "false" ? false : undefined;
    if (limits === undefined && kind === "choice") return Object.hasOwn(values, text) ? text : undefined;
    const found = Number(text);
    if (text.trim() === "" || !Number.isFinite(found)) return undefined;
    const within = Math.min(limits[1], Math.max(limits[0], found));
    return whole ? Math.round(within) : within;
}

/** Is it another experiment with another value of this? Another seed is not. */
const isOfExperiment = (key) => (SETTINGS[key].run && key !== "seed") || key === "norm" || key === "rateWithout";

/** { lesson, settings } of an address; what it has and nobody knows is left out. */
function readAddress(hash) {
    const given = new URLSearchParams(hash.replace(/^#/, ""));
    const named = LESSONS.find(({ id }) => id === given.get("lesson")) ?? null;
    const settings = named ? settingsOf(named) : startSettings();
    const lesson = [...given.keys()].some((key) => Object.hasOwn(SETTINGS, key) && isOfExperiment(key)) ? null : named;
    for (const [key, text] of given) {
        if (!Object.hasOwn(SETTINGS, key)) continue;
        const value = valueOf(key, text);
        if (value !== undefined) settings[key] = value;
    }
    return { lesson, settings };
}

function writeAddress({ lesson, settings }) {
    const found = new URLSearchParams();
    if (lesson) found.set("lesson", lesson.id);
    const usual = lesson ? settingsOf(lesson) : startSettings();
    for (const key of Object.keys(SETTINGS)) if (settings[key] !== usual[key]) found.set(key, settings[key]);
    return `#${found}`;
}

/** The settings of a lesson, as far as the form can hold them: those of its run with batch norm. */
function settingsOf(lesson) {
    const settings = startSettings();
    const [first] = lesson.runs;
    const given = (lesson.runs.find((run) => hasNorm({ placement: "before", firstLayer: false, ...run.settings })) ?? first).settings;
    for (const [key, value] of Object.entries(given)) if (SETTINGS[key]?.run) settings[key] = value;
    const { placement = "before", firstLayer = false } = given;
    settings.norm = firstLayer ? (placement === "none" ? "first" : "first-before") : placement === "none" ? "before" : placement;
    settings.epochs = lesson.epochs;
    settings.modes = lesson.show.includes("modes");
    settings.landscape = lesson.show.includes("landscape");
    return settings;
}

/** [{ name, settings }] of the form: a network without batch norm, and one with it. */
function runsOf(settings) {
    const shared = Object.fromEntries(Object.keys(SETTINGS).filter((key) => SETTINGS[key].run).map((key) => [key, settings[key]]));
    const firstLayer = settings.norm.startsWith("first");
    const placement = settings.norm === "first" ? "none" : settings.norm === "after" ? "after" : "before";
    const without = { ...shared, rate: settings.rateWithout || shared.rate, placement: "none", firstLayer: false };
    return [
        { name: "without batch norm", settings: without },
        { name: "with batch norm", settings: { ...shared, placement, firstLayer } },
    ];
}

/** The runs of a lesson with all their settings; the seed is the reader's. */
const runsOfLesson = (lesson, { seed }) => {
    const usual = { ...runsOf(startSettings())[1].settings };
    return lesson.runs.map(({ name, settings }) => ({ name, settings: { ...usual, ...settings, seed } }));
};

const textOf = (key, value) => {
    const { kind, values } = SETTINGS[key];
    return kind === "range" || kind === "hidden" ? number(value) : kind === "choice" ? (values[value] ?? String(value)) : String(value);
};
