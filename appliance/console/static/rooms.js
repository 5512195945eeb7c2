// The rooms: what changes of the seats, and how machines are chosen. See page_rooms.go.
"use strict";
(() => {
  const state = new Map(); // by machine ID, as the appliance sent it last
  const drawn = new WeakMap(); // how long the bar of a track is
  const chosen = new Set(); // machine IDs
  let seats = []; // all, in the order of the document
  let cursor = null; // the seat that keys act on
  let anchor = null; // where a range begins
  const byID = (id) => document.getElementById("m-" + id);
  const idOf = (seat) => seat.id.slice(2);
  const shown = () => seats.filter((s) => !s.hidden);

  // What changes of a seat. Nothing is read here, so that a thousand of them are laid out once.
  const draw = (seat, n) => {
    if (seat.dataset.word !== n.w) {
      const is = seat.classList.contains("chosen");
      seat.dataset.word = n.w;
      seat.className = "seat " + n.w + (is ? " chosen" : "");
      seat.children[1].className = "word " + n.w;
      seat.children[1].firstChild.data = n.t;
    }
    if ((seat.title || "") !== (n.y || "")) seat.title = n.y || "";
    if (inSight.has(watched(seat))) detail(seat, n);
    if (seat === heard && seat.dataset.word !== heardWord) label(seat);
  };
  // Who comes to a seat with a screen reader hears how it is, and again when its word changes: not each figure twice a second.
  let heard = null;
  let heardWord = "";
  const label = (seat) => {
    heard = seat;
    heardWord = seat.dataset.word;
    const n = state.get(idOf(seat)) || {};
    const said = [seat.dataset.name, seat.children[1].textContent, n.p, n.r, n.l].filter(Boolean).join(", ");
    if (seat.getAttribute("aria-label") !== said) seat.setAttribute("aria-label", said);
  };
  document.addEventListener("focusin", (e) => e.target.matches(".seat") && label(e.target));
  document.addEventListener("focusout", (e) => {
    if (!e.target.matches(".seat")) return;
    heard = null;
    e.target.removeAttribute("aria-label");
  });

  const detail = (seat, n) => {
    const bar = n.d / 10 + "% 100%"; // a transform would make a thousand layers, a width would lay the seat out
    const track = seat.children[3];
    if (drawn.get(track) !== bar) {
      drawn.set(track, bar);
      track.firstChild.style.backgroundSize = bar;
    }
    write(seat.children[2], n.p);
    write(seat.children[4], n.r);
    write(seat.children[5], n.l);
  };
  const write = (place, text = "") => {
    if (!place.firstChild) place.append(text);
    else if (place.firstChild.data !== text) place.firstChild.data = text;
  };

  // Rates and bars that are out of sight wait until somebody scrolls to them; words are always as they are. What is watched for that
  // are rooms, and the seats of a large one.
  const largeRoom = 100; // seats
  const watched = (seat) => (seat.parentElement.childElementCount > largeRoom ? seat : seat.closest(".room"));
  const inSight = new Set();
  const sight = new IntersectionObserver((entries) => {
    for (const e of entries) {
      if (!e.isIntersecting) {
        inSight.delete(e.target);
        continue;
      }
      inSight.add(e.target);
      for (const seat of e.target.matches(".seat") ? [e.target] : e.target.querySelectorAll(".seat")) {
        const n = state.get(idOf(seat));
        if (n) detail(seat, n);
      }
    }
  }, { rootMargin: "400px" });

  // Seats stand in the plan by row and column; on a phone the stylesheet lets them flow.
  const lay = () => {
    seats = [...document.querySelectorAll(".seat")];
    sight.disconnect();
    inSight.clear();
    new Set(seats.map(watched)).forEach((e) => sight.observe(e));
    for (const plan of document.querySelectorAll(".seats[data-columns]")) plan.style.setProperty("--columns", plan.dataset.columns);
    for (const seat of seats) {
      if (seat.dataset.row) {
        seat.style.setProperty("--row", seat.dataset.row);
        seat.style.setProperty("--column", seat.dataset.column);
      }
      const n = state.get(idOf(seat));
      if (n) draw(seat, n);
    }
    for (const id of chosen) if (!byID(id)) chosen.delete(id);
    if (!cursor || !cursor.isConnected) cursor = (cursor && document.getElementById(cursor.id)) || null;
    if (anchor && !anchor.isConnected) anchor = document.getElementById(anchor.id);
    filter();
  };

  const move = (seat, focus) => {
    if (cursor) cursor.tabIndex = -1;
    cursor = seat;
    if (!seat) return;
    seat.tabIndex = 0;
    if (focus) {
      seat.focus({ preventScroll: true });
      seat.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  };

  // The choice.
  const line = document.getElementById("chosen");
  const tell = () => {
    const field = document.getElementById("machines");
    if (!field) return;
    field.value = [...chosen].join(",");
    const n = chosen.size;
    const text = n === 0 ? line.dataset.none : n === 1 ? line.dataset.single : line.dataset.many.replace("0", n);
    if (line.textContent !== text) line.textContent = text; // what is written is said
    document.querySelectorAll("[data-some]").forEach((b) => (b.disabled = n === 0));
    document.querySelectorAll("[data-only]").forEach((b) => (b.disabled = n !== 1));
    document.querySelector(".choice").classList.toggle("some", n > 0);
    const details = document.getElementById("details");
    details.hidden = n !== 1;
    if (n === 1) details.href = "/machines/" + [...chosen][0];
  };
  const mark = (seat, on) => {
    if (on === chosen.has(idOf(seat))) return;
    if (on) chosen.add(idOf(seat));
    else chosen.delete(idOf(seat));
    seat.setAttribute("aria-selected", on);
    seat.classList.toggle("chosen", on);
  };
  const choose = (list) => {
    const wanted = new Set(list);
    for (const seat of seats) mark(seat, wanted.has(seat));
    tell();
  };
  // between returns the seats from one to another: in a room the rectangle between them, else all in the order of the document.
  const between = (a, b) => {
    const list = shown();
    if (a.parentElement !== b.parentElement) {
      const [i, j] = [list.indexOf(a), list.indexOf(b)].sort((x, y) => x - y);
      return list.slice(i, j + 1);
    }
    const p = a.getBoundingClientRect();
    const q = b.getBoundingClientRect();
    return within(list.filter((s) => s.parentElement === a.parentElement), Math.min(p.left, q.left), Math.min(p.top, q.top), Math.max(p.right, q.right), Math.max(p.bottom, q.bottom));
  };
  const within = (list, left, top, right, bottom) =>
    list.filter((s) => {
      const r = s.getBoundingClientRect();
      return r.left < right && r.right > left && r.top < bottom && r.bottom > top;
    });

  // Keys: arrows go to the nearest seat that way, in the next room where this one ends.
  const towards = (from, key) => {
    const r = from.getBoundingClientRect();
    const x = (r.left + r.right) / 2;
    const y = (r.top + r.bottom) / 2;
    let best = null;
    let least = Infinity;
    for (const s of shown()) {
      if (s === from) continue;
      const q = s.getBoundingClientRect();
      const dx = (q.left + q.right) / 2 - x;
      const dy = (q.top + q.bottom) / 2 - y;
      const along = { ArrowLeft: -dx, ArrowRight: dx, ArrowUp: -dy, ArrowDown: dy }[key];
      const aside = Math.abs(key === "ArrowLeft" || key === "ArrowRight" ? dy : dx);
      if (along < 4 || ((key === "ArrowLeft" || key === "ArrowRight") && aside > r.height / 2)) continue;
      const far = along + aside * 3;
      if (far < least) [best, least] = [s, far];
    }
    if (!best && (key === "ArrowLeft" || key === "ArrowRight")) {
      const list = shown();
      best = list[list.indexOf(from) + (key === "ArrowLeft" ? -1 : 1)];
    }
    return best;
  };
  const rooms = () => document.getElementById("rooms");
  document.addEventListener("keydown", (e) => {
    const seat = e.target.closest && e.target.closest(".seat");
    if (!seat) return;
    const ctrl = e.ctrlKey || e.metaKey;
    let to = null;
    if (e.key.startsWith("Arrow")) to = towards(seat, e.key);
    else if (e.key === "Home") to = shown()[0];
    else if (e.key === "End") to = shown().at(-1);
    else if (e.key === " ") {
      mark(seat, !chosen.has(idOf(seat)));
      anchor = seat;
      tell();
    } else if (e.key === "a" && ctrl) choose(shown());
    else if (e.key === "Escape") choose([]);
    else if (e.key === "Enter") location.href = "/machines/" + idOf(seat);
    else return;
    e.preventDefault();
    if (!to) return;
    if (e.shiftKey) {
      anchor = anchor || seat;
      choose(between(anchor, to));
    } else if (!ctrl) anchor = to;
    move(to, true);
  });

  // The mouse: a click chooses, a drag chooses what its frame touches. Fingers tap to choose, and drag to scroll.
  let drag = null;
  document.addEventListener("pointerdown", (e) => {
    const area = e.target.closest(".seats");
    if (!area || e.button !== 0) return;
    if (e.pointerType === "touch") return;
    const seat = e.target.closest(".seat");
    drag = { x: e.pageX, y: e.pageY, seat, moved: false, base: e.ctrlKey || e.metaKey || e.shiftKey ? seats.filter((s) => chosen.has(idOf(s))) : [], frame: null };
  });
  document.addEventListener("pointermove", (e) => {
    if (!drag) return;
    if (!drag.moved && Math.hypot(e.pageX - drag.x, e.pageY - drag.y) < 6) return;
    if (!drag.moved) {
      drag.moved = true;
      drag.frame = document.createElement("div");
      drag.frame.className = "frame";
      document.body.append(drag.frame);
      document.body.classList.add("dragging");
    }
    const left = Math.min(e.pageX, drag.x);
    const top = Math.min(e.pageY, drag.y);
    const width = Math.abs(e.pageX - drag.x);
    const height = Math.abs(e.pageY - drag.y);
    Object.assign(drag.frame.style, { left: left + "px", top: top + "px", width: width + "px", height: height + "px" });
    choose([...drag.base, ...within(shown(), left - scrollX, top - scrollY, left - scrollX + width, top - scrollY + height)]);
  });
  const release = () => {
    if (drag && drag.frame) drag.frame.remove();
    document.body.classList.remove("dragging");
    drag = null;
  };
  document.addEventListener("pointercancel", release);
  document.addEventListener("pointerup", () => {
    const moved = drag && drag.moved;
    release();
    if (!moved) return;
    const stop = (e) => e.stopPropagation();
    document.addEventListener("click", stop, { capture: true, once: true });
    setTimeout(() => document.removeEventListener("click", stop, true)); // no click followed
  });
  document.addEventListener("click", (e) => {
    const seat = e.target.closest(".seat");
    if (!seat) return;
    if (e.shiftKey && anchor) choose(between(anchor, seat));
    else if (e.ctrlKey || e.metaKey || e.pointerType === "touch") {
      mark(seat, !chosen.has(idOf(seat)));
      tell();
      anchor = seat;
    } else {
      choose(chosen.size === 1 && chosen.has(idOf(seat)) ? [] : [seat]);
      anchor = seat;
    }
    move(seat, true);
  });
  document.addEventListener("dblclick", (e) => {
    const seat = e.target.closest(".seat");
    if (seat) location.href = "/machines/" + idOf(seat);
  });
  document.addEventListener("click", (e) => {
    const all = e.target.closest("[data-all]");
    if (!all) return;
    const list = [...document.getElementById(all.dataset.all).children].filter((s) => !s.hidden);
    const whole = list.every((s) => chosen.has(idOf(s)));
    for (const s of list) mark(s, !whole);
    tell();
  });
  document.getElementById("all")?.addEventListener("click", () => choose(shown()));
  document.getElementById("none")?.addEventListener("click", () => choose([]));

  // The filter hides seats; what is hidden is not chosen.
  const form = document.getElementById("filter");
  const filter = () => {
    if (form) {
      const text = form.elements.text.value.trim().toLowerCase();
      const word = form.elements.word.value;
      const group = form.elements.group.value;
      for (const seat of seats) {
        const fits = (!text || seat.dataset.name.toLowerCase().includes(text)) && (!word || seat.dataset.word === word) && (!group || seat.dataset.groups.split("\n").includes(group));
        if (seat.hidden === fits) seat.hidden = !fits;
        if (!fits) mark(seat, false);
      }
      const narrowed = text !== "" || word !== "" || group !== "";
      rooms().classList.toggle("narrowed", narrowed);
      for (const room of document.querySelectorAll(".room")) room.hidden = narrowed && !room.querySelector(".seat:not([hidden])");
      document.getElementById("none-found").hidden = !narrowed || shown().length > 0;
    }
    for (const seat of seats) {
      const on = chosen.has(idOf(seat));
      if (on !== seat.classList.contains("chosen")) {
        seat.setAttribute("aria-selected", on);
        seat.classList.toggle("chosen", on);
      }
    }
    if (!cursor || cursor.hidden) move(shown()[0] || null, false);
    else cursor.tabIndex = 0;
    tell();
  };
  form?.addEventListener("input", filter);
  form?.addEventListener("submit", (e) => e.preventDefault());

  let measured = 0;
  document.addEventListener("live:data", (e) => {
    const begun = performance.now();
    for (const [id, n] of Object.entries(e.detail)) {
      if (id === "plan") {
        replan(n);
        continue;
      }
      if (n === null) {
        state.delete(id);
        continue;
      }
      state.set(id, n);
      const seat = byID(id);
      if (seat) draw(seat, n);
    }
    if (form && form.elements.word.value) filter();
    // How long the page worked, for tests: milliseconds of this script, and with the layout and painting up to the next frame.
    const worked = performance.now() - begun;
    if (++measured % 200 === 0) performance.clearMeasures("seats");
    requestAnimationFrame(() => setTimeout(() => performance.measure("seats", { start: begun, end: performance.now(), detail: { worked, seats: Object.keys(e.detail).length } })));
  });

  // Another plan, since a machine came, went or changed its place, is loaded; what is chosen stays.
  const replan = async (plan) => {
    if (rooms().dataset.plan === plan) return;
    const r = await fetch(location.href);
    if (!r.ok || r.redirected) return;
    const fresh = new DOMParser().parseFromString(await r.text(), "text/html");
    const focused = document.activeElement?.closest?.(".seat") ? document.activeElement.id : "";
    const next = fresh.getElementById("rooms");
    if (!next) return;
    if (!document.querySelector(".choice")) return location.reload(); // the first machine
    rooms().replaceWith(document.adoptNode(next));
    lay();
    if (focused) document.getElementById(focused)?.focus();
  };

  lay();
})();
