// SPDX-License-Identifier: Apache-2.0
// The controls of the settings, made of SETTINGS.

function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (name === "on") for (const [event, action] of Object.entries(value)) made.addEventListener(event, action);
        else if (value === true) made.setAttribute(name, "");
        else if (value !== false && value !== null) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
}

/** { node, show(value, most?) } of a setting; `changed(key, value)` is told what the reader chose. */
function control(key, changed) {
    const given = SETTINGS[key];
    const id = `set-${key}`;
    if (given.kind === "range") {
        const { min, max, step, scale } = given;
        const output = element("output", { for: id, "aria-live": "off" });
        const input = element("input", { id, type: "range", min, max, step, name: key });
        input.addEventListener("input", () => changed(key, scale.from(+input.value)));
        // The label is told by `for`: an output inside of it would take it.
        const node = element("div", { class: "control" }, element("label", { for: id }, given.label), output, input);
        const show = (wanted, most = Infinity) => {
            const value = Math.min(wanted, most);
            input.max = Math.min(max, most);
            input.value = value > 0 || scale === even ? scale.to(value) : min;
            output.value = textOf(key, value);
            input.setAttribute("aria-valuetext", textOf(key, value));
        };
        return { node, show };
    }
    if (given.kind === "check") {
        const input = element("input", { id, type: "checkbox", name: key });
        input.addEventListener("change", () => changed(key, input.checked));
        const node = element("div", { class: "check" }, input, element("label", { for: id }, given.label));
        return { node, show: (value) => (input.checked = value) };
    }
    const options = Object.entries(given.values).map(([value, text]) => element("option", { value }, text));
    const select = element("select", { id, name: key }, ...options);
    select.addEventListener("change", () => changed(key, valueOf(key, select.value)));
    const node = element("div", { class: "control" }, element("label", { for: id }, given.label), select);
    const show = (value) => {
        // An address may ask for what is not on the list.
        if (![...select.options].some((option) => option.value === String(value))) {
            select.append(element("option", { value }, String(value)));
        }
        select.value = String(value);
    };
    return { node, show };
}
