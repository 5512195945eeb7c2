// What dialogs of orders do beside htmx: the focus goes to what came, and a plan goes when what it was made of changes. See orders.go.
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
})();
