/* The search of a site that is opened from a disk. The theme searches in a worker, and there browsers start none: this
   one runs its script in a hidden frame. */
"use strict";

if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc = "<!doctype html>";
      // A frame has no worker's functions before it is loaded.
      this.inside = new Promise((resolve) => {
        frame.addEventListener("load", () => resolve(this.begin(frame.contentWindow, address)), { once: true });
      });
      document.body.append(frame);
      this.frame = frame;
    }

    async begin(inside, address) {
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = async (...addresses) => {
        for (const each of addresses) await load(inside.document, each);
      };
      await load(inside.document, address);
      return inside;
    }

    async postMessage(data) {
      (await this.inside).dispatchEvent(new MessageEvent("message", { data: structuredClone(data) }));
    }

    terminate() {
      this.frame.remove();
    }
  };
}

function load(page, address) {
  return new Promise((resolve, reject) => {
    const script = page.createElement("script");
    script.src = address;
    script.onload = resolve;
    script.onerror = () => reject(new Error(`${address} cannot be loaded`));
    page.body.append(script);
  });
}
