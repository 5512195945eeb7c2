// What dialogs of orders do beside htmx: the focus goes to what came, a plan goes when what it was made of changes, and the box of a room
// stands for those of its machines. See orders.go.
"use strict";
(() => {
  document.addEventListener("htmx:after:swap", () => {
    const fresh = document.querySelector("#dialog [data-focus]");
    if (fresh) {
      fresh.removeAttribute("data-focus");
      fresh.focus();
    }
  });
  document.addEventListener("input", (e) => {
    const form = e.target.closest("form[data-forgets]");
    if (form) document.getElementById(form.dataset.forgets)?.replaceChildren();
  });
  document.addEventListener("change", (e) => {
    const room = e.target.closest(".wholes li");
    if (!room) return;
    const whole = room.querySelector("[data-whole]");
    const boxes = [...room.querySelectorAll('[name="machines"]')];
    if (e.target === whole) boxes.forEach((box) => (box.checked = whole.checked));
    const count = boxes.filter((box) => box.checked).length;
    whole.checked = count === boxes.length;
    whole.indeterminate = count > 0 && count < boxes.length;
  });
})();
