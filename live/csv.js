// SPDX-License-Identifier: Apache-2.0
// All that was measured as one table, RFC 4180, a number a line: run,epoch,what,layer,index,value. `layer` counts from 1
// where there is one. `index` is, of distributions, the lower edge of the bin; of statistics and of the landscape, where in
// the epoch (0 to 1). Bins that hold nothing are left out.

const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

function* linesOf(run) {
    for (const [key, value] of Object.entries(run.loss)) yield [`loss ${key}`, "", "", value];
    for (const [key, value] of Object.entries(run.accuracy)) if (value !== null) yield [`accuracy ${key}`, "", "", value];
    for (const [key, value] of Object.entries(run.time)) yield [`milliseconds ${key}`, "", "", value];
    for (const [i, value] of run.gradients.entries()) yield ["gradient", i + 1, "", value];
    for (const [i, layer] of run.layers.entries()) {
        yield ["dead", i + 1, "", layer.dead];
        for (const place of Object.keys(PLACES)) {
            if (!layer[place]) continue;
            const { all, single } = layer[place];
            for (let bin = 0; bin < BINS; bin++) {
                if (all[bin] > 0) yield [`${place} all`, i + 1, valueAt(bin), all[bin]];
            }
            for (let k = 0; k < single.length; k++) {
                if (single[k] > 0) yield [`${place} unit ${Math.floor(k / BINS) + 1}`, i + 1, valueAt(k % BINS), single[k]];
            }
        }
    }
    const { at, norms } = run.statistics;
    for (const [n, norm] of norms.entries()) {
        for (const kind of ["batchMean", "batchVar", "runningMean", "runningVar"]) {
            for (const [s, share] of at.entries()) {
                for (let c = 0; c < norm.channels; c++) yield [`${kind} channel ${c + 1}`, n + 1, share, norm[kind][s * norm.channels + c]];
            }
        }
    }
    if (run.landscape) {
        for (const kind of ["loss", "smallest", "largest", "move", "beta"]) {
            for (const [s, share] of run.landscape.at.entries()) yield [`landscape ${kind}`, "", share, run.landscape[kind][s]];
        }
    }
}

/** The CSV in pieces, as one string of it may be too long. */
function csvOf({ names, epochs, recalibrated }) {
    const parts = ["run,epoch,what,layer,index,value\r\n"];
    for (const { epoch, runs } of epochs) {
        runs.forEach((run, i) => {
            if (run.ended) return;
            const lines = Array.from(linesOf(run), (cells) => [quoted(names[i]), epoch, ...cells].join(","));
            parts.push(`${lines.join("\r\n")}\r\n`);
        });
    }
    for (const { epoch, runs } of recalibrated) {
        runs.forEach(({ after }, i) => parts.push(`${[quoted(names[i]), epoch, "accuracy recalibrated", "", "", after].join(",")}\r\n`));
    }
    return parts;
}
