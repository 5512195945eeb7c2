// What all pages share: the CSRF token of what htmx sends, dialogs, and the live parts of a page. See live.go.
"use strict";
(() => {
  const body = document.body;
  // The page as it came, before scripts change it, until the first live parts were compared with it. This script is the first of all.
  let came = "live" in body.dataset ? body.cloneNode(true) : null;

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
      if (dialog.childElementCount === 0) return;
      const heading = dialog.querySelector("h1, h2"); // of what came now: a dialog may lead to another
      if (heading) dialog.setAttribute("aria-label", heading.textContent);
      if (!dialog.open) {
        opener = document.activeElement;
        dialog.showModal();
      }
    }).observe(dialog, { childList: true });
    dialog.addEventListener("close", () => {
      dialog.replaceChildren();
      if (!opener) return;
      const path = opener.getAttribute("hx-get");
      const now = opener.isConnected ? opener : (opener.id && document.getElementById(opener.id)) || (path && document.querySelector(`[hx-get="${CSS.escape(path)}"]`));
      now?.focus();
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

  // A part waits while its place is in use; the newest is kept, since it is not sent again. It gets its place when the use ends.
  const kept = new Map(); // parts by ID, those before others that stand in them
  const asked = new Map(); // elements whose request is under way, by its context
  const answers = new WeakMap(); // what was said in a form, and since when
  const readingTime = 10000; // ms
  let pressed = null; // where a pointer or a key is down

  const typing = "input, textarea, select";
  const inUse = (old) => {
    const focus = document.activeElement;
    if (pressed && old.contains(pressed)) return true;
    if (focus !== old && old.contains(focus) && focus.matches(typing)) return true;
    for (const e of asked.values()) if (old.contains(e)) return true;
    let read = false;
    for (const answer of old.querySelectorAll(".answer")) {
      const text = answer.textContent.trim();
      if (text === "") continue;
      if (answers.get(answer)?.text !== text) {
        answers.set(answer, { text, since: performance.now() });
        setTimeout(settle, readingTime + 10);
      }
      read ||= performance.now() - answers.get(answer).since < readingTime;
    }
    return read;
  };
  // settle puts what waits into its place, where that is free now.
  const settle = () => {
    if (kept.size === 0) return;
    const parts = [...kept.values()];
    kept.clear();
    parts.forEach(place);
    document.dispatchEvent(new CustomEvent("live:parts"));
  };
  const keep = (part) => {
    kept.set(part.id, part);
    const old = document.getElementById(part.id);
    for (const [id, other] of old ? [...kept] : []) {
      const inner = document.getElementById(id);
      if (inner && inner !== old && old.contains(inner)) {
        kept.delete(id);
        kept.set(id, other); // after the one around it
      }
    }
  };
  const around = (e) => [...kept.keys()].some((id) => document.getElementById(id)?.contains(e));

  const parsed = (html) => {
    const t = document.createElement("template");
    t.innerHTML = html;
    return t.content.firstElementChild;
  };
  // A part is as it is shown if it is what the page came with or what was put in last: each new listener is sent all parts, and what
  // somebody points at, reads or has marked is not replaced for that.
  const shown = new Map(); // HTML by ID
  const asItWas = (id) => (shown.has(id) ? parsed(shown.get(id)) : came?.querySelector("#" + CSS.escape(id)));

  // Where only words and figures differ they are changed in place: who stands on a button there, or reads there with a screen reader, is
  // not thrown out twice a second. What leads or acts elsewhere than before is not the same.
  const own = ["id", "href", "name", "type", "action", "method", "class"];
  const acts = (e) => e.matches("a, button, input, select, textarea, form");
  const alike = (now, was, fresh) => {
    if (was.isEqualNode(fresh)) return true;
    if (now.nodeName !== was.nodeName || was.nodeName !== fresh.nodeName || now.childNodes.length !== was.childNodes.length || was.childNodes.length !== fresh.childNodes.length) return false;
    if (fresh.nodeType !== Node.ELEMENT_NODE) return true;
    for (const name of new Set([...was.getAttributeNames(), ...fresh.getAttributeNames()])) {
      const changes = was.getAttribute(name) !== fresh.getAttribute(name);
      if (changes && (name.startsWith("hx-") || (acts(was) && (own.includes(name) || name === "aria-label")) || name === "id")) return false;
    }
    return [...fresh.childNodes].every((f, i) => alike(now.childNodes[i], was.childNodes[i], f));
  };
  const patch = (now, was, fresh) => {
    if (was.isEqualNode(fresh)) return;
    if (fresh.nodeType !== Node.ELEMENT_NODE) {
      now.data = fresh.data;
      return;
    }
    for (const name of new Set([...was.getAttributeNames(), ...fresh.getAttributeNames()])) {
      const value = fresh.getAttribute(name);
      if (was.getAttribute(name) === value) continue;
      if (value === null) now.removeAttribute(name);
      else now.setAttribute(name, value);
    }
    fresh.childNodes.forEach((f, i) => patch(now.childNodes[i], was.childNodes[i], f));
  };

  const place = (part) => {
    const old = document.getElementById(part.id);
    const fresh = parsed(part.html);
    const was = old && fresh && asItWas(part.id);
    if (was && was.isEqualNode(fresh) && !kept.has(part.id) && !around(old)) {
      shown.set(part.id, part.html);
      return;
    }
    if (old ? inUse(old) || around(old) : kept.has(part.id)) return keep(part);
    kept.delete(part.id);
    if (!fresh) {
      shown.delete(part.id);
      if (old && part.html === "") old.remove();
      return;
    }
    const answered = old && [...old.querySelectorAll(".answer")].some((a) => a.textContent.trim() !== "");
    if (was && !answered && alike(old, was, fresh)) {
      patch(old, was, fresh);
      shown.set(part.id, part.html);
      return;
    }
    if (!old) {
      const parent = part.in && document.getElementById(part.in);
      if (!parent || around(parent)) {
        if (kept.size > 0) keep(part); // it may come with what waits
        return;
      }
      const next = part.before && document.getElementById(part.before);
      parent.insertBefore(fresh, next?.parentElement === parent ? next : null);
    } else {
      replace(old, fresh);
    }
    for (const inner of fresh.querySelectorAll("[id]")) shown.delete(inner.id); // they are as they come with this one
    shown.set(part.id, part.html);
    if (part.html.includes("hx-")) window.htmx?.process(fresh);
  };

  // replace leaves what somebody did in a part as it is: what is open, how far it is scrolled, what was typed, and the focus.
  const replace = (old, fresh) => {
    for (const d of old.querySelectorAll("details[id]")) {
      const same = fresh.querySelector("#" + CSS.escape(d.id));
      if (same) same.open = d.open;
    }
    const scrolls = ".scroll, pre";
    const all = (part) => [...(part.matches(scrolls) ? [part] : []), ...part.querySelectorAll(scrolls)];
    const far = all(old).map((e) => [e.scrollTop, e.scrollLeft]);
    const form = (e) => e.form?.getAttribute("action");
    for (const e of old.querySelectorAll("input[name], textarea[name], select[name]")) {
      const choice = e.type === "checkbox" || e.type === "radio";
      const same = [...fresh.querySelectorAll(typing)].find((f) => f.name === e.name && f.type === e.type && form(f) === form(e) && (!choice || f.value === e.value));
      if (!same || e.type === "file" || !changed(e)) continue;
      if (choice) same.checked = e.checked;
      else same.value = e.value;
    }
    const focus = document.activeElement;
    const within = old.contains(focus);
    const find = () => {
      if (focus === old) return fresh;
      if (focus.id) return fresh.querySelector("#" + CSS.escape(focus.id));
      // Only what is the one of its kind is surely the same.
      const own = form(focus);
      const marks = ["aria-label", "href", "hx-get", "name"].filter((n) => focus.getAttribute(n)).map((n) => `${focus.localName}[${n}="${CSS.escape(focus.getAttribute(n))}"]`);
      if (own) marks.push(`form[action="${CSS.escape(own)}"] ${focus.localName}`);
      for (const mark of marks) {
        const same = fresh.querySelectorAll(mark);
        if (same.length === 1 && old.querySelectorAll(mark).length === 1) return same[0];
      }
      return null;
    };
    const next = within ? find() : null;
    old.replaceWith(fresh);
    all(fresh).forEach((e, i) => far[i] && ([e.scrollTop, e.scrollLeft] = far[i]));
    next?.focus({ preventScroll: true });
  };
  const changed = (e) => {
    if (e.type === "checkbox" || e.type === "radio") return e.checked !== e.defaultChecked;
    if (!e.options) return e.value !== e.defaultValue;
    const byDefault = [...e.options].findIndex((o) => o.defaultSelected);
    return e.selectedIndex !== Math.max(0, byDefault);
  };

  // A click comes after its pointer is up, and the focus goes on after it left: both are waited for.
  const soon = () => setTimeout(settle, 0);
  const release = () => {
    pressed = null;
    setTimeout(settle, 20);
  };
  document.addEventListener("pointerdown", (e) => (pressed = e.target), true);
  document.addEventListener("pointerup", release, true);
  document.addEventListener("pointercancel", release, true);
  document.addEventListener("keydown", (e) => (e.key === " " || e.key === "Enter") && (pressed = e.target), true);
  document.addEventListener("keyup", release, true);
  window.addEventListener("blur", release);
  document.addEventListener("focusout", soon);
  document.addEventListener("htmx:before:request", (e) => asked.set(e.detail.ctx, e.detail.ctx.sourceElement));
  document.addEventListener("htmx:finally:request", (e) => {
    asked.delete(e.detail.ctx);
    soon();
  });

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
  // What the page shows is gone, or the stay has ended: it is loaded again, where nothing of what somebody does is lost by that.
  const ended = () => {
    source.close();
    clearTimeout(silent);
    const typed = [...document.querySelectorAll("main :is(input, textarea, select), dialog :is(input, textarea, select)")].some(changed);
    if (!dialog?.open && !typed) {
      location.reload();
      return;
    }
    const link = document.createElement("a");
    link.href = location.href;
    link.textContent = body.dataset.again;
    link.addEventListener("click", (e) => {
      e.preventDefault();
      location.reload();
    });
    lost.replaceChildren(body.dataset.ended + " ", link);
    lost.hidden = false;
  };
  const listen = () => {
    const q = new URLSearchParams({ page: body.dataset.page, at: location.pathname + location.search });
    source = new EventSource("/live?" + q);
    source.addEventListener("parts", (e) => {
      alive();
      JSON.parse(e.data).forEach(place);
      came = null;
      document.dispatchEvent(new CustomEvent("live:parts"));
    });
    source.addEventListener("data", (e) => {
      alive();
      document.dispatchEvent(new CustomEvent("live:data", { detail: JSON.parse(e.data) }));
    });
    source.addEventListener("alive", alive);
    source.addEventListener("ended", ended);
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
