// The upload of a disk: the file is the body of the request, as it is, so that its length is bounded by the appliance's room alone.
"use strict";
(() => {
  const units = ["B", "KB", "MB", "GB", "TB"];
  const bytes = (n) => {
    let unit = 0;
    while (n >= 999.5 && unit < units.length - 1) {
      n /= 1000;
      unit++;
    }
    return (n >= 9.95 || unit === 0 ? n.toFixed(0) : n.toFixed(1)) + " " + units[unit];
  };
  let sending = null;

  const begin = (form) => {
    const { path, sending: text, waiting, broken, nofile } = form.dataset;
    const answer = form.querySelector(".answer");
    const refuse = (sentence) => {
      const span = document.createElement("span");
      span.className = "message refused";
      span.textContent = sentence;
      answer.replaceChildren(span);
    };
    const file = form.elements.file.files[0];
    answer.replaceChildren();
    if (!file) return refuse(nofile);
    const box = form.querySelector(".sending");
    const bar = box.querySelector("progress");
    const line = box.querySelector("p");
    const button = form.querySelector("button.main");
    const q = new URLSearchParams({ name: form.elements.name.value, version: form.elements.version.value });
    if (form.elements.full.checked) q.set("full", "yes");
    const began = performance.now();
    const request = (sending = new XMLHttpRequest());
    const end = () => {
      sending = null;
      box.hidden = true;
      form.querySelector(".breakoff").hidden = true;
      button.disabled = false;
    };
    request.open("PUT", path + "?" + q);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("HX-Request", "true");
    request.setRequestHeader("X-CSRF-Token", document.querySelector('meta[name="csrf"]').content);
    request.upload.onprogress = (e) => {
      const rate = e.loaded / Math.max(0.5, (performance.now() - began) / 1000);
      bar.value = (1000 * e.loaded) / Math.max(1, e.total);
      line.textContent = text.replace("%s", bytes(e.loaded)).replace("%s", bytes(e.total)).replace("%s", bytes(rate) + "/s");
    };
    request.upload.onload = () => (line.textContent = waiting);
    request.onload = () => {
      const to = request.getResponseHeader("HX-Redirect");
      end();
      if (to) {
        location.assign(to);
        return;
      }
      const t = document.createElement("template");
      t.innerHTML = request.responseText;
      const said = t.content.querySelector(".message");
      refuse(said ? said.textContent : broken);
    };
    request.onerror = () => {
      end();
      refuse(broken);
    };
    request.onabort = end;
    box.hidden = false;
    button.disabled = true;
    bar.value = 0;
    line.textContent = "";
    request.send(file);
  };

  document.addEventListener("submit", (e) => {
    if (e.target.id !== "upload-form") return;
    e.preventDefault();
    if (!sending) begin(e.target);
  });
  // An upload that has taken long is not broken off by a key: who closes its dialog is asked.
  const dialog = document.getElementById("dialog");
  const ask = (e) => {
    if (!sending) return;
    e.preventDefault();
    e.stopPropagation();
    const question = dialog.querySelector(".breakoff");
    if (question) question.hidden = false;
  };
  dialog?.addEventListener("cancel", ask);
  document.addEventListener("keydown", (e) => e.key === "Escape" && ask(e), true); // the focus is nowhere when its button went dark
  dialog?.addEventListener("click", (e) => e.target.closest("[data-close]") && ask(e), true);
  dialog?.addEventListener("click", (e) => {
    if (!e.target.closest("[data-break]")) return;
    sending?.abort();
    dialog.close();
  });
  dialog?.addEventListener("close", () => sending?.abort());
  window.addEventListener("beforeunload", (e) => sending && e.preventDefault());
})();
