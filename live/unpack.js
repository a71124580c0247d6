// SPDX-License-Identifier: Apache-2.0
// All but the text of the page is packed, or the file would be half as large again: its script, that of the worker, the
// module and the images. This unpacks them, and starts the page.

/** Bytes of an element's text: base64 of gzip. */
async function payload(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Or the browser asks the server for a favicon.ico.
document.head.append(Object.assign(document.createElement("link"), { rel: "icon", href: "data:," }));

payload("page").then((script) => {
    const element = document.createElement("script");
    element.textContent = new TextDecoder().decode(script);
    document.body.append(element);
});
