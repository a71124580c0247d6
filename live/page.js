// SPDX-License-Identifier: Apache-2.0
// The page: the settings, what is trained with them, and what is shown of it.

const HEADLINE = LESSONS[0];
const at = (id) => document.getElementById(id);
const isStill = matchMedia("(prefers-reduced-motion: reduce)");
const isDark = matchMedia("(prefers-color-scheme: dark)");

const page = {
    lesson: null,
    settings: startSettings(),
    view: null, // the content of the charts; see charts/lines.js
    controls: new Map(),
    figures: [],
    worker: null,
    run: 0, // its number: what is told of an earlier one comes too late
    isPlaying: false,
    began: 0,

    ink: (name) => page.colours[name],
    readColours() {
        const style = getComputedStyle(document.documentElement);
        const names = ["without", "with", "third", "ink", "muted", "grid", "panel", "bg"];
        page.colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    },

    /** The node of a setting's control. */
    control(key) {
        const made = control(key, page.changed);
        page.controls.set(key, made);
        return made.node;
    },
    showSettings() {
        const most = page.mostOf(page.view.settings);
        for (const [key, { show }] of page.controls) show(page.settings[key], most[key]);
        at("same-rate").hidden = page.settings.rateWithout === 0 || page.lesson !== null;
        at("same-rate").querySelector("span").textContent =
            `Each at its best: ${number(page.settings.rateWithout)} without, ${number(page.settings.rate)} with.`;
        for (const button of document.querySelectorAll("[data-lesson]")) {
            const isOn = button.dataset.lesson === page.lesson?.id;
            button.setAttribute("aria-pressed", isOn);
            button.closest("article")?.classList.toggle("current", isOn);
        }
    },
    /** The numbers of batch norms and channels that there are to choose from. */
    mostOf: (settings) => ({
        normNumber: Math.max(1, ...settings.map(({ placement, firstLayer, depth }) => (placement === "none" ? 0 : depth) + (firstLayer ? 1 : 0))),
        channel: Math.max(...settings.map(({ units, placement }) => (placement === "none" ? 64 : units))),
    }),
    writeAddress() {
        try {
            history.replaceState(null, "", writeAddress(page));
        } catch {
            // A frame without an origin of its own has no address to write to.
        }
    },

    changed(key, value) {
        page.settings[key] = value;
        const { chart } = SETTINGS[key];
        if (chart) Object.assign(page.view.options, page.settings);
        else if (isOfExperiment(key)) page.lesson = null;
        if (key === "rate") page.settings.rateWithout = 0;
        page.showSettings();
        page.writeAddress();
        if (chart) return page.draw();
        if (key === "pace") return page.isPlaying && page.play();
        clearTimeout(page.soon);
        // A slider that is being moved does not restart the run at every step.
        page.soon = setTimeout(() => page.restart(), 300);
    },

    /** A new run, from the first weights. */
    prepare() {
        clearTimeout(page.soon);
        const { lesson, settings } = page;
        const runs = lesson ? runsOfLesson(lesson, settings) : runsOf(settings);
        page.isPlaying = false;
        page.isDone = false;
        page.view = {
            names: runs.map(({ name }) => name),
            settings: runs.map((run) => run.settings),
            looks: looksOf(runs.map((run) => run.settings)),
            epochs: [],
            until: settings.epochs,
            cursor: page.view?.cursor ?? { epoch: null, layer: 0 },
            isRead: page.view?.isRead ?? false,
            options: { ...settings },
            show: lesson?.show ?? [],
            recalibrated: [],
        };
        page.view.cursor.epoch = null;
        page.worker.postMessage({
            start: { id: ++page.run, runs: page.view.settings, epochs: settings.epochs, pace: settings.pace, landscape: settings.landscape, play: false },
        });
        at("verdict").textContent = "";
        at("ended").textContent = "";
        at("claim").textContent = lesson ? lesson.claim : "Your own settings.";
        at("subject").textContent = lesson ? lesson.title : "Your own experiment";
        at("key").replaceChildren(...page.view.names.map((name, i) => page.keyEntry(name, page.view.looks[i])));
        page.showSettings();
        page.draw();
    },
    restart() {
        page.prepare();
        page.play();
    },
    play() {
        const { view, settings } = page;
        if (page.isDone && view.epochs.length >= view.until) view.until += settings.epochs;
        page.isDone = false;
        page.isPlaying = true;
        at("headline").textContent = `Two networks are learning in your browser: ${page.lesson?.title ?? "your own experiment"} …`;
        page.began = performance.now() - (page.spent ?? 0);
        if (view.epochs.length === 0) page.began = performance.now();
        page.worker.postMessage({ play: true, pace: settings.pace, epochs: view.until });
        page.showPlay();
    },
    pause() {
        page.isPlaying = false;
        page.worker.postMessage({ play: false });
        page.showPlay();
    },
    showPlay() {
        at("play").textContent = page.isPlaying ? "Pause" : page.isDone ? "Train on" : "Train";
        document.documentElement.dataset.state = page.isPlaying ? "training" : page.isDone ? "done" : "waiting";
    },

    load(lesson, isAsked) {
        page.lesson = lesson;
        const { seed, pace } = page.settings;
        page.settings = { ...settingsOf(lesson), seed, pace };
        page.writeAddress();
        page.restart();
        if (!isAsked) return;
        at("subject").focus({ preventScroll: true });
        at("workbench").scrollIntoView({ behavior: isStill.matches ? "auto" : "smooth", block: "start" });
    },

    keyEntry(name, look) {
        const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
        for (const [key, value] of Object.entries({ width: 34, height: 12, "aria-hidden": "true" })) picture.setAttribute(key, value);
        const pen = new Pen(new SvgContext(), 34, 12, (colour) => `var(--${colour})`);
        pen.path([[1, 6], [33, 6]], look);
        pen.marker(look.marker, 17, 6, look.colour);
        picture.innerHTML = pen.g.toString();
        return element("span", { style: `color:var(--${look.colour})` }, picture, ` ${name}`);
    },

    // The worker.
    told(message) {
        if (message.error) {
            at("status").textContent = `This cannot go on: ${message.error}`;
            document.documentElement.dataset.state = "failed";
            return;
        }
        if (message.id !== page.run) return;
        if (message.recalibrated) page.toldRecalibrated(message);
        else if (message.done) page.toldDone();
        else page.toldEpoch(message);
    },
    toldEpoch({ epoch, runs }) {
        const { view } = page;
        view.epochs.push({ epoch, runs });
        page.spent = performance.now() - page.began;
        const time = (part) => runs.reduce((sum, run) => sum + (run.ended ? 0 : run.time[part]), 0);
        at("status").textContent = `Epoch ${epoch} of ${view.until}; ${((1000 * epoch) / page.spent).toFixed(1)} epochs a second; ` +
            `batch norm took ${time("batchNorm").toFixed(0)} of ${time("training").toFixed(0)} ms`;
        const ended = runs.flatMap((run, i) => (run.ended ? [`${view.names[i]}: ${run.ended}`] : []));
        at("ended").classList.add("warn");
        at("ended").textContent = ended.map((text) => `✕ ${text}.`).join(" ");
        page.draw();
    },
    toldRecalibrated({ recalibrated, epoch }) {
        const { view } = page;
        view.recalibrated.push({ epoch, runs: recalibrated });
        const said = recalibrated.flatMap(({ before, after, milliseconds }, i) => (hasNorm(view.settings[i])
            ? [`${view.names[i]}: ${percent(before)} before, ${percent(after)} after (in ${milliseconds.toFixed(0)} ms)`] : []));
        at("ended").classList.remove("warn");
        at("ended").textContent = `Recalibrated: the running statistics are now those of all training images. ${said.join("; ")}.`;
        page.draw();
        if (page.isDone) page.judge();
    },
    toldDone() {
        page.isPlaying = false;
        page.isDone = true;
        const { lesson } = page;
        // Recalibration is a part of such a lesson.
        if (lesson?.show.includes("recalibrate") && page.view.recalibrated.length === 0) page.worker.postMessage({ recalibrate: true });
        else page.judge();
        page.headline();
        page.showPlay();
    },

    /** Does the lesson's claim hold in this run? */
    judge() {
        const { lesson, view, settings } = page;
        if (!lesson || view.epochs.length !== lesson.epochs) return;
        const results = page.results();
        const holds = lesson.holds(results);
        at("verdict").textContent = holds ? `In this run it is so. (${lesson.threshold})` : `In this run it is not so! (${lesson.threshold})`;
        at("verdict").dataset.holds = holds;
        document.documentElement.dataset.judged = `${lesson.id} ${settings.seed}`;
    },
    results() {
        const { view } = page;
        return view.names.map((_, i) => ({
            epochs: view.epochs.map(({ runs }) => runs[i]).filter((run) => !run.ended),
            ended: view.epochs.at(-1)?.runs[i].ended ?? null,
            recalibrated: view.recalibrated.at(-1)?.runs[i] ?? null,
        }));
    },
    /** The sentence at the top, of the run that has just ended. */
    headline() {
        const { view, spent } = page;
        const known = page.results().map(({ epochs, ended }) => (ended ? "nothing, as it diverged" : percent(epochs.at(-1).accuracy.eval)));
        const strong = (i) => element("b", { style: `color:var(--${view.looks[i].colour})` }, known[i]);
        const rates = new Set(view.settings.map(({ rate }) => rate));
        const isUsual = view.names.join() === "without batch norm,with batch norm";
        const said = isUsual
            ? ["the network without batch norm knows ", strong(0), " of the test images, the one with it ", strong(1)]
            : ["test images are known by ", ...view.names.flatMap((name, i) => [`${i > 0 ? ", " : ""}${name}: `, strong(i)])];
        at("headline").replaceChildren(
            `After ${view.epochs.length} epochs${rates.size === 1 ? ` at learning rate ${number([...rates][0])}` : ""} `,
            ...said,
            ". ", element("small", {}, `Computed just now, in your browser, in ${(spent / 1000).toFixed(1)} s.`),
        );
    },

    // Reading the charts.
    read({ epoch, layer }) {
        const { cursor, settings, epochs } = page.view;
        const depth = Math.max(...settings.map((each) => each.depth));
        if (epoch !== undefined && !Number.isNaN(epoch)) {
            const inside = Math.max(1, epoch);
            cursor.epoch = inside >= epochs.length ? null : inside;
        }
        if (layer !== undefined && !Number.isNaN(layer)) cursor.layer = Math.min(depth, Math.max(0, layer));
        page.startReading();
    },
    startReading() {
        page.view.isRead = true;
        page.draw();
    },
    stopReading() {
        page.view.isRead = false;
        page.view.cursor.epoch = null;
        page.draw();
    },
    draw() {
        page.frame ??= requestAnimationFrame(() => {
            page.frame = null;
            for (const figure of page.figures) figure.draw();
        });
    },

    // Taking things along.
    save() {
        const address = URL.createObjectURL(new Blob(csvOf(page.view), { type: "text/csv" }));
        element("a", { href: address, download: "batchnorm-live.csv" }).click();
        setTimeout(() => URL.revokeObjectURL(address), 10_000);
        at("told").textContent = "batchnorm-live.csv has all that was measured: run,epoch,what,layer,index,value. " +
            "(A frame may not be allowed to save files; then open the page on its own.)";
    },
    async link() {
        const link = location.href.split("#")[0] + writeAddress(page);
        at("told").textContent = link;
        try {
            await navigator.clipboard.writeText(link);
            at("told").textContent = `Copied: ${link}`;
        } catch {
            // The browser does not allow it: the user can copy the text by hand.
        }
    },
    async best() {
        const button = at("best");
        button.disabled = true;
        page.pause();
        page.lesson = null;
        page.settings.rateWithout = 0;
        const runs = runsOf(page.settings);
        try {
            const rates = await bestRates(runs, (share) => (at("told").textContent = `Trying ${RATES.length} learning rates for each: ${Math.round(100 * share)} %`));
            [page.settings.rateWithout, page.settings.rate] = rates;
            at("told").textContent = `Lowest training loss after ${TRIAL_EPOCHS} epochs, of the rates ${RATES.join(", ")}: ` +
                `${runs.map(({ name }, i) => `${name} at ${rates[i]}`).join(", ")}.`;
            page.writeAddress();
            page.restart();
        } catch (error) {
            at("told").textContent = `No rates were found: ${error.message}`;
        }
        button.disabled = false;
    },

    keys(event) {
        // A control has its own use for the key.
        if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, button, summary, a, input, textarea")) return;
        const action = { " ": () => at("play").click(), ".": () => at("step").click(), r: () => at("reset").click() }[event.key.toLowerCase()];
        if (!action) return;
        event.preventDefault();
        action();
    },

    build() {
        page.readColours();
        const isForm = ([, { kind, chart }]) => kind !== "hidden" && !chart;
        at("controls").append(...Object.entries(SETTINGS).filter(isForm).map(([key]) => page.control(key)));
        page.figures = Object.values(CHARTS).map((chart) => new Figure(chart, page));
        at("charts").append(...page.figures.map(({ node }) => node));
        for (const button of document.querySelectorAll("[data-lesson]")) {
            button.addEventListener("click", () => page.load(LESSONS.find(({ id }) => id === button.dataset.lesson), true));
        }
        const clicks = {
            play: () => (page.isPlaying ? page.pause() : page.play()),
            step: () => {
                page.pause();
                if (page.isDone) page.view.until++;
                page.isDone = false;
                page.worker.postMessage({ play: false, epochs: page.view.until });
                page.worker.postMessage({ step: true });
            },
            reset: () => (page.prepare(), page.showPlay()),
            recalibrate: () => page.worker.postMessage({ recalibrate: true }),
            best: page.best,
            save: page.save,
            link: page.link,
            "same-rate-button": () => page.changed("rate", page.settings.rate),
        };
        for (const [id, action] of Object.entries(clicks)) at(id).addEventListener("click", action);
        addEventListener("keydown", page.keys);
        addEventListener("resize", page.draw);
        addEventListener("hashchange", () => page.open());
        isDark.addEventListener("change", () => (page.readColours(), page.draw()));
    },
    /** Shows what the address asks for; the headline, if it asks for nothing. */
    open() {
        const found = readAddress(location.hash);
        const isBare = location.hash.length < 2;
        Object.assign(page, isBare ? { lesson: HEADLINE, settings: settingsOf(HEADLINE) } : found);
        page.prepare();
        if (isStill.matches) {
            if (isBare) at("headline").textContent = "Nothing moves until you ask for it: press Train. The picture below it was made by the same page.";
        } else page.play();
        page.showPlay();
    },
    async start() {
        document.documentElement.classList.add("works");
        page.build();
        try {
            page.worker = await startWorker(page.told);
        } catch {
            return; // told has said why
        }
        page.open();
    },
};
page.start();
