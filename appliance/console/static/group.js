// A room's plan: arrows up and down go to the seat of another row, and machines are dragged to seats. See group_plan.go.
"use strict";
(() => {
  const seats = () => [...document.querySelectorAll("#seating .planrow")].map((row) => [...row.querySelectorAll('input[type="radio"]')]);

  // Of themselves, arrows go through all seats one by one.
  document.addEventListener("keydown", (e) => {
    if ((e.key !== "ArrowUp" && e.key !== "ArrowDown") || !e.target.matches('#seating input[type="radio"]')) return;
    e.preventDefault();
    const rows = seats();
    const row = rows.findIndex((r) => r.includes(e.target));
    const next = rows[row + (e.key === "ArrowUp" ? -1 : 1)]?.[rows[row].indexOf(e.target)];
    if (!next) return;
    next.checked = true;
    next.focus();
  });

  // A drag begins when the mouse has gone some pixels with its button down: until then it is a click.
  const begin = 6;
  let held = null; // what is under the mouse, where it went down, and whether it is dragged
  const under = (e) => document.elementFromPoint(e.clientX, e.clientY)?.closest("#seating label.place");
  const unmark = () => document.querySelectorAll(".place.drop").forEach((p) => p.classList.remove("drop"));
  const end = () => {
    unmark();
    held?.from.classList.remove("dragged");
    document.body.classList.remove("dragging");
    held = null;
  };
  document.addEventListener("pointerdown", (e) => {
    const from = e.target.closest("#places [data-machine]");
    if (!from || e.button !== 0 || e.pointerType !== "mouse" || e.target.closest("a") || !document.getElementById("seating")) return;
    held = { from, x: e.clientX, y: e.clientY, moves: false };
  });
  document.addEventListener("pointermove", (e) => {
    if (!held) return;
    if (!held.moves && Math.hypot(e.clientX - held.x, e.clientY - held.y) < begin) return;
    held.moves = true;
    held.from.classList.add("dragged");
    document.body.classList.add("dragging");
    unmark();
    const seat = under(e);
    if (seat && seat !== held.from) seat.classList.add("drop");
  });
  document.addEventListener("pointercancel", end);
  document.addEventListener("dragstart", (e) => held && e.preventDefault());
  document.addEventListener("keydown", (e) => e.key === "Escape" && end());
  document.addEventListener("pointerup", (e) => {
    if (!held) return;
    const { from, moves } = held;
    const seat = under(e);
    end();
    if (!moves || !seat || seat === from) return;
    seat.querySelector('input[type="radio"]').checked = true;
    document.getElementById("put-machine").value = from.dataset.machine;
    document.getElementById("put").click();
  });
})();
