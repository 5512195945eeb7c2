// What all pages share: the CSRF token of what htmx sends, dialogs, and the live parts of a page. See live.go.
"use strict";
(() => {
  const body = document.body;

  document.addEventListener("htmx:config:request", (e) => {
    const csrf = document.querySelector('meta[name="csrf"]');
    if (csrf) e.detail.ctx.request.headers["X-CSRF-Token"] = csrf.content;
  });

  // An action that did not reach the appliance says so at its place.
  document.addEventListener("htmx:error", (e) => {
    const form = e.target.closest && e.target.closest("form");
    const place = form && form.querySelector(".answer");
    if (place) {
      place.textContent = body.dataset.lost;
      place.classList.add("refused");
    }
  });

  // A dialog opens when something was put into it, and gives the focus back when it closes.
  const dialog = document.getElementById("dialog");
  if (dialog) {
    let opener = null;
    new MutationObserver(() => {
      if (dialog.childElementCount > 0 && !dialog.open) {
        opener = document.activeElement;
        const heading = dialog.querySelector("h1, h2");
        if (heading) dialog.setAttribute("aria-label", heading.textContent);
        dialog.showModal();
      }
    }).observe(dialog, { childList: true });
    dialog.addEventListener("close", () => {
      dialog.replaceChildren();
      if (opener && opener.isConnected) opener.focus();
    });
    dialog.addEventListener("click", (e) => {
      if (e.target.closest("[data-close]")) dialog.close();
    });
  }

  // A button with data-copy copies the text of the element that it names.
  document.addEventListener("click", async (e) => {
    const button = e.target.closest("[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = button.dataset.copied;
    } catch { // no right to: the text is chosen, for the keys that copy
      getSelection().selectAllChildren(source);
      button.textContent = button.dataset.manual;
    }
  });

  // Parts are put into their places, but for the one in which somebody types.
  const place = (part) => {
    const old = document.getElementById(part.id);
    if (part.html === "") {
      if (old) old.remove();
      return;
    }
    const t = document.createElement("template");
    t.innerHTML = part.html;
    const fresh = t.content.firstElementChild;
    if (!fresh) return;
    if (!old) {
      const parent = part.in && document.getElementById(part.in);
      if (!parent) return;
      parent.append(fresh);
    } else {
      const focus = document.activeElement;
      const within = old.contains(focus) && focus !== old;
      if (within && focus.matches("input, select, textarea")) return;
      const id = within ? focus.id : "";
      old.replaceWith(fresh);
      if (id) document.getElementById(id)?.focus();
      else if (focus === old) fresh.focus();
    }
    window.htmx?.process(fresh);
  };

  const lost = document.getElementById("lost");
  let source = null;
  let silent = 0;
  const alive = () => {
    document.documentElement.dataset.heard = "1"; // what is shown is what is
    lost.hidden = true;
    clearTimeout(silent);
    silent = setTimeout(tell, 40000); // two and a half heartbeats
  };
  const tell = () => {
    lost.textContent = body.dataset.lost;
    lost.hidden = false;
  };
  const listen = () => {
    const q = new URLSearchParams({ page: body.dataset.page, at: location.pathname + location.search });
    source = new EventSource("/live?" + q);
    source.addEventListener("parts", (e) => {
      alive();
      JSON.parse(e.data).forEach(place);
      document.dispatchEvent(new CustomEvent("live:parts"));
    });
    source.addEventListener("data", (e) => {
      alive();
      document.dispatchEvent(new CustomEvent("live:data", { detail: JSON.parse(e.data) }));
    });
    source.addEventListener("alive", alive);
    source.addEventListener("ended", () => location.reload());
    source.onerror = () => {
      tell();
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000); // an answer that was no stream
    };
  };
  if ("live" in body.dataset) {
    listen();
    window.addEventListener("pagehide", () => source.close());
    window.addEventListener("pageshow", (e) => e.persisted && listen());
  }
})();
